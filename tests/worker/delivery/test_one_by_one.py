"""Messages of a transaction that go one by one, because one of them is too large for its topic."""

from __future__ import annotations

from kafka.errors import MessageSizeTooLargeError, RecordListTooLargeError

from tests import factory
from worker.delivery.exactly_once import ExactlyOnce
from worker.heartbeat import Heartbeat
from worker.kafka.sink import Failed, Message, Receipt
from worker.memory import MemorySource, MemoryTransactions
from worker.metrics import Metrics
from worker.source import Pledge


class Hasty(MemoryTransactions):
    """Answers late. Two messages that are open together go as one group, which is too large as a whole."""

    def __init__(self) -> None:
        super().__init__()
        self._group: list[Waiting] = []

    def send(self, message: Message) -> Waiting:    # type: ignore[override]
        waiting = Waiting(message)
        self._group.append(waiting)
        return waiting

    def commit(self, pledge: Pledge) -> object:     # type: ignore[override]
        assert not self._group
        return super().commit(pledge)

    def settle(self) -> None:
        """The broker's answer to what is open."""
        group, self._group = self._group, []
        for waiting in group:
            waiting.answer = Failed(RecordListTooLargeError("too large")) if len(group) > 1 else self._alone(waiting)

    def _alone(self, waiting: Waiting) -> Receipt:
        if len(waiting.message.value or b"") > 1000:
            return Failed(MessageSizeTooLargeError("too large"))
        return super().send(waiting.message)

    def renew(self) -> None:
        super().renew()
        self._group = []


class Waiting:
    def __init__(self, message: Message) -> None:
        self.message = message
        self.answer: Receipt | None = None

    def done(self) -> bool:
        return self.answer is not None

    def error(self) -> Exception | None:
        return self.answer.error() if self.answer is not None else None


def test_messages_that_go_one_by_one_wait_for_each_other() -> None:
    source, sink = MemorySource("sensor-readings", factory.records(factory.random_readings(9, 3))), Hasty()
    source.poll(0, 0, 0)
    checkpoint = ExactlyOnce(source, sink, 0.0, Metrics(), Heartbeat(10), lambda: False, sleep=lambda _: None)
    small = Message("dlq", b"k", b"", [("value.omitted_bytes", b"2000")])
    values = [Message("dlq", b"k", value, [], small) for value in (b"one", b"x" * 2000, b"two")]
    checkpoint.complete(values, {0: 3}, {})
    for _ in range(20):
        sink.settle()
        checkpoint.settle()
    assert [message.value for message in sink.messages] == [b"one", b"", b"two"]
    assert source.committed == {0: 3}
    assert sink.renewals == 2                       # after the group's refusal, and after that of the large one
