"""Exactly-once delivery: what readings gave, and their offsets, in one transaction for each commit interval.

While a transaction is being committed, the loop goes on; what it has to say then waits for the next one. Three things
can go wrong, and each has one answer:

- a message is refused: nothing of the transaction is committed, so it is given up, and all of it is sent again;
- a partition has gone, and with it the right to its offsets: the transaction is given up, and what is still ours
  begins again at its committed offset ("rewound");
- a commit fails or gives no answer, so that nobody knows whether it took place: a producer built anew under the same
  name settles it, one way or the other; the committed offsets then tell which, and all begins again there.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from worker.delivery.checkpoint import RETRY_SECONDS, Stopped
from worker.delivery.deferred import COMMIT_SECONDS, SLOW_SECONDS, TICK_SECONDS, Deferred
from worker.delivery.work import Ending, Sent, Work
from worker.errors import BrokerError
from worker.heartbeat import Heartbeat
from worker.kafka.sink import Message
from worker.kafka.transactions import Transactions
from worker.metrics import Metrics
from worker.source import Change, Source


class ExactlyOnce(Deferred):
    """A Checkpoint; and a Sends, for rows of state that are part of the same transactions."""

    def __init__(
        self,
        source: Source,
        transactions: Transactions,
        interval_seconds: float,
        metrics: Metrics,
        heartbeat: Heartbeat,
        stopping: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
        timeout_seconds: float = 60.0,
    ) -> None:
        """timeout_seconds: after which the brokers give up a transaction, and so do we."""
        super().__init__(source, transactions, interval_seconds, metrics, heartbeat, stopping, clock, sleep)
        self._transactions, self._timeout_seconds = transactions, timeout_seconds
        self._hand = Work(since=clock())
        self._ending: Ending | None = None
        self._refusals = 0              # one after the other
        self._rewound = False           # and the loop has not been told yet

    @property
    def due_seconds(self) -> float:
        if self._ending is None and not self._hand:
            return float("inf")
        since = self._clock() if self._ending is not None else self._hand.since + self._interval_seconds
        return max(since - self._clock(), 5 * TICK_SECONDS)

    @property
    def _unanswered(self) -> int:
        return len(self._hand.messages)

    def send(self, message: Message) -> Sent:
        return self._add([message])[0]

    def _add(self, messages: Sequence[Message]) -> list[Sent]:
        self._take_up()
        added = [Sent(message) for message in messages]
        for sent in added:
            self._hand.add(sent)
        if self._ending is None and added:
            self._put(added)
        return added

    def _put(self, messages: Sequence[Sent]) -> None:
        if self._hand.opened is None:
            self._hand.opened = self._clock()
        self._hand.send(messages, self._transactions)

    def _take(
        self,
        messages: Sequence[Message],
        offsets: Mapping[int, int],
        notes: Mapping[int, str],
        then: Callable[[], None],
    ) -> None:
        """Puts the batch into the transaction in hand; `then` is called when that is committed."""
        self._add(messages)
        self._hand.offsets.update(offsets)
        self._hand.notes.update({partition: notes.get(partition, "") for partition in offsets})
        if self._hand.member is None:
            self._hand.member = self._source.member()
        if self._hand:
            self._hand.then.append(then)

    def _answers(self) -> list[Change]:
        return []                       # they count when the transaction is to be committed

    def _told(self, changes: list[Change]) -> list[Change]:
        """With the news that all begins again, if it does."""
        if self._rewound:
            self._rewound = False
            self._writable = True       # nothing is in hand that was not taken
            return [*changes, Change("rewound", tuple(sorted(self._source.assignment())))]
        return changes

    def _take_up(self) -> None:
        if not self._hand:
            self._hand = Work(since=self._clock())

    def _drop(self) -> None:
        self._ending = None
        self._hand = Work(since=self._clock())
        self._rewound = True

    def _light(self) -> bool:
        """Whether the loop may go on: what is in hand is neither too much nor too old."""
        since = self._hand.since if self._ending is None else self._ending.since
        busy = bool(self._hand) or self._ending is not None
        slow = busy and self._clock() - since > self._interval_seconds + SLOW_SECONDS
        return not (self._hand.full or slow)

    def _finish(self) -> list[Change]:
        self._hand.since = float("-inf")
        return self._until(lambda: not self._hand and self._ending is None)

    def _step(self) -> list[Change]:
        """Sees to what is under way, without waiting for it."""
        ending, hand = self._ending, self._hand
        self._metrics.inflight(len(hand.messages) + (len(ending.work.messages) if ending is not None else 0))
        if ending is not None:
            return self._see_commit(ending)
        hand.press(self._transactions)
        refusal = hand.refusal() or self._overdue(hand)
        if refusal is not None:
            return self._send_again(refusal)
        due = hand.full or self._clock() - hand.since >= self._interval_seconds
        if hand and due and hand.acknowledged():
            pledge = self._source.pledge(hand.offsets, hand.notes, hand.member)
            self._ending = Ending(hand, self._transactions.commit(pledge), self._clock())
            self._hand = Work(since=self._clock())
        return []

    def _overdue(self, hand: Work) -> Exception | None:
        """kafka-python may forget a request, where the coordinator has just gone, and wait for its answer for ever."""
        if hand.opened is None or self._clock() - hand.opened < self._timeout_seconds or hand.acknowledged():
            return None
        return BrokerError(f"no answer to a message of a transaction for {self._timeout_seconds:g} s, its timeout")

    def _see_commit(self, ending: Ending) -> list[Change]:
        seconds = self._clock() - ending.since
        error = ending.outcome.error() if ending.outcome.done() else None
        if not ending.outcome.done():
            if seconds < COMMIT_SECONDS:
                return []
            error = BrokerError(f"no answer to a commit for {COMMIT_SECONDS:g} s")
        if error is not None:
            self._metrics.transaction_failed("commit", error)
            self._drop()
            return self._build_anew()
        self._ending = None
        self._refusals, self._writable = 0, True
        self._metrics.produced(Counter(sent.message.topic for sent in ending.work.messages))
        self._metrics.transaction_committed(seconds)
        for then in ending.work.then:
            then()
        if self._hand.messages:
            self._put(self._hand.messages)          # they had to wait
        return []

    def _adapt(self, changes: Sequence[Change]) -> list[Change]:
        """The group has moved. Nothing stays open meanwhile: state may be loaded next, which can take long."""
        found = list(changes)
        if not found or not (self._hand or self._ending):
            return found
        if all(change.kind == "assigned" for change in found):
            return found + self._finish()
        while self._ending is not None:         # the group's coordinator says whether it was still ours to commit
            self._heartbeat.beat()
            self._sleep(TICK_SECONDS)
            found += self._see_commit(self._ending)
        if self._hand:
            found += self._abort()
        return found

    def _abort(self) -> list[Change]:
        self._drop()
        try:
            self._transactions.abort()
        except BrokerError as error:
            self._metrics.transaction_failed("abort", error)
            return self._build_anew()
        self._metrics.transaction_aborted()
        return []

    def _send_again(self, refusal: Exception) -> list[Change]:
        """A message was refused: nothing of the transaction is committed. Reading stops, and readiness says so."""
        self._writable = False
        self._metrics.transaction_failed("publish", refusal)
        changes = self._source.idle()
        self._sleep(RETRY_SECONDS[min(self._refusals, len(RETRY_SECONDS) - 1)])
        self._refusals += 1
        if self._stopping() and self._refusals > 1:     # a producer built anew knows more than the one before
            raise Stopped(f"{len(self._hand.messages)} messages not acknowledged: {refusal}")
        changes += self._build_anew()
        if changes:
            self._drop()
            return changes
        self._hand.since = self._clock()
        self._hand.opened = None
        self._hand.shrink()
        self._put(self._hand.messages)
        return []

    def _build_anew(self) -> list[Change]:
        """Until the broker lets us: what a producer of our name has left undecided is decided then."""
        changes: list[Change] = []
        attempt = 0
        while True:
            self._heartbeat.beat()
            try:
                self._transactions.renew()
                return changes
            except BrokerError as error:
                self._writable = False
                self._metrics.survived("publish", error)
            changes += self._source.idle()
            self._sleep(RETRY_SECONDS[min(attempt, len(RETRY_SECONDS) - 1)])
            attempt += 1
            if self._stopping():
                raise Stopped("the output cannot be reached")
