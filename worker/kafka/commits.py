"""Offsets of a group, committed: at once, in the background, or as part of a transaction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kafka import KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka.errors import CommitFailedError, KafkaError

from worker.errors import BrokerError
from worker.source import CommitLost


class GroupCommits:
    """A topic's, by a member of the group. Offsets come by partition, each the next one to read, and notes beside."""

    def __init__(self, consumer: KafkaConsumer, topic: str, timeout_ms: int) -> None:
        self._consumer, self._topic, self._timeout_ms = consumer, topic, timeout_ms

    def commit(self, offsets: Mapping[int, int], notes: Mapping[int, str]) -> None:
        """Raises CommitLost where the partitions have moved on, and BrokerError."""
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
        call = coordinator._commit_offsets_sync_async
        return Committing(coordinator._manager.call_soon(call, what, self._timeout_ms))

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
