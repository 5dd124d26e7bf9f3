"""How long from a reading's timestamp to its event at a subscriber, at a steady pace, beside the loop by hand.

    python -m tests.benchmarks.latency [--pace 2000] [--seconds 20]

Timestamps are of whole milliseconds. CPU is of the whole process, a reading.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic

from tests import factory
from tests.benchmarks.readings import ENTITIES, FEATURES, KINDS, PARTITIONS, payloads
from tests.benchmarks.throughput import exposition, machine
from tests.programs import ROOT, Program, worker_environment

SETTLE_SECONDS = 3.0                    # not counted: connections, first batches
WORKER, PLAIN, OUTPUT, DEAD = "latency-worker", "latency-plain", "latency-events", "latency-dead"


def send(broker: str, topic: str, pace: int, seconds: float) -> None:
    """Readings of now, every five milliseconds a handful."""
    producer = KafkaProducer(bootstrap_servers=broker, linger_ms=0)
    tails = [payload.split(b",", 1)[1] for payload in payloads("named")]
    start, sent = time.monotonic(), 0
    while (passed := time.monotonic() - start) < seconds:
        while sent < passed * pace:
            stamp = b'{"timestamp":%d,' % (time.time_ns() // 1_000_000)
            producer.send(topic, value=stamp + tails[sent % KINDS], key=b"pump-%d" % (sent % ENTITIES))
            sent += 1
        time.sleep(0.005)
    producer.flush()
    producer.close()


class Subscriber:
    """Ages of events when they are read, in milliseconds."""

    def __init__(self, broker: str) -> None:
        self._consumer = KafkaConsumer(bootstrap_servers=broker, fetch_max_wait_ms=100)
        self._consumer.assign([TopicPartition(OUTPUT, 0)])
        self._consumer.seek_to_end()
        self._consumer.position(TopicPartition(OUTPUT, 0))
        self.ages_ms: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        while not self._stop.is_set():
            for records in self._consumer.poll(timeout_ms=100).values():
                now_ms = time.time() * 1000
                self.ages_ms += [now_ms - timestamp_ms(json.loads(record.value)["timestamp"]) for record in records]

    def close(self) -> list[float]:
        self._stop.set()
        self._thread.join()
        self._consumer.close()
        return self.ages_ms


def timestamp_ms(said: str | int) -> float:
    return said if isinstance(said, int) else datetime.datetime.fromisoformat(said).timestamp() * 1000


@contextlib.contextmanager
def heard(broker: str, topic: str, pace: int, seconds: float) -> Iterator[list[float]]:
    """Sends at that pace; afterwards the list holds the ages of the events, but for the first seconds' ones."""
    kept: list[float] = []
    send(broker, topic, pace, SETTLE_SECONDS)
    subscriber = Subscriber(broker)
    try:
        send(broker, topic, pace, seconds)
        yield kept
        time.sleep(0.5)
    finally:
        kept += subscriber.close()


def of_worker(broker: str, registry: Path, pace: int, seconds: float) -> tuple[list[float], float]:
    environment = worker_environment(broker, registry, {"input": WORKER, "output": OUTPUT, "dead": DEAD})
    with Program("worker", "run", **(environment | {"ZMU_INPUT__START": "latest"})) as program:
        program.ready()
        before = exposition(program)
        with heard(broker, WORKER, pace, seconds) as ages_ms:
            pass
        samples = exposition(program)
        assert program.stop() == 0, program.stderr
    cpu_seconds = samples["process_cpu_seconds_total"] - before["process_cpu_seconds_total"]
    return ages_ms, cpu_seconds / samples["zmu_records_scored_total"] * 1e6


def of_plain_loop(broker: str, registry: Path, pace: int, seconds: float) -> tuple[list[float], float]:
    readings = round(pace * (seconds + SETTLE_SECONDS) * 0.98)
    command = [sys.executable, "-m", "tests.benchmarks.plain_loop", broker, str(registry), PLAIN, OUTPUT, PLAIN, "0.5",
               str(readings)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        time.sleep(8)                   # imports, and the group's first rebalance
        with heard(broker, PLAIN, pace, seconds) as ages_ms:
            pass
        told, _ = process.communicate(timeout=30)
    return ages_ms, json.loads(told)["cpu_us"]


def main(args: Sequence[str] | None = None) -> int:
    from deploy.demo.broker import EmbeddedBroker

    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.latency", description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--pace", type=int, default=2_000, help="readings a second")
    parser.add_argument("--seconds", type=float, default=20.0)
    asked = parser.parse_args(args)
    print(machine())
    print("| who | events | p50 ms | p99 ms | CPU µs |\n|---|---|---|---|---|")
    with EmbeddedBroker() as broker, tempfile.TemporaryDirectory() as folder:
        admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
        admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in (WORKER, PLAIN)])
        admin.create_topics([NewTopic(name, 1, 1) for name in (OUTPUT, DEAD)])
        admin.close()
        factory.publish(Path(folder), features=FEATURES, hidden=(64,), latent=10)
        for who, run in (("worker, defaults", of_worker), ("loop by hand", of_plain_loop)):
            ages_ms, cpu_us = run(broker.bootstrap_servers, Path(folder), asked.pace, asked.seconds)
            p50_ms, p99_ms = np.percentile(ages_ms, (50, 99))
            print(f"| {who} | {len(ages_ms)} | {p50_ms:.1f} | {p99_ms:.1f} | {cpu_us:.1f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
