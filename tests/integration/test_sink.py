"""The producer of events on a real broker."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError, MessageSizeTooLargeError

from tests.programs import until
from worker.kafka import handover
from worker.kafka.sink import KafkaSink, Message, Receipt
from worker.kafka.transactions import KafkaTransactions
from worker.settings import KafkaSettings, OutputSettings
from worker.source import Pledge

MAX_MESSAGE_BYTES = 1_048_576


@pytest.fixture(params=["known", "unknown"])
def sink(broker: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[KafkaSink]:
    """Of the kafka-python that messages can be handed over to at once, and of one that is not as known."""
    if request.param == "unknown":
        monkeypatch.setattr(handover, "APPENDS", ("another",))
    made = KafkaSink(KafkaSettings(bootstrap_servers=broker), OutputSettings(), MAX_MESSAGE_BYTES)
    assert made._handover._known is (request.param == "known")
    yield made
    made.close()


def sent_together(sink: KafkaSink, messages: list[Message]) -> list[Receipt]:
    with sink.together():
        receipts = [sink.send(message) for message in messages]
    until(lambda: all(receipt.done() for receipt in receipts), 30)
    return receipts


def lying(
    broker: str, topic: str, isolation_level: str = "read_uncommitted"
) -> dict[int, list[tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]]]:
    """Key, value and headers of all records, by partition and in their order."""
    consumer = KafkaConsumer(
        bootstrap_servers=broker, enable_auto_commit=False, isolation_level=isolation_level
    )
    partitions = [TopicPartition(topic, p) for p in consumer.partitions_for_topic(topic)]
    ends = consumer.end_offsets(partitions)
    consumer.assign(partitions)
    consumer.seek_to_beginning()
    found: dict[int, list[tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]]] = {}
    while any(consumer.position(tp) < ends[tp] for tp in partitions):
        for tp, records in consumer.poll(timeout_ms=200).items():
            found.setdefault(tp.partition, []).extend((r.key, r.value, list(r.headers)) for r in records)
    consumer.close()
    return found


def test_what_is_sent_together_is_one_batch_and_goes_at_once(
    sink: KafkaSink, topic: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = topic()
    messages = [Message(name, b"pump-1", b"%d" % i, [], partition=0 if i % 2 else None) for i in range(200)]
    first = sink.send(messages[0])
    until(first.done, 30)                               # the producer knows the topic and has its id
    with monkeypatch.context() as patched:
        if sink._handover._known:
            patched.setattr(sink._producer, "send", None)       # there is no need of it
        receipts = sent_together(sink, messages)
    assert [receipt.error() for receipt in receipts] == [None] * len(messages)
    assert len({receipt._future._produce_future for receipt in receipts}) == 1  # type: ignore[attr-defined]


def test_what_is_sent_together_lies_where_a_stock_producer_puts_it(
    broker: str, sink: KafkaSink, topic: Callable[..., str]
) -> None:
    rng = random.Random(0)
    ours, theirs = topic(7, name="ours"), topic(7, name="theirs")
    keys = [rng.randbytes(rng.randrange(20)) for _ in range(200)] + ["Pumpe-ä".encode()]
    headers = [("ce_id", b"1"), ("ä" * 30, b""), ("content-type", b"application/json")]
    told = [(rng.choice(keys), rng.choice([None, b"", b"x" * rng.randrange(5000)]), headers) for _ in range(2000)]
    assert sum(len(value or b"") for _, value, _ in told) > 10 * 131_072        # many batches
    receipts = sent_together(sink, [Message(ours, *one) for one in told])
    assert [receipt.error() for receipt in receipts] == [None] * len(told)

    stock = KafkaProducer(bootstrap_servers=broker)
    for key, value, of_headers in told:
        stock.send(theirs, key=key, value=value, headers=of_headers)
    stock.close()
    assert lying(broker, ours) == lying(broker, theirs)


def test_one_that_is_sent_after_an_error_goes_at_once(sink: KafkaSink, topic: Callable[..., str]) -> None:
    name = topic()
    receipts = []
    with contextlib.suppress(RuntimeError), sink.together():
        receipts.append(sink.send(Message(name, b"pump-1", b"before", [])))
        raise RuntimeError("meanwhile")
    receipts.append(sink.send(Message(name, b"pump-1", b"after", [])))
    until(lambda: all(receipt.done() for receipt in receipts), 30)
    assert [receipt.error() for receipt in receipts] == [None, None]
    assert (sink._handover._together, sink._producer._accumulator.config["linger_ms"]) == (False, 0)


def test_each_kind_of_message_may_go_with_others(broker: str, sink: KafkaSink, topic: Callable[..., str]) -> None:
    name, large = topic(3), random.Random(0).randbytes(MAX_MESSAGE_BYTES + 200_000)
    messages = [
        Message(name, b"pump-1", b"by its key", []),
        Message(name, b"pump-1", b"asked for", [], partition=2),
        Message(name, None, b"no key", []),
        Message(name, large[:600], b"a long key", []),
        Message(name, b"pump-1", large[:200_000], []),
        Message(name, b"pump-1", b"large in its headers", [("trace", large[:100_000])]),
        Message(name, b"pump-1", large, []),
        Message(name, b"pump-1", b"the last", []),
        Message(name, b"pump-1", b"nowhere", [], partition=3),
        Message(name, b"pump-1", b"nowhere", [], partition=-1),
    ]
    receipts = sent_together(sink, messages)
    *well, large_one, last, nowhere, below = receipts
    assert [receipt.error() for receipt in (*well, last)] == [None] * 7
    assert isinstance(large_one.error(), MessageSizeTooLargeError)
    assert all(isinstance(receipt.error(), ValueError) for receipt in (nowhere, below))
    found = lying(broker, name)
    assert b"asked for" in [value for _, value, _ in found[2]]
    by_key = [value for part in found.values() for key, value, _ in part if key == b"pump-1" and value != b"asked for"]
    assert by_key == [b"by its key", large[:200_000], b"large in its headers", b"the last"]
    assert sum(map(len, found.values())) == 7


def test_a_topic_that_gets_more_partitions_is_used_as_it_is(
    broker: str, sink: KafkaSink, topic: Callable[..., str]
) -> None:
    from kafka import KafkaAdminClient

    name, keys = topic(1), [b"pump-%d" % i for i in range(40)]
    sent_together(sink, [Message(name, key, b"before", []) for key in keys])
    admin = KafkaAdminClient(bootstrap_servers=broker)
    admin.create_partitions({name: 4})
    admin.close()
    until(lambda: sink._producer._metadata.request_update() and len(sink._producer.partitions_for(name)) == 4, 30)
    sent_together(sink, [Message(name, key, b"after", []) for key in keys])
    found = lying(broker, name)
    assert sorted(found) == [0, 1, 2, 3]
    assert [value for _, value, _ in found[0]].count(b"before") == len(keys)


def test_messages_of_a_transaction_show_when_it_is_committed(broker: str, topic: Callable[..., str]) -> None:
    name = topic(3)
    kafka, settings = KafkaSettings(bootstrap_servers=broker), OutputSettings()
    transactions = KafkaTransactions(kafka, settings, MAX_MESSAGE_BYTES, f"{name}-id")
    assert transactions._handover._known
    told = [Message(name, b"pump-%d" % i, b"given up", []) for i in range(20)]
    sent_together(transactions, told)
    transactions.abort()
    sent_together(transactions, [message._replace(value=b"kept") for message in told])
    outcome = transactions.commit(Pledge({}, None))
    until(outcome.done, 30)
    assert outcome.error() is None
    assert {tp.topic for tp in transactions._left.partitions} == {name}
    found = [value for part in lying(broker, name, "read_committed").values() for _, value, _ in part]
    assert found == [b"kept"] * 20
    transactions.close()
    closed = sent_together(transactions, told[:1])
    assert isinstance(closed[0].error(), KafkaError)
