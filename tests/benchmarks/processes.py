"""One worker, two and three in a group that share twelve partitions: readings a second by all of them together.

    python -m tests.benchmarks processes [--readings 300000] [--processes 1 2 3] [--runs 3]

The broker is on the same machine, and takes its own share of the cores.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from kafka import KafkaAdminClient
from kafka.admin import NewTopic

from deploy.demo.broker import EmbeddedBroker
from tests import factory
from tests.benchmarks.readings import FEATURES, fill
from tests.benchmarks.throughput import exposition, machine
from tests.programs import Program, until, worker_environment

TOPICS = {"input": "bench-12", "output": "bench-events", "dead": "bench-dead"}
PARTITIONS, WARM_UP = 12, 2_400         # readings that each has had a share of before the clock runs


def per_second(broker: str, registry: Path, group: str, processes: int, readings: int) -> float:
    """They are held while the topic is filled, within their session, and let go together."""
    environment = worker_environment(broker, registry, TOPICS) | {
        "ZMU_INPUT__GROUP_ID": group, "ZMU_INPUT__START": "latest",
    }
    share = PARTITIONS // processes
    with contextlib.ExitStack() as leaving:
        programs = [leaving.enter_context(Program("worker", "run", **environment)) for _ in range(processes)]

        def scored() -> float:
            return sum(exposition(program).get("zmu_records_scored_total", 0.0) for program in programs)

        for program in programs:
            program.ready(120)
        until(lambda: all(exposition(p)["zmu_assigned_partitions"] == share for p in programs), 120)
        fill(broker, TOPICS["input"], "values", WARM_UP)
        until(lambda: scored() >= WARM_UP, 60)
        for program in programs:
            program.process.send_signal(signal.SIGSTOP)
        fill(broker, TOPICS["input"], "values", readings)
        begin = time.monotonic()
        for program in programs:
            program.process.send_signal(signal.SIGCONT)
        until(lambda: scored() >= WARM_UP + readings, 600)
        seconds = time.monotonic() - begin
        for program in programs:
            assert program.stop() == 0, program.stderr
    return readings / seconds


def main(args: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks processes", description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--readings", type=int, default=300_000, help="%(default)s; filled within a session's 45 s")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--runs", type=int, default=3)
    asked = parser.parse_args(args)
    print(machine())
    found: dict[int, list[float]] = {number: [] for number in asked.processes}
    with EmbeddedBroker() as broker, tempfile.TemporaryDirectory() as folder:
        servers = broker.bootstrap_servers
        admin = KafkaAdminClient(bootstrap_servers=servers)
        admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in TOPICS.values()])
        admin.close()
        registry = Path(folder)
        memory = factory.remembering(len(FEATURES)) | {"window": 10}
        factory.publish(registry, features=FEATURES, hidden=(64,), latent=10, **memory)  # type: ignore[arg-type]
        for run in range(asked.runs):
            for number in asked.processes:
                found[number].append(per_second(servers, registry, f"bench-{run}-{number}", number, asked.readings))
    print("| workers | readings a second | of one | spread |\n|---|---|---|---|")
    for number, speeds in found.items():
        ratios = [speed / one for speed, one in zip(speeds, found[asked.processes[0]], strict=True)]
        print(f"| {number} | {statistics.median(speeds):,.0f} | {statistics.median(ratios):.2f} | "
              f"{min(ratios):.2f}–{max(ratios):.2f} |")
    return 0
