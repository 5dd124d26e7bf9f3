"""A transaction whose messages are not answered, long after the brokers have given it up."""

from __future__ import annotations

from tests import factory
from worker.delivery.exactly_once import ExactlyOnce
from worker.heartbeat import Heartbeat
from worker.kafka.sink import Failed, Message
from worker.memory import MemorySource, MemoryTransactions
from worker.metrics import Metrics


class Silent(MemoryTransactions):
    """Answers no message before it has been built anew."""

    def send(self, message: Message) -> Failed:     # type: ignore[override]
        receipt = super().send(message)
        receipt.done = lambda: self.renewals > 0    # type: ignore[method-assign]
        return receipt                              # type: ignore[return-value]


def test_a_message_without_an_answer_is_sent_again_when_its_transaction_is_over() -> None:
    now = [0.0]
    source, sink = MemorySource("sensor-readings", factory.records(factory.random_readings(9, 3))), Silent()
    source.poll(0, 0, 0)
    checkpoint = ExactlyOnce(
        source, sink, 0.0, Metrics(), Heartbeat(10), lambda: False, clock=lambda: now[0], sleep=lambda _: None,
        timeout_seconds=3.0,
    )
    checkpoint.send(Message("t", b"k", b"v", []))
    for now[0] in (0.0, 2.9):
        assert checkpoint.settle() == []
        assert sink.renewals == 0
    now[0] = 3.1
    assert checkpoint.settle() == []
    assert sink.renewals == 1
    assert checkpoint.finish() == []
    assert [message.value for message in sink.messages] == [b"v"]
    assert sink.renewals == 1
