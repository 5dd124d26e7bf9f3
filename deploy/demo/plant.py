"""The simulated plant, or a recording, into a topic.

    python -m deploy.demo.plant --history-seconds 600 --faults-every 60 --labels faults.jsonl
    python -m deploy.demo.plant --csv recording.csv --leave-out anomaly --leave-out changepoint --speed max

Where Kafka is and the topic's name come from the same settings as the worker's (ZMU_KAFKA__…, ZMU_INPUT__TOPIC).
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from deploy.demo.faults import KINDS, SENSORS, Fault, random_faults
from deploy.demo.feed import Feed, Pace, readings
from deploy.demo.pumps import Pumps
from deploy.demo.replay import Recording
from worker import cli
from worker.errors import SettingsError, UserError

PROGRAM = "python -m deploy.demo.plant"


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    feed = None
    try:
        settings = cli.read(cli.Command, PROGRAM, [])
        with Feed(settings.kafka, args.topic or settings.input.topic) as feed:
            if args.csv:
                replay(args, feed)
            else:
                simulate(args, feed)
    except KeyboardInterrupt:
        pass
    except UserError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return error.exit_code
    finally:
        if feed is not None:
            print(f"{feed.sent} readings written to topic {feed.topic}", file=sys.stderr)
    return 0


def simulate(args: argparse.Namespace, feed: Feed) -> None:
    now_ms = round(time.time() * 1000)
    pumps = Pumps(args.pumps, args.seed, now_ms - round(args.history_seconds * 1000), args.interval_seconds)
    faults = [parsed_fault(text, now_ms) for text in args.fault]
    _mark(args.labels, faults)
    _inject(pumps, faults)
    if args.history_seconds:
        write_until(pumps, feed, now_ms)
    pace = Pace(args.speed)
    end_ms = now_ms + args.seconds * 1000
    coming = _random(pumps, args, now_ms)
    fault = next(coming, None)
    while pumps.next_ms < end_ms:
        if fault is not None and fault.start_ms <= pumps.next_ms:
            _inject(pumps, [fault])
            _mark(args.labels, [fault])
            fault = next(coming, None)
        tick = pumps.step()
        pace.wait_for(tick.timestamp_ms)
        for reading in readings(pumps.entities, tick):
            feed.send(reading, reading.timestamp_ms)


def write_until(pumps: Pumps, feed: Feed, end_ms: int) -> None:
    """Lets the plant run without waiting up to a time; all of it is on the topic afterwards."""
    while pumps.next_ms < end_ms:
        for reading in readings(pumps.entities, pumps.step()):
            feed.send(reading, reading.timestamp_ms)
    feed.flush()


def replay(args: argparse.Namespace, feed: Feed) -> None:
    recording = Recording(
        args.csv,
        timestamp_column=args.timestamp_column,
        entity_column=args.entity_column,
        entity=args.entity,
        leave_out=args.leave_out,
        interval_seconds=args.interval_seconds,
        start_ms=round(time.time() * 1000),
    )
    pace = Pace(args.speed)
    for reading in recording:
        pace.wait_for(reading.timestamp_ms)
        if args.timestamps == "now":
            reading = reading._replace(timestamp_ms=round(time.time() * 1000))
        feed.send(reading)


def parsed_fault(text: str, now_ms: int) -> Fault:
    """`kind@entity:start+duration` or `kind/sensor@entity:start+duration`, in seconds from now_ms on.

    Raises SettingsError for anything else.
    """
    match = re.fullmatch(r"(\w+?)(?:/(\w+))?@([\w.-]+):(\d+(?:\.\d+)?)\+(\d+(?:\.\d+)?)", text)
    if match is None:
        raise SettingsError(
            f"--fault {text}: need KIND@PUMP:START+DURATION or KIND/SENSOR@PUMP:START+DURATION in seconds, for "
            "instance cavitation@pump-2:30+15 or stuck/pressure@pump-1:10+20"
        )
    name, sensor, entity, start, duration = match.groups()
    kind = next((kind for kind in KINDS if kind == name), None)
    if kind is None:
        raise SettingsError(f"--fault {text}: unknown fault {name!r}: there are {', '.join(KINDS)}")
    start_ms = now_ms + round(float(start) * 1000)
    try:
        return Fault(kind, entity, start_ms, start_ms + round(float(duration) * 1000), sensor)
    except ValueError as error:
        raise SettingsError(f"--fault {text}: {error}") from error


def _random(pumps: Pumps, args: argparse.Namespace, now_ms: int) -> Iterator[Fault]:
    if args.faults_every is None:
        return iter(())
    every_ms = round(args.faults_every * 1000)
    return random_faults(pumps.entities, args.seed, now_ms + every_ms, args.faults_every)


def _inject(pumps: Pumps, faults: list[Fault]) -> None:
    try:
        pumps.inject(faults)
    except ValueError as error:
        raise SettingsError(f"--fault: {error}") from error


def _mark(labels: Path | None, faults: list[Fault]) -> None:
    """Ground truth goes into a file of its own."""
    if labels is None:
        return
    with labels.open("a") as file:
        for fault in faults:
            line = {
                "entity": fault.entity, "kind": fault.kind, "sensors": fault.sensors,
                "start_ms": fault.start_ms, "end_ms": fault.end_ms,
            }
            file.write(json.dumps(line) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Writes readings of simulated pumps, or of a recording, into a topic. "
        "Kafka's address comes from ZMU_KAFKA__BOOTSTRAP_SERVERS.",
    )
    parser.add_argument("--topic", help="topic to write to (default: ZMU_INPUT__TOPIC)")
    parser.add_argument(
        "--speed", type=_speed, default=1.0,
        help="times real time, or `max`; above 1 a plant's timestamps run ahead of the clock (%(default)s)",
    )
    parser.add_argument(
        "--interval-seconds", type=_positive, default=1.0,
        help="between two readings of a pump, or two rows without timestamps (%(default)s)",
    )

    plant = parser.add_argument_group("the plant")
    plant.add_argument("--pumps", type=int, default=6, help="how many (%(default)s)")
    plant.add_argument("--seed", type=int, default=1, help="the same seed gives the same plant (%(default)s)")
    plant.add_argument(
        "--history-seconds", type=float, default=0.0, help="normal history to write quickly first (%(default)s)"
    )
    plant.add_argument("--seconds", type=_positive, default=math.inf, help="how long to run (for ever)")
    plant.add_argument(
        "--fault", action="append", default=[], metavar="KIND[/SENSOR]@PUMP:START+DURATION",
        help=f"a fault, in seconds from now; kinds: {', '.join(KINDS)}; sensors (for stuck, spike, dropout): "
        f"{', '.join(SENSORS)}; may be repeated",
    )
    plant.add_argument("--faults-every", type=_positive, metavar="SECONDS", help="a random fault every so often")
    plant.add_argument("--labels", type=Path, help="JSON lines file that gets the faults, which readings never tell")

    recording = parser.add_argument_group("a recording instead")
    recording.add_argument("--csv", type=Path, help="file with a header, comma or semicolon separated; may be .gz")
    recording.add_argument("--timestamp-column", help="default: the one called timestamp, datetime, time, date or ts")
    recording.add_argument("--entity-column", help="column that names the machine")
    recording.add_argument("--entity", help="the machine's name (default: the file's)")
    recording.add_argument("--leave-out", action="append", default=[], metavar="COLUMN", help="not sent, e.g. a label")
    recording.add_argument(
        "--timestamps", choices=["recorded", "now"], default="recorded", help="what the readings say (%(default)s)"
    )
    return parser


def _speed(text: str) -> float:
    return math.inf if text == "max" else _positive(text)


def _positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


if __name__ == "__main__":
    sys.exit(main())
