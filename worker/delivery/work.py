"""What goes into one transaction, and how far it has come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from kafka.errors import MessageSizeTooLargeError, RecordListTooLargeError

from worker.delivery.checkpoint import PRESS_SECONDS
from worker.kafka.sink import Message, Receipt
from worker.kafka.transactions import Transactions


class Sent:
    """A message's fate. A refusal is not its last word: it is sent again."""

    def __init__(self, message: Message) -> None:
        self.message = message
        self._receipt: Receipt | None = None

    def send(self, transactions: Transactions) -> None:
        self._receipt = transactions.send(self.message)

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
class Work:
    """What goes into one transaction."""

    since: float
    messages: list[Sent] = field(default_factory=list)
    offsets: dict[int, int] = field(default_factory=dict)
    notes: dict[int, str] = field(default_factory=dict)
    then: list[Callable[[], None]] = field(default_factory=list)
    opened: float | None = None         # when the first of the messages went out
    member: object = None               # who we were in the group when the first offset came
    stuck: bool = False                 # one was refused at once: each of the others would be waited for, in vain
    alone: bool = False                 # each message was sent by itself: one is known to be too large

    def __bool__(self) -> bool:
        return bool(self.messages or self.offsets)

    def send(self, messages: Sequence[Sent], transactions: Transactions) -> None:
        for sent in messages:
            if self.stuck:
                return
            sent.send(transactions)
            if self.alone:
                transactions.flush(PRESS_SECONDS)
            self.stuck = sent.refusal is not None

    def acknowledged(self) -> bool:
        return all(sent.done() for sent in self.messages)

    def refusal(self) -> Exception | None:
        return next((refusal for sent in self.messages if (refusal := sent.refusal) is not None), None)

    def shrink(self) -> None:
        """After a refusal. What is too large goes without its value, where it can."""
        large = [sent.message for sent in self.messages if sent.too_large]
        if self.alone and large:        # only now: one too large takes the others of its group down with it
            limit = min(size(message) for message in large)
            for sent in self.messages:
                if sent.message.topic == large[0].topic and size(sent.message) >= limit:
                    sent.message = sent.message.smaller or sent.message
        self.alone, self.stuck = bool(large), False


def size(message: Message) -> int:
    return len(message.key or b"") + len(message.value or b"")


class Ending(NamedTuple):
    """A transaction that is being committed."""

    work: Work
    outcome: Receipt
    since: float
