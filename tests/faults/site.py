"""One case's topics, readings and workers on a broker; and the oracle, which knows every record's id."""

from __future__ import annotations

import random
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Self

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic
from kafka.consumer.fetcher import ConsumerRecord

from deploy.demo.broker import EmbeddedBroker
from tests import factory
from tests.faults.cluster import Cluster
from tests.faults.hooks import Hook
from tests.faults.oracle import Expected, Verdict, judge
from tests.faults.workers import Worker
from tests.programs import until, worker_environment

PARTITIONS = 3
# A broker that soon gives up a dead member, and a dead transaction: what production waits for takes minutes.
QUICK = {
    "group.min.session.timeout.ms": "500",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "200",
}
QUICK_WORKER = {
    "ZMU_KAFKA__SESSION_TIMEOUT_MS": "2000",
    "ZMU_KAFKA__REQUEST_TIMEOUT_MS": "5000",
    "ZMU_OUTPUT__TRANSACTION_TIMEOUT_MS": "3000",
    "ZMU_STATE__SNAPSHOT_SECONDS": "0.3",
    "ZMU_BATCH__MAX_RECORDS": "20",
}
POISON = (
    b"", None, b"junk", b'{"pressure": NaN}', b'{"pressure": "high"}', b'{"pressure": 1e300}', b"[" * 20_000,
    b'{"values": [1]}', b"\xff\xfe", b'{"pressure": {"a": 1}}',
)


class Site:
    """A context manager: the topics go with it."""

    def __init__(
        self, broker: EmbeddedBroker | Cluster, delivery: str, partitions: int = PARTITIONS, **output: object
    ) -> None:
        """output: configuration of the output topic."""
        self.broker, self.delivery, self.partitions = broker, delivery, partitions
        self._chance = random.Random(5)
        unique = uuid.uuid4().hex[:8]
        self.topics = {name: f"{name}-{unique}" for name in ("input", "output", "dead", "incidents")}
        self._folder = tempfile.TemporaryDirectory()
        self.registry = Path(self._folder.name)
        factory.publish(self.registry, **factory.remembering())     # type: ignore[arg-type]
        with self.admin() as admin:
            replicas = broker.replicas if isinstance(broker, Cluster) else 1
            configs = {"output": output, "incidents": {"cleanup.policy": "compact"}}
            admin.create_topics([
                NewTopic(topic, partitions if name == "input" else 1, replicas, topic_configs=configs.get(name, {}))
                for name, topic in self.topics.items()
            ])
            admin.wait_for_topics(list(self.topics.values()))
        self.environment = {
            **worker_environment(broker.bootstrap_servers, self.registry, self.topics),
            **QUICK_WORKER,
            "ZMU_OUTPUT__DELIVERY": delivery,
            "ZMU_INCIDENTS__TOPIC": self.topics["incidents"],
        }
        self.sent = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self.admin() as admin:
            admin.delete_topics([*self.topics.values()])
        self._folder.cleanup()

    def admin(self) -> KafkaAdminClient:
        return _Closing(bootstrap_servers=self.broker.bootstrap_servers)

    def send(self, number: int, poison: bool = True, off_ms: int = 0, compression: str | None = None) -> None:
        """Readings of six machines, with shifts that come and go; among them, records that are none.

        off_ms: what is added to the timestamps.
        """
        producer = KafkaProducer(
            bootstrap_servers=self.broker.bootstrap_servers, acks="all", batch_size=2_000, compression_type=compression
        )
        receipts = []
        for i in range(self.sent, self.sent + number):
            key = f"pump-{i % 6}".encode()
            value: bytes | None
            if poison and i % 37 == 36:
                value = POISON[i // 37 % len(POISON)]
            else:
                shift = 6.0 if (i // 120 + i) % 5 == 0 else 0.0
                readings: dict[str, float | None] = {
                    name: round(normal + self._chance.gauss(0, 1) + shift, 4)
                    for name, normal in factory.NORMAL.items()
                }
                value = factory.reading(readings, 1_764_000_000_000 + 1000 * i + off_ms)
            receipts.append(producer.send(self.topics["input"], key=key, value=value, partition=i % self.partitions))
        for receipt in receipts:
            receipt.get(timeout=30)
        producer.close(timeout=10)
        self.sent += number

    def worker(self, hook: Hook | None = None, until_drained: bool = False, **environment: str) -> Worker:
        return Worker({**self.environment, **environment}, hook, until_drained)

    def drain(self, hook: Callable[[], Hook] | None = None, most: int = 1_000) -> Drained:
        """Workers, one after the other, until all is done. hook: what befalls the first ones, `most` at most."""
        died = 0
        while True:
            began = time.monotonic()
            with self.worker(hook() if hook and died < most else None, until_drained=True) as worker:
                code = worker.wait()
                assert code in (0, -9), worker.log
                if code == 0:
                    return Drained(died, time.monotonic() - began)
                died += 1

    def done(self, timeout: float = 90, otherwise: Callable[[], str] = lambda: "") -> float:
        """Waits until the group has done all readings; returns the seconds that it took."""
        began = time.monotonic()
        until(lambda: self.committed() >= self.sent, timeout, otherwise)
        return time.monotonic() - began

    def committed(self) -> int:
        """Readings that the group has done."""
        consumer = KafkaConsumer(
            bootstrap_servers=self.broker.bootstrap_servers, group_id=self.environment["ZMU_INPUT__GROUP_ID"],
            enable_auto_commit=False,
        )
        try:
            return sum(consumer.committed(TopicPartition(self.topics["input"], p)) or 0 for p in range(self.partitions))
        finally:
            consumer.close()

    def grown(self) -> bool:
        """Whether the input has all its partitions."""
        with self.admin() as admin:
            return len(admin.describe_topics([self.topics["input"]])[0]["partitions"]) == self.partitions

    def read(self, which: str) -> list[ConsumerRecord]:
        """Everything that a reader of committed records sees, once no transaction is open any more."""
        tps = [TopicPartition(self.topics[which], p) for p in range(self.partitions if which == "input" else 1)]
        consumer = KafkaConsumer(
            bootstrap_servers=self.broker.bootstrap_servers, enable_auto_commit=False,
            isolation_level="read_committed", auto_offset_reset="earliest",
        )
        latest = KafkaConsumer(bootstrap_servers=self.broker.bootstrap_servers, enable_auto_commit=False)
        try:
            ends = latest.end_offsets(tps)
            consumer.assign(tps)
            found: list[ConsumerRecord] = []
            deadline = time.monotonic() + 60
            while any(consumer.position(tp) < ends[tp] for tp in tps):
                assert time.monotonic() < deadline, f"a transaction stays open on {which}"
                for records in consumer.poll(timeout_ms=200).values():
                    found += records
            return found
        finally:
            consumer.close()
            latest.close()

    def verdict(self) -> Verdict:
        """Of all that is on the topics, beside what an undisturbed worker makes of the same readings."""
        expected = Expected.of(self.registry, sorted(self.read("input"), key=lambda r: (r.partition, r.offset)))
        return judge(expected, self.read("output"), self.read("dead"), self.read("incidents"))


class Drained(NamedTuple):
    died: int
    seconds: float              # of the last worker, from its start to its end


class _Closing(KafkaAdminClient):   # type: ignore[misc]
    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
