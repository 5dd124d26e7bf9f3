"""How long from a reading's timestamp to its event at a subscriber, at a steady pace, beside the loop by hand.

    python -m tests.benchmarks latency [--pace 2000] [--seconds 4] [--rounds 3]

Everyone runs all the time; each in turn is sent readings, over some rounds, and a first one that counts for nothing:
the broker's JVM and all connections are warm. Sender and subscriber are processes of their own. The floor is the
reading itself at a subscriber: what broker, sender and subscriber take of the figures. Medians of the rounds.
Timestamps are whole milliseconds, cut off, so that half a millisecond of each figure is not there. CPU is of the whole
process, a reading.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from kafka import KafkaAdminClient
from kafka.admin import NewTopic

from tests import factory
from tests.benchmarks import figures
from tests.benchmarks.readings import FEATURES, PARTITIONS
from tests.programs import ROOT, Program, until, worker_environment

SETTLE_SECONDS = 1.0                    # of each turn, not counted
START_SECONDS = 60.0


class Contender(NamedTuple):
    name: str
    input: str
    output: str
    pid: int                            # 0: no process of its own


class Turn(NamedTuple):
    """One contender, one round."""

    events: int
    p50_ms: float
    p99_ms: float
    cpu_us: float                       # a reading


def turn(broker: str, who: Contender, pace: int, seconds: float) -> Turn:
    paced, lasting = [sys.executable, "-m", "tests.benchmarks.paced"], seconds + SETTLE_SECONDS
    pipe, listening = subprocess.PIPE, [*paced, "listen", broker, who.output]
    with subprocess.Popen(listening, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as heard:
        assert heard.stdout is not None
        heard.stdout.readline()
        before_seconds = cpu_seconds(who.pid)
        subprocess.run([*paced, "send", broker, who.input, str(pace), str(lasting)], cwd=ROOT, check=True)
        time.sleep(0.5)
        used_seconds = cpu_seconds(who.pid) - before_seconds
        found: list[tuple[float, float]] = json.loads(heard.communicate()[0])
    first_ms = min((stamp for stamp, _ in found), default=0.0) + SETTLE_SECONDS * 1000
    ages_ms = [age for stamp, age in found if stamp >= first_ms]
    p50_ms, p99_ms = np.percentile(ages_ms, (50, 99))
    return Turn(len(ages_ms), float(p50_ms), float(p99_ms), used_seconds / (pace * lasting) * 1e6)


def cpu_seconds(pid: int) -> float:
    """Used by a process so far, all its threads."""
    if not pid:
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def worker(broker: str, registry: Path, delivery: str) -> Iterator[Contender]:
    topics = {"input": f"{delivery}-readings", "output": f"{delivery}-events", "dead": f"{delivery}-dead"}
    asked = {"ZMU_INPUT__START": "latest", "ZMU_OUTPUT__DELIVERY": delivery}
    with Program("worker", "run", **(worker_environment(broker, registry, topics) | asked)) as program:
        program.ready()
        yield Contender(f"worker, {delivery}", topics["input"], topics["output"], program.process.pid)
        assert program.stop() == 0, program.stderr


@contextlib.contextmanager
def plain_loop(broker: str, registry: Path) -> Iterator[Contender]:
    name, without_end = "loop-readings", str(10**12)
    command = [sys.executable, "-m", "tests.benchmarks.plain_loop", broker, str(registry), name, "loop-events", name,
               "0.5", without_end]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        try:
            admin = KafkaAdminClient(bootstrap_servers=broker)
            until(lambda: bool(admin.describe_groups([name])[name]["members"]), START_SECONDS)
            admin.close()
            yield Contender("loop by hand", name, "loop-events", process.pid)
        finally:                                # it would run without end
            process.kill()


def measure(broker: str, registry: Path, pace: int, seconds: float, rounds: int) -> dict[str, list[Turn]]:
    with (
        worker(broker, registry, "at-least-once") as fast,
        worker(broker, registry, "exactly-once") as exact,
        plain_loop(broker, registry) as plain,
    ):
        floor = Contender("floor: the reading itself", "floor", "floor", 0)
        everyone = (fast, exact, plain, floor)
        for who in everyone:
            turn(broker, who, pace, seconds)                    # counts for nothing
        turns: dict[str, list[Turn]] = {who.name: [] for who in everyone}
        for at in range(rounds):
            for who in (*everyone[at % len(everyone):], *everyone[: at % len(everyone)]):
                turns[who.name].append(turn(broker, who, pace, seconds))
    return turns


def table(turns: dict[str, list[Turn]]) -> str:
    rows = ["| who | events | p50 ms | p99 ms | p99 by round | CPU µs |", "|---|---|---|---|---|---|"]
    for name, found in turns.items():
        p50_ms, p99_ms, cpu_us = (statistics.median(each) for each in list(zip(*found, strict=True))[1:])
        spread = ", ".join(f"{one.p99_ms:.1f}" for one in found)
        events = sum(one.events for one in found)
        cpu = f"{cpu_us:.0f}" if cpu_us else ""
        rows.append(f"| {name} | {events} | {p50_ms:.1f} | {p99_ms:.1f} | {spread} | {cpu} |")
    return "\n".join(rows)


def main(args: Sequence[str] | None = None) -> int:
    from deploy.demo.broker import EmbeddedBroker

    parser = figures.parser("latency", __doc__)
    parser.add_argument("--pace", type=int, default=2_000, help="readings a second")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each turn")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args(args)
    where = figures.machine()
    print(where)
    with EmbeddedBroker() as broker, tempfile.TemporaryDirectory() as folder:
        admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
        names = ("at-least-once", "exactly-once", "loop")
        admin.create_topics([NewTopic(f"{name}-readings", PARTITIONS, 1) for name in names])
        admin.create_topics([NewTopic(f"{name}-{what}", 1, 1) for name in names for what in ("events", "dead")])
        admin.create_topics([NewTopic("floor", PARTITIONS, 1)])
        admin.close()
        factory.publish(Path(folder), features=FEATURES, hidden=(64,), latent=10)
        found = measure(broker.bootstrap_servers, Path(folder), asked.pace, asked.seconds, asked.rounds)
    print(table(found))
    figures.keep(asked.json, machine=where, pace=asked.pace, delays=found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
