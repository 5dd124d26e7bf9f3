"""The demo from its first step to its summary.

Kafka starts; the plant writes normal history into the topic and lives on; zmu-training makes a model from the topic;
zmu-worker, a process of its own, takes it and scores; we break pumps and watch. Ctrl-C ends it all, in order.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from deploy.demo.feed import Feed
from deploy.demo.interrupt import ENDED_EARLY, Interrupt
from deploy.demo.kafka import DemoKafka, running
from deploy.demo.live import LivePlant
from deploy.demo.plant import write_until
from deploy.demo.ports import bind, free_port
from deploy.demo.programs import Training, Worker
from deploy.demo.pumps import Pumps
from deploy.demo.scenario import LIVE_SECONDS, PUMPS
from deploy.demo.steps import Steps
from deploy.demo.summary import print_summary
from deploy.demo.view import View
from deploy.demo.watch import watch
from worker.errors import UserError

PROGRAM = "python -m deploy.demo"
_INTERVAL_SECONDS = 0.2
_METRICS_PORT = 9108
# Pumps whose sensors follow one another closely, and faults of half a second: each reading is judged by itself.
# Fewer and larger steps than by default: seconds count here more than the last bit of loss.
_TRAINING = {
    "ZMU_TRAINING__PROFILE": "pointwise",
    "ZMU_TRAINING__BATCH_SIZE": "128",
    "ZMU_TRAINING__LEARNING_RATE": "0.003",
    "ZMU_TRAINING__EPOCHS": "5",
    "ZMU_TRAINING__MIN_STEPS": "500",
    "ZMU_TRAINING__TARGET_RATE": "0.0001",
}


def main(argv: Sequence[str] | None, interrupt: Interrupt) -> int:
    args = _parser().parse_args(argv)
    console = Console(highlight=False)
    try:
        with contextlib.ExitStack() as leaving:
            try:
                interrupt.raising()
                view = run(args, console, interrupt, leaving)
            finally:
                interrupt.remembering()                 # impatience must leave no process behind
            print_summary(console, view)
    except KeyboardInterrupt:
        console.show_cursor()
        console.print("ended before it was ready")
        return ENDED_EARLY
    except UserError as error:
        console.print(f"{PROGRAM}: {error}", style="red", markup=False, soft_wrap=True)
        return error.exit_code
    return 0


def run(args: argparse.Namespace, console: Console, interrupt: Interrupt, leaving: contextlib.ExitStack) -> View:
    begin = time.monotonic()
    step = Steps(console, interrupt)
    folder = Path(tempfile.mkdtemp(prefix="zmu-demo-"))
    port = _metrics_port()
    worker, training = Worker(port, folder / "worker.log"), Training(folder / "training.log")
    for program in worker, training:
        leaving.callback(program.stop)
    with step("Kafka: starting (the first time it is fetched: 44 MB)") as shown:
        kafka = leaving.enter_context(running())
        shown.done(kafka.what)
    for program in worker, training:
        leaving.callback(program.stop)      # before Kafka: the worker drains

    settings = _settings(kafka, folder)
    # Before there is a model or a reading: it waits for the first one that is published.
    with interrupt.held():
        worker.start({**settings, "ZMU_MODEL__WAIT_SECONDS": "600"})
    with step(f"plant: writing {args.history_seconds:.0f} s of normal history") as shown:
        history_ms = round(args.history_seconds * 1000)
        pumps = Pumps(PUMPS, args.seed, round(time.time() * 1000) - history_ms, _INTERVAL_SECONDS)
        feed = leaving.enter_context(contextlib.closing(Feed(kafka.settings, kafka.input)))
        write_until(pumps, feed, round(time.time() * 1000))
        shown.done(f"{feed.sent:,} normal readings of {PUMPS} pumps in topic {kafka.input}")
    live = LivePlant(pumps, feed).start()
    leaving.callback(live.close)

    with step("training: reading the topic") as shown:
        with interrupt.held():
            training.start(settings | _TRAINING)
        worker.wait_ready(training, lambda line: shown.progress(f"training: {line}"))
        shown.done(f"model trained and published, zmu-worker scores with it; metrics: {worker.metrics_url}")

    interrupt.remembering()
    ready_seconds = time.monotonic() - begin
    console.print(f"ready after {ready_seconds:.0f} s; the model, its report and the logs: {folder}", soft_wrap=True)
    seconds = None if args.forever else args.seconds
    return watch(console, kafka, pumps, live, worker, args.seed, seconds, interrupt)


def _settings(kafka: DemoKafka, folder: Path) -> dict[str, str]:
    """Of both programs, as an operator would set them."""
    return {
        **kafka.environment(),
        "ZMU_INPUT__GROUP_ID": f"{kafka.input}-demo",
        "ZMU_MODEL__REGISTRY": str(folder / "models"),
        "ZMU_MODEL__NAME": "pumps",
        "ZMU_DEVICE": "cpu",            # small enough; a GPU's start would take longer than the training
        "ZMU_LOG__FORMAT": "console",
    }


def _metrics_port() -> int:
    """The one that the operator names; else the usual one where it is free."""
    if (named := os.environ.get("ZMU_HTTP__PORT", "0")) not in ("", "0"):
        return int(named)
    try:
        bind("0.0.0.0", _METRICS_PORT)
    except OSError:
        return free_port("0.0.0.0")
    return _METRICS_PORT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="A real Kafka, simulated pumps, a training and a worker; then pumps break and zmu finds it. With "
        "ZMU_KAFKA__BOOTSTRAP_SERVERS set it uses that Kafka, in topics of its own that go at the end.",
    )
    parser.add_argument("--forever", action="store_true", help="run on, with random faults, until Ctrl-C")
    parser.add_argument("--seconds", type=float, default=LIVE_SECONDS, help="of watching (%(default).0f)")
    parser.add_argument(
        "--history-seconds", type=float, default=600.0, help="normal history to train on (%(default).0f)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the plant (%(default)s)")
    return parser
