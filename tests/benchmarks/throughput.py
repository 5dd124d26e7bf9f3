"""How fast the worker drains a topic by each of its ways, beside a loop written by hand and a consumer that only polls.

    python -m tests.benchmarks [--readings 600000] [--runs 3] [--only NAME …] [--json FILE]

Each runs by itself as a process on the same topic, one after the other, `runs` times over: a slow minute hits all.
The ratio to the loop written by hand is what counts; of the ratios of the runs, the median and the spread are shown.
CPU a reading tells more than the rate where the machine has other things to do.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.admin import NewTopic

from tests import factory
from tests.benchmarks import figures
from tests.benchmarks.readings import FEATURES, FORMS, PARTITIONS, fill
from tests.programs import ROOT, Program, worker_environment
from worker import compiled

OUTPUTS = ("bench-events", "bench-dead", "bench-plain")
PLAIN, POLL = "loop by hand", "poll only"
PYTHON, COMPILED = {"ZMU_CORE": "python"}, {"ZMU_CORE": "compiled"}
RECORDS = {"ZMU_CORE": "python", "ZMU_INPUT__FETCH": "records"}
# Name, model, settings. A model with memory has windows of ten readings, a control chart and a following threshold.
WAYS = (
    ("worker, records", "pointwise", RECORDS),
    ("worker, Python", "pointwise", PYTHON),
    ("worker, compiled", "pointwise", COMPILED),
    ("worker with memory, Python", "memory", PYTHON),
    ("worker with memory, compiled", "memory", COMPILED),
    ("same, one thread", "memory", COMPILED | {"ZMU_THREADS": "1"}),
    ("same, exactly once", "memory", COMPILED | {"ZMU_OUTPUT__DELIVERY": "exactly-once"}),
)


class Speed(NamedTuple):
    per_second: float
    cpu_us: float                       # a reading, of all threads of the process
    resident_mb: float = 0.0            # at the end


class Bench(NamedTuple):
    """Where everything is: made once, used by every run."""

    broker: str
    folder: Path
    readings: int

    def registry(self, model: str) -> Path:
        return self.folder / model

    def plain(self, form: str, group: str) -> Speed:
        command = [sys.executable, "-m", "tests.benchmarks.plain_loop", self.broker, str(self.registry("pointwise")),
                   f"bench-{form}", "bench-plain", group, "0.5", str(self.readings)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return Speed(**json.loads(done.stdout))

    def poll_only(self, form: str) -> Speed:
        """A stock consumer that does nothing with the records."""
        consumer = KafkaConsumer(bootstrap_servers=self.broker, enable_auto_commit=False, fetch_max_wait_ms=100)
        partitions = [TopicPartition(f"bench-{form}", p) for p in range(PARTITIONS)]
        consumer.assign(partitions)
        consumer.seek_to_beginning()
        seen, start, start_cpu = 0, time.perf_counter(), time.process_time()
        while seen < self.readings:
            seen += sum(len(records) for records in consumer.poll(timeout_ms=500, max_records=2048).values())
        taken, taken_cpu = time.perf_counter() - start, time.process_time() - start_cpu
        consumer.close()
        return Speed(seen / taken, taken_cpu / seen * 1e6)

    def worker(self, form: str, model: str, group: str, settings: dict[str, str]) -> Speed:
        """From the first batch to the last commit."""
        topics = {"input": f"bench-{form}", "output": "bench-events", "dead": "bench-dead"}
        environment = worker_environment(self.broker, self.registry(model), topics) | settings
        with Program("worker", "run", **(environment | {"ZMU_INPUT__GROUP_ID": group})) as program:
            program.ready()
            samples = exposition(program)
            while not samples.get("zmu_records_scored_total"):
                samples = exposition(program)
            start, before = time.time(), samples
            while samples["zmu_records_scored_total"] < self.readings:
                time.sleep(0.5)             # a scrape costs the worker CPU too
                samples = exposition(program)
            assert program.stop() == 0, program.stderr
        done = max(self.readings - before["zmu_records_scored_total"], 1.0)
        cpu = samples["process_cpu_seconds_total"] - before["process_cpu_seconds_total"]
        taken = samples["zmu_last_record_processed_timestamp_seconds"] - start
        return Speed(done / taken, cpu / done * 1e6, samples["process_resident_memory_bytes"] / 1e6)


def exposition(program: Program) -> dict[str, float]:
    """Sums of the series by name."""
    sums: dict[str, float] = {}
    for line in program.get("/metrics")[1].splitlines():
        if not line.startswith("#"):
            name = line.split("{")[0].split(" ")[0]
            sums[name] = sums.get(name, 0.0) + float(line.rsplit(" ", 1)[1])
    return sums


def measure(broker: str, readings: int, runs: int, only: Sequence[str] = ()) -> dict[str, dict[str, list[Speed]]]:
    """Speeds by form of the readings and by who. only: these beside the loop by hand, where any are named."""
    admin = KafkaAdminClient(bootstrap_servers=broker)
    admin.create_topics([NewTopic(f"bench-{form}", PARTITIONS, 1) for form in FORMS])
    admin.create_topics([NewTopic(name, 1, 1) for name in OUTPUTS])
    admin.close()
    found: dict[str, dict[str, list[Speed]]] = {form: {} for form in FORMS}
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(broker, Path(folder), readings)
        made = {"features": FEATURES, "hidden": (64,), "latent": 10}
        factory.publish(bench.registry("pointwise"), **made)  # type: ignore[arg-type]
        memory = factory.remembering(len(FEATURES)) | {"window": 10}
        factory.publish(bench.registry("memory"), **made, **memory)  # type: ignore[arg-type]
        for form in FORMS:
            fill(broker, f"bench-{form}", form, readings)
            for run in range(runs):
                for name, speed in contenders(bench, form, run, only):
                    found[form].setdefault(name, []).append(speed())
                    print(f"{form:8} {name:30} {found[form][name][-1].per_second:10,.0f} a second", file=sys.stderr)
    return found


def contenders(
    bench: Bench, form: str, run: int, only: Sequence[str]
) -> list[tuple[str, Callable[[], Speed]]]:
    group = f"bench-{form}-{run}-{os.getpid()}"
    ways = [way for way in WAYS if way[2]["ZMU_CORE"] == "python" or compiled.built()]
    all_of_them = [
        (PLAIN, lambda: bench.plain(form, f"{group}-plain")),
        (POLL, lambda: bench.poll_only(form)),
        *(
            (name, partial(bench.worker, form, model, f"{group}-{number}", how))
            for number, (name, model, how) in enumerate(ways)
        ),
    ]
    return [one for one in all_of_them if not only or one[0] in (PLAIN, *only)]


def table(found: dict[str, dict[str, list[Speed]]]) -> str:
    """Markdown: medians, and the ratio to the loop by hand with its spread."""
    lines = ["| readings | who | a second | ratio | spread | CPU µs | ratio by CPU |", "|---|---|---|---|---|---|---|"]
    for form, by_name in found.items():
        plain = by_name[PLAIN]
        for name, speeds in by_name.items():
            ratios = [speed.per_second / base.per_second for speed, base in zip(speeds, plain, strict=True)]
            by_cpu = [base.cpu_us / speed.cpu_us for speed, base in zip(speeds, plain, strict=True)]
            per_second, cpu_us = (statistics.median(column) for column in list(zip(*speeds, strict=True))[:2])
            ratio, spread = statistics.median(ratios), f"{min(ratios):.2f}–{max(ratios):.2f}"
            row = (f"{ratio:.2f}", spread, f"{cpu_us:.2f}", f"{statistics.median(by_cpu):.2f}")
            lines.append(f"| {' | '.join((form, name, f'{per_second:,.0f}', *row))} |")
    return "\n".join(lines)


def main(args: Sequence[str] | None = None) -> int:
    from deploy.demo.broker import EmbeddedBroker

    parser = figures.parser("", __doc__)
    parser.add_argument("--readings", type=int, default=600_000)
    parser.add_argument("--runs", type=int, default=3)
    names = (POLL, *(way[0] for way in WAYS))
    shown = ", ".join(map(repr, names))
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=f"beside the loop by hand: {shown}")
    asked = parser.parse_args(args)
    where = figures.machine()
    print(where)
    with EmbeddedBroker() as broker:
        found = measure(broker.bootstrap_servers, asked.readings, asked.runs, asked.only or ())
    print(table(found))
    figures.keep(asked.json, machine=where, readings=asked.readings, speeds=found)
    return 0
