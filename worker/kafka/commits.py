"""Offsets of a group, committed: at once, in the background, or as part of a transaction."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from kafka import KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka.errors import CommitFailedError, KafkaError

from worker.errors import BrokerError
from worker.source import CommitLost

BEHIND_MS = 25_000                      # a commit in the background is over before it is given up (COMMIT_SECONDS)
TICK_SECONDS = 0.005


class GroupCommits:
    """A topic's, by a member of the group. Offsets come by partition, each the next one to read, and notes beside."""

    def __init__(self, consumer: KafkaConsumer, topic: str, timeout_ms: int) -> None:
        self._consumer, self._topic, self._timeout_ms = consumer, topic, timeout_ms
        self._behind: Committing | None = None

    def commit(self, offsets: Mapping[int, int], notes: Mapping[int, str]) -> None:
        """Raises CommitLost where the partitions have moved on, and BrokerError."""
        # One that is under way may be tried again after this one, and would undo it: the log may have lost its end.
        until = time.monotonic() + BEHIND_MS / 1000
        while self._behind is not None and not self._behind.done() and time.monotonic() < until:
            time.sleep(TICK_SECONDS)
        try:
            self._consumer.commit(self.with_notes(offsets, notes), timeout_ms=self._timeout_ms)
        except KafkaError as error:
            raise _said(error) from error

    def begin(self, offsets: Mapping[int, int], notes: Mapping[int, str]) -> Committing:
        """The same, by kafka-python's own thread."""
        # This is what `commit` waits for. kafka-python's commit_async tries once; and where it has to look for the
        # coordinator, its future tells of that, and not of the commit.
        coordinator = self._consumer._coordinator
        what = self.with_notes(offsets, notes)
        call, timeout_ms = coordinator._commit_offsets_sync_async, min(self._timeout_ms, BEHIND_MS)
        self._behind = Committing(coordinator._manager.call_soon(call, what, timeout_ms))
        return self._behind

    def with_notes(self, offsets: Mapping[int, int], notes: Mapping[int, str]) -> dict[Any, Any]:
        return {
            TopicPartition(self._topic, partition): OffsetAndMetadata(offset, notes.get(partition, ""), -1)
            for partition, offset in offsets.items()
        }


class Committing:
    """A Receipt."""

    def __init__(self, future: Any) -> None:
        self._future = future

    def done(self) -> bool:
        return bool(self._future.is_done)

    def error(self) -> Exception | None:
        error = self._future.exception
        return None if error is None else _said(error)


def _said(error: Exception) -> CommitLost | BrokerError:
    if isinstance(error, CommitFailedError):
        return CommitLost(str(error))
    return BrokerError(f"offsets not committed: {error}")
