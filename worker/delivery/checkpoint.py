"""What makes a batch done: its events and dead letters are acknowledged, then its offsets are committed.

The order is the guarantee: whatever dies in between, the batch is read again, and its events carry the same ids.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from kafka.errors import MessageSizeTooLargeError, RecordListTooLargeError

from worker.errors import BrokerError
from worker.heartbeat import Heartbeat
from worker.kafka.sink import Failed, Message, Receipt, Sends, Sink
from worker.metrics import Metrics
from worker.source import Change, CommitLost, Source

PRESS_SECONDS = 0.5                     # how long to press for acknowledgements before looking after the group
GRACE_SECONDS = 10.0                    # for acknowledgements that are due when told to stop
RETRY_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class Stopped(Exception):
    """The worker was told to leave while the output refused; nothing of the batch is committed."""


class Completed(NamedTuple):
    changes: list[Change]               # rebalances that happened meanwhile
    committed: bool                     # False: the group has moved on, and the partitions' next owner reads again


class Checkpoint(Sends, Protocol):
    """How what readings gave, and their offsets, become final; rows of state are sent by it too. Every method may raise
    Stopped.
    """

    def complete(
        self,
        messages: Sequence[Message],
        offsets: Mapping[int, int],
        notes: Mapping[int, str],
        then: Callable[[], None] = lambda: None,
    ) -> Completed:
        """One batch, at once or together with the next ones.

        offsets, notes: next offset to read, and what is kept beside it, by partition.
        then: called when all of it is final.
        """

    def rebalanced(self, changes: Sequence[Change]) -> list[Change]:
        """Tells of changes before the loop acts on them, and returns those to act on."""

    def settle(self) -> list[Change]:
        """Sees to what is under way, without waiting; to be called between batches, after `due_seconds` or sooner."""

    def finish(self) -> list[Change]:
        """All that was given is final, or its partitions are among the changes."""

    @property
    def due_seconds(self) -> float: ...

    @property
    def writable(self) -> bool:
        """Whether the output took the last that it was given."""


class AtLeastOnce:
    """An idempotent producer, then a commit. Repeats happen only after a crash or a lost partition."""

    def __init__(
        self,
        source: Source,
        sink: Sink,
        metrics: Metrics,
        heartbeat: Heartbeat,
        stopping: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._source, self._sink, self._metrics, self._heartbeat = source, sink, metrics, heartbeat
        self._stopping, self._clock, self._sleep = stopping, clock, sleep
        self._writable = True

    @property
    def writable(self) -> bool:
        return self._writable

    @property
    def due_seconds(self) -> float:
        return float("inf")             # nothing is under way between two batches

    def send(self, message: Message) -> Receipt:
        return self._sink.send(message)

    def rebalanced(self, changes: Sequence[Change]) -> list[Change]:
        return list(changes)

    def settle(self) -> list[Change]:
        return []

    def finish(self) -> list[Change]:
        return []

    def complete(
        self,
        messages: Sequence[Message],
        offsets: Mapping[int, int],
        notes: Mapping[int, str],
        then: Callable[[], None] = lambda: None,
    ) -> Completed:
        changes: list[Change] = []
        # 1. Everything that the batch says is on its topic.
        with self._metrics.stage("publish"):
            self._publish(messages, changes)
        # 2. Only then is the batch done. What left with a rebalance is its new owner's to commit.
        gone = {partition for change in changes for partition in change.partitions}
        kept = {partition: offset for partition, offset in offsets.items() if partition not in gone}
        with self._metrics.stage("commit"):
            committed = self._commit(kept, notes)
        if committed:
            then()
        return Completed(changes, committed)

    def _publish(self, messages: Sequence[Message], changes: list[Change]) -> None:
        groups = [list(messages)] if messages else []
        attempt = 0
        while groups:
            errors = self._send(groups[0], changes)
            refusal = next((error for error in errors if error is not None), None)
            self._writable = refusal is None
            if refusal is None:
                del groups[0]
                continue
            # The batch stays in hand and is sent again: reading stops, and readiness says so.
            self._metrics.survived("publish", refusal)
            groups[0:1] = _left(groups[0], errors)
            changes += self._source.idle()
            self._sleep(RETRY_SECONDS[min(attempt, len(RETRY_SECONDS) - 1)])
            attempt += 1
            if self._stopping():
                raise Stopped(f"{sum(map(len, groups))} messages not acknowledged: {refusal}")
            self._renew()
        self._metrics.inflight(0)

    def _send(self, group: Sequence[Message], changes: list[Change]) -> list[Exception | None]:
        """What became of each message."""
        self._heartbeat.beat()
        self._metrics.inflight(len(group))
        receipts: list[Receipt] = []
        for message in group:
            receipts.append(self._sink.send(message))
            refusal = receipts[-1].error() if receipts[-1].done() else None
            if refusal is not None:         # each of the others would be waited for as long, in vain
                receipts += [Failed(refusal)] * (len(group) - len(receipts))
                break
        self._await(receipts, changes)
        errors = [receipt.error() for receipt in receipts]
        self._metrics.produced(Counter(m.topic for m, error in zip(group, errors, strict=True) if error is None))
        return errors

    def _renew(self) -> None:
        try:
            self._sink.renew()
        except BrokerError as error:        # the next attempt fails at once, and comes back here
            self._metrics.survived("publish", error)

    def _await(self, receipts: Sequence[Receipt], changes: list[Change]) -> None:
        """Until every receipt is in; a slow broker must not cost us our place in the group."""
        self._sink.flush(PRESS_SECONDS)
        stop_seen: float | None = None
        while not all(receipt.done() for receipt in receipts):
            self._writable = False
            self._heartbeat.beat()
            if self._stopping():
                stop_seen = self._clock() if stop_seen is None else stop_seen
                if self._clock() - stop_seen >= GRACE_SECONDS:
                    raise Stopped(f"{sum(not r.done() for r in receipts)} messages not acknowledged")
            changes += self._source.idle()
            self._sink.flush(PRESS_SECONDS)

    def _commit(self, offsets: Mapping[int, int], notes: Mapping[int, str]) -> bool:
        attempt = 0
        while offsets:
            self._heartbeat.beat()
            try:
                self._source.commit(offsets, notes)
            except CommitLost as error:
                self._metrics.commit_failed(error)
                return False                # the partitions' new owner reads the batch again, with the same ids
            except BrokerError as error:
                self._metrics.commit_failed(error)
                if self._stopping():
                    raise Stopped(str(error)) from error
                self._sleep(RETRY_SECONDS[min(attempt, len(RETRY_SECONDS) - 1)])
                attempt += 1
            else:
                self._metrics.committed()
                return True
        return True


def _left(group: list[Message], errors: Sequence[Exception | None]) -> list[list[Message]]:
    """What to send again, in groups. One too large takes the others of its group down with it, so that they then go
    one by one; alone and still too large, it gives way to its smaller form, where it has one.
    """
    open_messages = [message for message, error in zip(group, errors, strict=True) if error is not None]
    if not any(isinstance(error, MessageSizeTooLargeError | RecordListTooLargeError) for error in errors):
        return [open_messages]
    if len(group) == 1:
        return [[group[0].smaller or group[0]]]
    return [[message] for message in open_messages]
