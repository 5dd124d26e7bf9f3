"""Topics of one test, filled and read with a stock client."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord

from tests import factory
from tests.programs import worker_environment


class Plant:
    """The three topics of a worker, and its registry with a champion."""

    def __init__(self, broker: str, topics: dict[str, str], registry: Path) -> None:
        self.broker, self.topics, self.registry = broker, topics, registry
        self.environment = worker_environment(broker, registry, topics)
        self._producer = KafkaProducer(bootstrap_servers=broker, acks="all")

    def send(self, values: Sequence[bytes | None], entities: int = 10) -> None:
        """One entity after the other, so that every partition gets its share."""
        receipts = [
            self._producer.send(self.topics["input"], key=f"pump-{i % entities}".encode(), value=value)
            for i, value in enumerate(values)
        ]
        self._producer.flush(timeout=30)
        assert all(receipt.succeeded() for receipt in receipts)

    def read(self, which: str, isolation_level: str = "read_committed") -> list[ConsumerRecord]:
        """Everything that is on a topic now."""
        consumer = KafkaConsumer(
            bootstrap_servers=self.broker, enable_auto_commit=False, isolation_level=isolation_level
        )
        topic = self.topics[which]
        partitions = [TopicPartition(topic, p) for p in consumer.partitions_for_topic(topic)]
        ends = consumer.end_offsets(partitions)
        consumer.assign(partitions)
        consumer.seek_to_beginning()
        found: list[ConsumerRecord] = []
        while any(consumer.position(tp) < ends[tp] for tp in partitions):
            for records in consumer.poll(timeout_ms=200).values():
                found += records
        consumer.close()
        return found

    def committed(self) -> dict[int, int]:
        consumer = KafkaConsumer(
            bootstrap_servers=self.broker,
            enable_auto_commit=False,
            group_id=self.environment["ZMU_INPUT__GROUP_ID"],
        )
        topic = self.topics["input"]
        found = {
            p: consumer.committed(TopicPartition(topic, p)) or 0 for p in consumer.partitions_for_topic(topic)
        }
        consumer.close()
        return found

    def close(self) -> None:
        self._producer.close()


@pytest.fixture
def plant(broker: str, topic: Callable[..., str], tmp_path: Path) -> Iterator[Plant]:
    topics = {"input": topic(4, name="readings"), "output": topic(1, name="events"), "dead": topic(1, name="dead")}
    factory.publish(tmp_path)
    made = Plant(broker, topics, tmp_path)
    yield made
    made.close()


def much_junk(plant: Plant, topic: Callable[..., str]) -> list[bytes]:
    """Sent: together far too large for a record batch of the dead-letter topic, which takes each of them."""
    plant.topics["dead"] = topic(1, name="small", max_message_bytes=6000)
    junk = [b"%d " % number + random.Random(number).randbytes(600) for number in range(1000)]
    plant.send(junk)
    return junk
