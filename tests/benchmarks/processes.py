"""One worker, two and three in a group that share twelve partitions: readings a second by all of them together.

    python -m tests.benchmarks processes [--readings 300000] [--processes 1 2 3] [--runs 3]

The readings are written in one transaction, which is committed once every worker has its share of the partitions: it is
what they all wait for, and then see at once. Clocks run from there to the last commit. The broker is on the same
machine, and takes its own share of the cores. A run of one number of workers takes half a minute.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import NewTopic

from deploy.demo.broker import EmbeddedBroker
from tests import factory
from tests.benchmarks import figures
from tests.benchmarks.readings import FEATURES, KINDS, payloads
from tests.benchmarks.throughput import exposition
from tests.programs import Program, until, worker_environment

TOPICS = {"input": "bench-12", "output": "bench-events", "dead": "bench-dead"}
PARTITIONS, ENTITIES = 12, 60           # five of them on each partition: every worker gets the same to do
STARTED_SECONDS = 120.0
OPEN_MS = 600_000                       # a transaction, at most; the broker's own limit is 15 minutes


class Speed(NamedTuple):
    per_second: float
    cpu_us: float                       # a reading, of all threads of all workers


@contextlib.contextmanager
def written(broker: str, readings: int) -> Iterator[KafkaProducer]:
    """A producer with that many readings in its transaction: nobody sees them before it is committed."""
    producer = KafkaProducer(
        bootstrap_servers=broker, transactional_id="bench", transaction_timeout_ms=OPEN_MS,
        compression_type="lz4", linger_ms=20, batch_size=262_144,
    )
    kinds = payloads("values")
    producer.init_transactions()
    producer.begin_transaction()
    for i in range(readings):
        entity = i % ENTITIES
        producer.send(TOPICS["input"], kinds[i % KINDS], b"pump-%d" % entity, partition=entity % PARTITIONS)
    producer.flush()
    try:
        yield producer
    finally:
        producer.close()


def speed(broker: str, registry: Path, group: str, processes: int, readings: int) -> Speed:
    environment = worker_environment(broker, registry, TOPICS) | {
        "ZMU_INPUT__GROUP_ID": group, "ZMU_INPUT__START": "latest", "ZMU_INPUT__ISOLATION_LEVEL": "read_committed",
        "ZMU_KAFKA__SESSION_TIMEOUT_MS": "6000",        # they hear of each other within 2 s
    }  # fmt: skip
    with contextlib.ExitStack() as leaving:
        producer = leaving.enter_context(written(broker, readings))
        programs = [leaving.enter_context(Program("worker", "run", **environment)) for _ in range(processes)]

        def told(series: str) -> list[float]:
            return [exposition(program).get(f"zmu_{series}", 0.0) for program in programs]

        def cpu() -> float:
            return sum(exposition(program)["process_cpu_seconds_total"] for program in programs)

        share = PARTITIONS // processes
        for program in programs:
            program.ready(STARTED_SECONDS)
        until(lambda: told("assigned_partitions") == [share] * processes, STARTED_SECONDS,
              lambda: str(told("assigned_partitions")))
        before, begin = cpu(), time.time()
        producer.commit_transaction()
        while sum(told("records_scored_total")) < readings:
            time.sleep(0.5)                             # a scrape costs the workers CPU too
        seconds = max(told("last_record_processed_timestamp_seconds")) - begin
        used = cpu() - before
        for program in programs:
            assert program.stop() == 0, program.stderr
    return Speed(readings / seconds, used / readings * 1e6)


def main(args: Sequence[str] | None = None) -> int:
    parser = figures.parser("processes", __doc__)
    parser.add_argument("--readings", type=int, default=300_000)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 3], help="numbers that divide twelve")
    parser.add_argument("--runs", type=int, default=3)
    asked = parser.parse_args(args)
    where = figures.machine()
    print(where)
    found: dict[int, list[Speed]] = {number: [] for number in asked.processes}
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
                found[number].append(speed(servers, registry, f"bench-{run}-{number}", number, asked.readings))
                print(f"{number} workers {found[number][-1].per_second:10,.0f} a second", file=sys.stderr)
    print(table(found))
    figures.keep(asked.json, machine=where, readings=asked.readings, speeds=found)
    return 0


def table(found: dict[int, list[Speed]]) -> str:
    """Markdown: medians, and the ratio to the first number of workers with its spread."""
    lines = ["| workers | readings a second | ratio | spread | CPU µs a reading |", "|---|---|---|---|---|"]
    first = next(iter(found.values()))
    for number, speeds in found.items():
        ratios = [speed.per_second / one.per_second for speed, one in zip(speeds, first, strict=True)]
        per_second, cpu_us = (statistics.median(column) for column in zip(*speeds, strict=True))
        lines.append(f"| {number} | {per_second:,.0f} | {statistics.median(ratios):.2f} | "
                     f"{min(ratios):.2f}–{max(ratios):.2f} | {cpu_us:.2f} |")
    return "\n".join(lines)
