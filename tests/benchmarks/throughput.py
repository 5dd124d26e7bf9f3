"""How fast the worker drains a topic, beside kafka-python that only polls, in the same run; and its memory.

    python -m tests.benchmarks [--readings 1000000] [--runs 3]

Readings have 20 named features, about 440 bytes of JSON; 1 % are anomalous; 4 partitions; one worker process.
The ratio is what counts: the machine's speed is in both.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic

from tests import factory
from tests.programs import ROOT, Program, worker_environment

FEATURES = tuple(f"sensor_{i:02d}" for i in range(20))
PARTITIONS = 4
TOPICS = {"input": "bench-readings", "output": "bench-events", "dead": "bench-dead"}


def fill(broker: str, readings: int) -> int:
    """Writes the readings; returns the size of one in bytes."""
    rng = np.random.default_rng(0)
    producer = KafkaProducer(bootstrap_servers=broker, compression_type="lz4", linger_ms=20, batch_size=262_144)
    kinds: list[bytes] = []
    for i in range(10_000):
        values = rng.normal(0, 0.3, len(FEATURES)) + (8 if i % 100 == 99 else 0)
        row = {"timestamp": 1_764_000_000_000 + i, **dict(zip(FEATURES, values.round(6).tolist(), strict=True))}
        kinds.append(json.dumps(row, separators=(",", ":")).encode())
    for i in range(readings):
        producer.send(TOPICS["input"], value=kinds[i % len(kinds)], key=b"pump-%d" % (i % 50))
    producer.flush()
    producer.close()
    return len(kinds[0])


def poll_only(broker: str) -> float:
    """Readings a second of a stock consumer that does nothing with them: the floor's other side."""
    consumer = KafkaConsumer(bootstrap_servers=broker, enable_auto_commit=False, fetch_max_wait_ms=100)
    partitions = [TopicPartition(TOPICS["input"], p) for p in range(PARTITIONS)]
    consumer.assign(partitions)
    consumer.seek_to_beginning()
    ends = consumer.end_offsets(partitions)
    total, seen = sum(ends.values()), 0
    start = time.perf_counter()
    while seen < total:
        seen += sum(len(records) for records in consumer.poll(timeout_ms=500, max_records=2048).values())
    taken = time.perf_counter() - start
    consumer.close()
    return total / taken


def worker(broker: str, registry: Path, group: str, readings: int) -> tuple[float, list[float]]:
    """Readings a second from the first batch to the last commit, and resident megabytes over the run."""
    environment = worker_environment(broker, registry, TOPICS) | {"ZMU_INPUT__GROUP_ID": group}
    memory_mb: list[float] = []
    with Program("worker", "run", **environment) as program:
        program.ready()
        start = first = scored = 0.0
        while scored < readings:
            samples = exposition(program)
            scored = samples.get("zmu_records_scored_total", 0.0)
            if scored and not start:
                start, first = time.perf_counter(), scored
            memory_mb.append(samples["process_resident_memory_bytes"] / 1e6)
            time.sleep(0.02 if scored > 0.98 * readings else 0.2)
        rate = (scored - first) / (time.perf_counter() - start)
        assert program.stop() == 0, program.stderr
    return rate, memory_mb


def exposition(program: Program) -> dict[str, float]:
    """Sums of the series by name."""
    sums: dict[str, float] = {}
    for line in program.get("/metrics")[1].splitlines():
        if not line.startswith("#"):
            name = line.split("{")[0].split(" ")[0]
            sums[name] = sums.get(name, 0.0) + float(line.rsplit(" ", 1)[1])
    return sums


def measure(broker: str, readings: int, runs: int) -> dict[str, object]:
    admin = KafkaAdminClient(bootstrap_servers=broker)
    admin.create_topics([NewTopic(name, PARTITIONS if name == TOPICS["input"] else 1, 1) for name in TOPICS.values()])
    size = fill(broker, readings)
    polls, works, memory = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        factory.publish(Path(folder), features=FEATURES)
        for run in range(runs):                         # interleaved: a slow minute hits both
            polls.append(poll_only(broker))
            rate, memory_mb = worker(broker, Path(folder), f"bench-{run}-{os.getpid()}", readings)
            works.append(rate)
            memory.append(memory_mb)
    ratios = [work / poll for work, poll in zip(works, polls, strict=True)]
    middle = len(memory[-1]) // 2
    return {
        "readings": readings,
        "bytes_each": size,
        "poll_only_per_second": round(statistics.median(polls)),
        "worker_per_second": round(statistics.median(works)),
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "resident_mb_half_way": round(memory[-1][middle], 1),
        "resident_mb_at_the_end": round(memory[-1][-1], 1),
    }


def show(result: dict[str, object]) -> None:
    for name, value in result.items():
        print(f"{name.replace('_', ' '):24} {value}")


def machine() -> str:
    model = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), "unknown")
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout
    return f"{os.cpu_count()} cores, {model}, Python {sys.version.split()[0]}, commit {commit.strip()}"


def main(args: Sequence[str] | None = None) -> int:
    import argparse

    from deploy.demo.broker import EmbeddedBroker

    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--readings", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", type=Path, help="where to keep the figures")
    asked = parser.parse_args(args)
    print(machine())
    with EmbeddedBroker() as broker:
        result = measure(broker.bootstrap_servers, asked.readings, asked.runs)
    show(result)
    if asked.json:
        asked.json.write_text(json.dumps({"machine": machine(), **result}, indent=1) + "\n")
    return 0
