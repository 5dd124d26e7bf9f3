"""A transaction that the broker forgot to end in a partition: KAFKA-20734 and its like, made by hand."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka.structs import ConsumerGroupMetadata

from deploy.demo.broker import EmbeddedBroker
from tests.programs import until
from worker.errors import BrokerError
from worker.kafka.sink import Message
from worker.kafka.transactions import KafkaTransactions
from worker.settings import KafkaSettings, OutputSettings
from worker.source import Pledge

# A broker that looks whether its coordinator knows a transaction takes none that hangs from the start.
CARELESS = {"transaction.partition.verification.enable": "false"}


@pytest.fixture(scope="module")
def careless() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker(properties=CARELESS) as broker:
        yield broker


@pytest.fixture
def topic(careless: EmbeddedBroker) -> str:
    name = f"output-{uuid.uuid4().hex[:8]}"
    admin = KafkaAdminClient(bootstrap_servers=careless.bootstrap_servers)
    admin.create_topics({name: {"num_partitions": 1}})
    admin.wait_for_topics([name])
    admin.close()
    return name


@contextlib.contextmanager
def transactions(broker: EmbeddedBroker, name: str) -> Iterator[KafkaTransactions]:
    kafka = KafkaSettings(bootstrap_servers=broker.bootstrap_servers, request_timeout_ms=1_000)
    output = KafkaTransactions(kafka, OutputSettings(), 10_000, name)
    try:
        yield output
    finally:
        output.close()


def say(output: KafkaTransactions, topic: str, text: bytes) -> None:
    receipt = output.send(Message(topic, b"key", text, []))
    output.flush(30)
    assert receipt.error() is None


def say_unknown_to_the_coordinator(output: KafkaTransactions, topic: str, text: bytes) -> None:
    output._begin()
    output._producer._transaction_manager._partitions_in_transaction.add(TopicPartition(topic, 0))
    say(output, topic, text)


def committed(broker: EmbeddedBroker, topic: str) -> list[bytes]:
    """What a reader of committed records sees before the first that is open."""
    consumer = KafkaConsumer(
        bootstrap_servers=broker.bootstrap_servers, isolation_level="read_committed", enable_auto_commit=False
    )
    try:
        tp = TopicPartition(topic, 0)
        consumer.assign([tp])
        end = consumer.end_offsets([tp])[tp]            # the last stable offset
        consumer.seek(tp, 0)
        found = []
        while consumer.position(tp) < end:
            found += [record.value for records in consumer.poll(timeout_ms=200).values() for record in records]
        return found
    finally:
        consumer.close()


def test_what_was_given_up_does_not_show_with_the_next_commit(careless: EmbeddedBroker, topic: str) -> None:
    with transactions(careless, topic) as output:
        say(output, topic, b"first")
        until(output.commit(Pledge({}, None)).done, 30)
        until(lambda: committed(careless, topic) == [b"first"], 30)
        say_unknown_to_the_coordinator(output, topic, b"given up")
        output.renew()
        say(output, topic, b"once")
        outcome = output.commit(Pledge({}, None))
        until(outcome.done, 30)
        assert outcome.error() is None
        until(lambda: committed(careless, topic) == [b"first", b"once"], 30, lambda: str(committed(careless, topic)))


def test_without_that_it_would(careless: EmbeddedBroker, topic: str) -> None:
    """The broker does as this suite says it does."""
    with transactions(careless, topic) as output:
        say_unknown_to_the_coordinator(output, topic, b"given up")
    with transactions(careless, topic) as again:        # of the same name, and it knows of nothing
        assert committed(careless, topic) == []         # its reader waits
        say(again, topic, b"once")
        until(again.commit(Pledge({}, None)).done, 30)
        until(lambda: committed(careless, topic) == [b"given up", b"once"], 30)


def test_offsets_that_were_given_up_are_swept_too(careless: EmbeddedBroker, topic: str) -> None:
    group, tp = f"g-{topic}", TopicPartition(topic, 0)
    consumer = KafkaConsumer(
        bootstrap_servers=careless.bootstrap_servers, group_id=group, isolation_level="read_committed",
        enable_auto_commit=False,
    )
    with transactions(careless, topic) as output, contextlib.closing(consumer):
        say(output, topic, b"given up")
        member = ConsumerGroupMetadata(group)
        output._left.group_id = group
        output._producer.send_offsets_to_transaction({tp: OffsetAndMetadata(7, "", -1)}, member)
        output.renew()
        assert consumer.committed(tp, timeout_ms=5_000) is None
        until(output.commit(Pledge({tp: OffsetAndMetadata(8, "", -1)}, member)).done, 30)
        assert consumer.committed(tp, timeout_ms=5_000) == 8
        assert committed(careless, topic) == []


def test_a_topic_that_is_gone_does_not_hold_up_the_rest(careless: EmbeddedBroker, topic: str) -> None:
    with transactions(careless, topic) as output:
        say(output, topic, b"given up")
        output._left.partitions.add(TopicPartition("never-was", 0))
        for _ in range(2):
            with pytest.raises(BrokerError, match="not swept"):
                output.renew()
        output.renew()
        say(output, topic, b"once")
        until(output.commit(Pledge({}, None)).done, 30)
        until(lambda: committed(careless, topic) == [b"once"], 30)
