"""At-least-once delivery: an idempotent producer, and commits that follow it.

A batch goes through three stages, and the loop waits for none of them: its messages are under way; they are on their
topics, and so are those of the batches before; its offsets are being committed, with all that has come as far since the
last commit. Rows of state follow the offsets that they stand at.

Repeats happen after a crash, or where a partition went before its offsets were committed. They bear the same ids.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence

from worker.delivery.checkpoint import RETRY_SECONDS, Stopped
from worker.delivery.deferred import COMMIT_SECONDS, SLOW_SECONDS, TICK_SECONDS, Deferred
from worker.delivery.work import Batch, Commit, Outgoing, Reach, Row, Sent
from worker.errors import BrokerError
from worker.heartbeat import Heartbeat
from worker.kafka.sink import Message, Receipt, Sink
from worker.metrics import Metrics
from worker.source import Change, Source


class AtLeastOnce(Deferred):
    """A Checkpoint; and a Sends, for rows of state."""

    def __init__(
        self,
        source: Source,
        sink: Sink,
        interval_seconds: float,
        metrics: Metrics,
        heartbeat: Heartbeat,
        stopping: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        super().__init__(source, sink, interval_seconds, metrics, heartbeat, stopping, clock, sleep)
        self._out = Outgoing()
        self._batches: deque[Batch] = deque()
        self._reached = Reach()
        self._commit: Commit | None = None
        self._refusals = self._failures = 0     # of messages, of commits; one after the other
        self._commit_after = float("-inf")
        self._hurried = False

    @property
    def due_seconds(self) -> float:
        if self._batches or self._commit:
            return 5 * TICK_SECONDS
        return max(self._reached.since + self._interval_seconds - self._clock(), 5 * TICK_SECONDS)

    @property
    def _unanswered(self) -> int:
        return len(self._out.messages)

    def send(self, message: Message) -> Receipt:
        row = Row(message)
        if self._batches:
            self._batches[-1].reach.rows.append(row)
        elif self._reached:
            self._reached.rows.append(row)
        elif self._commit:
            self._commit.reach.rows.append(row)
        else:
            row.send(self._output)
        return row

    def _take(
        self,
        messages: Sequence[Message],
        offsets: Mapping[int, int],
        notes: Mapping[int, str],
        then: Callable[[], None],
    ) -> None:
        sent = [Sent(message) for message in messages]
        for one in sent:
            self._out.add(one)
        self._out.send(sent, self._output)
        now = self._clock()
        self._batches.append(Batch(now, sent, Reach(now, dict(offsets), dict(notes)), then))

    def _step(self) -> list[Change]:
        changes = self._answers()
        self._see_commit()
        if self._due():
            self._begin_commit()
            self._see_commit()
        if not (self._batches or self._reached or self._commit):
            self._writable = True           # nothing is in hand that was not taken
        return changes

    def _answers(self) -> list[Change]:
        acknowledged = False
        while self._batches and self._batches[0].acknowledged():
            batch = self._batches.popleft()
            self._metrics.produced(Counter(sent.message.topic for sent in batch.messages))
            self._reached.extend(batch.reach)
            batch.then()
            acknowledged = True
        if acknowledged:
            self._out.forget_done()
            self._refusals = self._refusals if self._out.messages else 0
            self._writable = not self._refusals
        self._metrics.inflight(len(self._out.messages))
        self._out.press(self._output)
        refusal = self._out.refusal()
        return [] if refusal is None else self._send_again(refusal)

    def _send_again(self, refusal: Exception) -> list[Change]:
        """What is not acknowledged stays in hand. Reading stops, and readiness says so."""
        self._writable = False
        self._metrics.survived("publish", refusal)
        self._heartbeat.beat()
        changes = self._adapt(self._source.idle())
        self._sleep(RETRY_SECONDS[min(self._refusals, len(RETRY_SECONDS) - 1)])
        self._refusals += 1
        self._out.forget_done()
        if self._stopping():
            raise Stopped(f"{len(self._out.messages)} messages not acknowledged: {refusal}")
        try:
            self._output.renew()
        except BrokerError as error:        # what is sent next fails at once, and comes back here
            self._metrics.survived("publish", error)
        self._out.shrink()
        self._out.send(self._out.messages, self._output)
        return changes

    def _due(self) -> bool:
        if self._commit or not self._reached or self._clock() < self._commit_after:
            return False
        waited_for = self._hurried or bool(self._reached.rows)
        return waited_for or self._clock() - self._reached.since >= self._interval_seconds

    def _begin_commit(self) -> None:
        reach, self._reached = self._reached, Reach()
        if not reach.offsets:               # of rows whose batch committed nothing
            self._follow(reach)
            return
        with self._metrics.tracing.stage("commit"):
            self._commit = Commit(reach, self._source.begin_commit(reach.offsets, reach.notes), self._clock())

    def _see_commit(self) -> None:
        if self._commit is None:
            return
        (reach, outcome, since), now = self._commit, self._clock()
        if not outcome.done() and now - since < COMMIT_SECONDS:
            return
        error = outcome.error() if outcome.done() else BrokerError(f"no answer to a commit for {COMMIT_SECONDS:g} s")
        self._commit = None
        if error is None:
            self._failures, self._writable = 0, not self._refusals
            self._metrics.committed(now - since)
            self._follow(reach)
            return
        # It is tried again. Where the group has moved on, we are told what has gone before that.
        self._metrics.commit_failed(error)
        reach.extend(self._reached)
        self._reached = reach
        self._commit_after = now + RETRY_SECONDS[min(self._failures, len(RETRY_SECONDS) - 1)]
        self._failures += 1

    def _follow(self, reach: Reach) -> None:
        if not reach.rows:
            return
        refused: Exception | None = None
        with self._output.together():
            for row in reach.rows:          # after one that is refused at once, each would be waited for in vain
                if refused is None:
                    row.send(self._output)
                    refused = row.error() if row.done() else None
                else:
                    row.fail(refused)

    def _reaches(self) -> Iterator[Reach]:
        if self._commit:
            yield self._commit.reach
        yield self._reached
        yield from (batch.reach for batch in self._batches)

    def _light(self) -> bool:
        since = [self._reached.since]
        if self._commit:
            since.append(self._commit.reach.since)
        if self._batches:
            since.append(self._batches[0].since)
        slow = self._clock() - min(since) > self._interval_seconds + SLOW_SECONDS
        return not (self._refusals or self._out.full or slow)

    def _adapt(self, changes: Sequence[Change]) -> list[Change]:
        """What went with a partition is its new owner's to commit, or read again."""
        gone = {partition for change in changes if change.kind != "assigned" for partition in change.partitions}
        while gone and self._commit:        # whoever takes over reads what is committed
            self._heartbeat.beat()
            self._see_commit()
            self._sleep(TICK_SECONDS)
        for reach in self._reaches() if gone else ():
            reach.leave(gone)
        return list(changes)

    def _finish(self) -> list[Change]:
        self._hurried = True
        try:
            return self._until(lambda: not (self._batches or self._reached or self._commit))
        finally:
            self._hurried = False
