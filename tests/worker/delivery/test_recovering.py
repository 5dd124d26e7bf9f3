"""What a checkpoint does not do for ever: call itself not writable, wait in vain, keep others waiting."""

from __future__ import annotations

import time

import pytest
from kafka.errors import KafkaTimeoutError

from tests.worker.delivery.desk import Desk, message
from worker.delivery.work import PRESS_SECONDS, Outgoing, Sent
from worker.kafka.commits import GroupCommits
from worker.kafka.sink import Failed, Message
from worker.memory import MemorySink
from worker.source import Change, CommitLost


def test_with_nothing_in_hand_it_is_writable_again() -> None:
    desk = Desk()
    desk.batch(3)
    desk.later()

    def lost() -> None:
        for commit in desk.broker.commits:
            commit.give(CommitLost("moved on"))
        if desk.now > 2:
            desk.broker.changes = [Change("revoked", (0,))]

    desk.meanwhile = lost
    assert desk.checkpoint.finish() == [Change("revoked", (0,))]
    desk.later(1.0)
    assert desk.checkpoint.writable


def test_of_rows_that_a_topic_refuses_at_once_only_one_is_waited_for() -> None:
    desk = Desk()
    desk.batch(3)
    rows = [desk.checkpoint.send(message(b"%d" % i, "state")) for i in range(5)]
    asked: list[Message] = []

    def refuse(message: Message) -> Failed:
        asked.append(message)
        return Failed(KafkaTimeoutError("no such topic"))

    desk.broker.send = refuse   # type: ignore[assignment, method-assign]
    desk.later()
    desk.broker.commits[0].give()
    desk.later(0)
    assert len(asked) == 1
    assert all(isinstance(row.error(), KafkaTimeoutError) for row in rows)


class Distant(MemorySink):
    def flush(self, timeout_seconds: float) -> None:
        time.sleep(PRESS_SECONDS / 5)


def test_messages_that_go_one_by_one_leave_time_for_the_rest() -> None:
    out, sink = Outgoing(alone=True), Distant()
    for i in range(40):
        out.add(Sent(message(b"%d" % i)))
    calls = 0
    while not out.acknowledged():
        began, calls = time.monotonic(), calls + 1
        out.press(sink)
        assert time.monotonic() - began < 4 * PRESS_SECONDS     # and not the 4 s of all
    assert calls > 1
    assert len(sink.messages) == 40


class Coordinator:
    """Of kafka-python's, what a commit in the background needs."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self._manager, self._commit_offsets_sync_async = self, None
        self.is_done, self.exception = False, None

    def call_soon(self, *_: object) -> Coordinator:
        self.said.append("behind")
        return self


class Consumer:
    def __init__(self) -> None:
        self._coordinator = Coordinator()

    def commit(self, *_: object, **__: object) -> None:
        self._coordinator.said.append("now" if self._coordinator.is_done else "too soon")


def test_a_commit_waits_for_the_one_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tried again after it, the older one would undo it."""
    consumer = Consumer()
    commits = GroupCommits(consumer, "sensor-readings", 1_000)     # type: ignore[arg-type]
    commits.begin({0: 1000}, {})

    def passes(_: float) -> None:
        consumer._coordinator.is_done = True

    monkeypatch.setattr(time, "sleep", passes)
    commits.commit({0: 900}, {})
    assert consumer._coordinator.said == ["behind", "now"]
