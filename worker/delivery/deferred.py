"""What both deliveries share: the loop goes on while messages and commits are under way, and waits where that is too
much, or takes too long.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

from worker.delivery.checkpoint import Stopped
from worker.delivery.work import PRESS_SECONDS
from worker.heartbeat import Heartbeat
from worker.kafka.sink import Message, Receipt, Sink
from worker.metrics import Metrics
from worker.source import Change, Source

GRACE_SECONDS = 10.0                    # for answers that are due when told to stop
SLOW_SECONDS = 2.0                      # beyond the interval; an output that takes longer is said to be not writable
COMMIT_SECONDS = 30.0                   # a commit without an answer for so long will get none
TICK_SECONDS = 0.002


class Deferred(ABC):
    """A Checkpoint. Kinds differ in what they do with a batch, and when something goes wrong."""

    def __init__(
        self,
        source: Source,
        output: Sink,
        interval_seconds: float,
        metrics: Metrics,
        heartbeat: Heartbeat,
        stopping: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """interval_seconds: between two commits."""
        self._source, self._output, self._interval_seconds = source, output, interval_seconds
        self._metrics, self._heartbeat = metrics, heartbeat
        self._stopping, self._clock, self._sleep = stopping, clock, sleep
        self._writable = True

    @property
    def writable(self) -> bool:
        return self._writable

    def complete(
        self,
        messages: Sequence[Message],
        offsets: Mapping[int, int],
        notes: Mapping[int, str],
        then: Callable[[], None] = lambda: None,
    ) -> list[Change]:
        with self._metrics.stage("publish"):
            self._take(messages, offsets, notes, then)
            changes = [*self._answers(), *self._until(self._light)]
        return self._told([*changes, *self._step()])

    def settle(self) -> list[Change]:
        return self._told(self._step())

    def rebalanced(self, changes: Sequence[Change]) -> list[Change]:
        return self._told(self._adapt(changes))

    def finish(self) -> list[Change]:
        return self._told(self._finish())

    def _until(self, over: Callable[[], bool]) -> list[Change]:
        """Goes on until it is over; a slow output must not cost us our place in the group."""
        changes: list[Change] = []
        began = self._clock()
        stop_seen: float | None = None
        while not over():
            self._heartbeat.beat()          # waiting for the output, as readiness says
            if self._clock() - began < PRESS_SECONDS:
                self._sleep(TICK_SECONDS)
            else:
                self._writable = False
                if self._stopping():
                    stop_seen = self._clock() if stop_seen is None else stop_seen
                    if self._clock() - stop_seen >= GRACE_SECONDS:
                        raise Stopped(f"{self._unanswered} messages not acknowledged, or their offsets not committed")
                changes += self._adapt(self._source.idle())
            changes += self._step()
        return changes

    def _told(self, changes: list[Change]) -> list[Change]:
        """What the loop is to be told."""
        return changes

    @property
    @abstractmethod
    def due_seconds(self) -> float: ...

    @property
    @abstractmethod
    def _unanswered(self) -> int:
        """Messages under way."""

    @abstractmethod
    def send(self, message: Message) -> Receipt: ...

    @abstractmethod
    def _take(
        self,
        messages: Sequence[Message],
        offsets: Mapping[int, int],
        notes: Mapping[int, str],
        then: Callable[[], None],
    ) -> None:
        """Takes a batch over; its messages go out, if they may already."""

    @abstractmethod
    def _answers(self) -> list[Change]:
        """Sees what became of messages."""

    @abstractmethod
    def _step(self) -> list[Change]:
        """Sees to all that is under way, without waiting for it."""

    @abstractmethod
    def _light(self) -> bool:
        """Whether the loop may go on: what is under way is neither too much nor too old."""

    @abstractmethod
    def _adapt(self, changes: Sequence[Change]) -> list[Change]:
        """The group has moved."""

    @abstractmethod
    def _finish(self) -> list[Change]: ...
