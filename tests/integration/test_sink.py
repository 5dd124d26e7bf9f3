"""The producer of events on a real broker."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.programs import until
from worker.kafka.sink import KafkaSink, Message
from worker.settings import KafkaSettings, OutputSettings


@pytest.fixture
def sink(broker: str) -> Iterator[KafkaSink]:
    made = KafkaSink(KafkaSettings(bootstrap_servers=broker), OutputSettings(), 1_048_576)
    yield made
    made.close()


def test_what_is_sent_together_is_one_batch_and_goes_at_once(sink: KafkaSink, topic: Callable[..., str]) -> None:
    name = topic()
    messages = [Message(name, b"pump-1", b"%d" % i, []) for i in range(200)]
    first = sink.send(messages[0])
    until(first.done, 30)                               # the producer knows the topic and has its id
    with sink.together():
        receipts = [sink.send(message) for message in messages]
    until(lambda: all(receipt.done() for receipt in receipts), 30)
    assert [receipt.error() for receipt in receipts] == [None] * len(messages)
    assert len({receipt._future._produce_future for receipt in receipts}) == 1  # type: ignore[attr-defined]
