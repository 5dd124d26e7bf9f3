"""A checkpoint of at-least-once on a broker that answers when it is told to, by a clock that tests move."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext

from prometheus_client import generate_latest

from tests import factory
from worker.delivery.at_least_once import AtLeastOnce
from worker.heartbeat import Heartbeat
from worker.kafka.sink import Message
from worker.memory import MemorySource
from worker.metrics import Metrics
from worker.source import Change


class Answer:
    """A Receipt that comes when the broker is told to give it."""

    def __init__(self, what: object) -> None:
        self.what = what
        self._done, self._error = False, None       # type: tuple[bool, Exception | None]

    def give(self, error: Exception | None = None) -> None:
        self._done, self._error = True, error

    def done(self) -> bool:
        return self._done

    def error(self) -> Exception | None:
        return self._error


class Broker(MemorySource):
    """Answers to messages and commits when told to. A sink and a source in one."""

    def __init__(self) -> None:
        super().__init__("sensor-readings", factory.records(factory.random_readings(9, 3)))
        self.poll(0, 0, 0)
        self.sent: list[Answer] = []
        self.commits: list[Answer] = []
        self.changes: list[Change] = []
        self.renewals = self.idled = 0
        self.meanwhile: Callable[[float], None] = lambda seconds: None

    def send(self, message: Message) -> Answer:
        self.sent.append(Answer(message))
        return self.sent[-1]

    def together(self) -> AbstractContextManager[None]:
        return nullcontext()

    def flush(self, timeout_seconds: float) -> None:
        return None

    def renew(self) -> None:
        self.renewals += 1

    def begin_commit(self, offsets: Mapping[int, int], notes: Mapping[int, str]) -> Answer:  # type: ignore[override]
        self.commits.append(Answer((dict(offsets), dict(notes))))
        return self.commits[-1]

    def idle(self) -> list[Change]:
        self.idled += 1
        self.meanwhile(0.1)
        changes, self.changes = self.changes, []
        return changes

    def values(self) -> list[bytes | None]:
        return [answer.what.value for answer in self.sent]      # type: ignore[attr-defined]

    def acknowledge(self) -> None:
        for answer in (*self.sent, *self.commits):
            if not answer.done():
                answer.give()


class Desk:
    """A checkpoint, its broker and its clock."""

    def __init__(self, interval_seconds: float = 0.1) -> None:
        self.now = 0.0
        self.told_to_stop = False
        self.broker, self.metrics = Broker(), Metrics()
        self.broker.meanwhile = self.sleep
        self.meanwhile: Callable[[], object] = lambda: None         # what happens while the worker waits
        self.read: list[str] = []
        self.checkpoint = AtLeastOnce(
            self.broker, self.broker, interval_seconds, self.metrics, Heartbeat(10), lambda: self.told_to_stop,
            clock=lambda: self.now, sleep=self.sleep,
        )

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.meanwhile()

    def batch(self, offset: int, *values: bytes, note: str = "", partition: int = 0) -> list[Change]:
        messages = [message(value) for value in values]
        return self.checkpoint.complete(
            messages, {partition: offset}, {partition: note}, lambda: self.read.append(f"{partition}/{offset}")
        )

    def later(self, seconds: float = 0.1) -> list[Change]:
        self.now += seconds
        return self.checkpoint.settle()

    def committing(self) -> list[object]:
        return [commit.what for commit in self.broker.commits]


def message(value: bytes, topic: str = "events", smaller: Message | None = None) -> Message:
    return Message(topic, b"k", value, [], smaller)


def exposition(metrics: Metrics) -> str:
    return generate_latest(metrics.registry).decode()
