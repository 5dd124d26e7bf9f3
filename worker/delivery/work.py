"""What is under way, and how far it has come."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from kafka.errors import MessageSizeTooLargeError, RecordListTooLargeError

from worker.kafka.sink import Failed, Message, Receipt, Sends, Sink
from worker.source import CommitLost

PRESS_SECONDS = 0.5                     # how long to press for acknowledgements before looking after the group
MOST_MESSAGES, MOST_BYTES = 10_000, 2**26       # under way, before the loop has to wait


class Sent:
    """A message's fate. A refusal is not its last word: it is sent again."""

    def __init__(self, message: Message) -> None:
        self.message = message
        self._receipt: Receipt | None = None

    def send(self, sink: Sends) -> None:
        self._receipt = sink.send(self.message)

    def take_back(self) -> None:
        """It is to be sent again."""
        self._receipt = None

    @property
    def under_way(self) -> bool:
        return self._receipt is not None

    def done(self) -> bool:
        return self._receipt is not None and self._receipt.done() and self.refusal is None

    def error(self) -> Exception | None:
        return None

    @property
    def refusal(self) -> Exception | None:
        return self._receipt.error() if self._receipt is not None and self._receipt.done() else None

    @property
    def too_large(self) -> bool:
        return isinstance(self.refusal, MessageSizeTooLargeError | RecordListTooLargeError)


@dataclass
class Outgoing:
    """Messages, in order, until all of them are on their topics."""

    messages: list[Sent] = field(default_factory=list)
    size_bytes: int = 0
    stuck: bool = False                 # one was refused at once: each of the others would be waited for, in vain
    alone: bool = False                 # each message goes by itself: one is known to be too large

    @property
    def full(self) -> bool:
        return len(self.messages) >= MOST_MESSAGES or self.size_bytes >= MOST_BYTES

    def add(self, sent: Sent) -> None:
        self.messages.append(sent)
        self.size_bytes += size(sent.message)

    def send(self, messages: Sequence[Sent], sink: Sink) -> None:
        if self.alone:
            self.press(sink)
            return
        if self.stuck or not messages:
            return
        with sink.together():
            for sent in messages:
                sent.send(sink)
                if sent.refusal is not None:
                    self.stuck = True
                    return

    def press(self, sink: Sink) -> None:
        """Where each message goes by itself: the next one, once the one before is on its topic. For a while: whoever
        calls has a heart to beat, and calls again.
        """
        until = time.monotonic() + PRESS_SECONDS
        for sent in self.messages if self.alone else ():
            if not sent.under_way:
                if time.monotonic() >= until:
                    return
                sent.send(sink)
                sink.flush(PRESS_SECONDS)
            if not sent.done():
                return

    def acknowledged(self) -> bool:
        return all(sent.done() for sent in self.messages)

    def refusal(self) -> Exception | None:
        return next((refusal for sent in self.messages if (refusal := sent.refusal) is not None), None)

    def forget_done(self) -> None:
        """Those that are acknowledged need not be sent again, whatever comes."""
        self.messages = [sent for sent in self.messages if not sent.done()]
        self.size_bytes = sum(size(sent.message) for sent in self.messages)
        self.alone = self.alone and bool(self.messages)

    def shrink(self) -> None:
        """After a refusal: all is to be sent again. What is too large goes without its value, where it can."""
        large = [sent.message for sent in self.messages if sent.too_large]
        if self.alone and large:        # only now: one too large takes the others of its group down with it
            limit = min(size(message) for message in large)
            for sent in self.messages:
                if sent.message.topic == large[0].topic and size(sent.message) >= limit:
                    sent.message = sent.message.smaller or sent.message
        for sent in self.messages:
            sent.take_back()
        self.alone, self.stuck = bool(large), False


def size(message: Message) -> int:
    return len(message.key or b"") + len(message.value or b"")


@dataclass
class Work(Outgoing):
    """What goes into one transaction."""

    since: float = 0.0
    offsets: dict[int, int] = field(default_factory=dict)
    notes: dict[int, str] = field(default_factory=dict)
    then: list[Callable[[], None]] = field(default_factory=list)
    opened: float | None = None         # when the first of the messages went out
    member: object = None               # who we were in the group when the first offset came

    def __bool__(self) -> bool:
        return bool(self.messages or self.offsets)


class Row:
    """A row of state. It follows the offset that it stands at: whoever restores it then finds that committed."""

    def __init__(self, message: Message) -> None:
        self.message = message
        self._receipt: Receipt | None = None

    def send(self, sink: Sends) -> None:
        self._receipt = sink.send(self.message)

    def give_up(self) -> None:
        self.fail(CommitLost("its partition has gone"))

    def fail(self, why: Exception) -> None:
        self._receipt = Failed(why)

    def done(self) -> bool:
        return self._receipt is not None and self._receipt.done()

    def error(self) -> Exception | None:
        return self._receipt.error() if self._receipt is not None else None


@dataclass
class Reach:
    """How far partitions have come: offsets to be committed, what is kept beside them, and rows that follow them."""

    since: float = float("inf")         # when the first of it was taken over; where there is none, never
    offsets: dict[int, int] = field(default_factory=dict)
    notes: dict[int, str] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.offsets or self.rows)

    def extend(self, later: Reach) -> None:
        if not later:
            return
        self.since = min(self.since, later.since)
        self.offsets.update(later.offsets)
        self.notes.update(later.notes)
        self.rows += later.rows

    def leave(self, gone: Collection[int]) -> None:
        """These partitions are another's to commit, or begin again."""
        self.offsets = {partition: offset for partition, offset in self.offsets.items() if partition not in gone}
        for row in self.rows:
            if row.message.partition in gone:
                row.give_up()
        self.rows = [row for row in self.rows if row.message.partition not in gone]
        if not self:
            self.since = float("inf")


class Batch(NamedTuple):
    """A batch that was taken over, until all of its messages are acknowledged."""

    since: float
    messages: Sequence[Sent]
    reach: Reach
    then: Callable[[], None]

    def acknowledged(self) -> bool:
        return all(sent.done() for sent in self.messages)


class Commit(NamedTuple):
    """A commit of offsets that is under way."""

    reach: Reach
    outcome: Receipt
    since: float


class Ending(NamedTuple):
    """A transaction that is being committed."""

    work: Work
    outcome: Receipt
    since: float
