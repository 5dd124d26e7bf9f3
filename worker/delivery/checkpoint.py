"""What makes a batch done: its events and dead letters are on their topics, and its offsets are committed.

The order is the guarantee: whatever dies in between, the batch is read again, and its events carry the same ids.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from worker.kafka.sink import Message, Sends
from worker.source import Change

RETRY_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class Stopped(Exception):
    """The worker was told to leave while the output refused; nothing of the batch is committed."""


class Checkpoint(Sends, Protocol):
    """How what readings gave, and their offsets, become final; rows of state are sent by it too. Every method may raise
    Stopped. What they return are rebalances that happened meanwhile.
    """

    def complete(
        self,
        messages: Sequence[Message],
        offsets: Mapping[int, int],
        notes: Mapping[int, str],
        then: Callable[[], None] = lambda: None,
    ) -> list[Change]:
        """Takes over one batch, and waits only where too much is under way already.

        offsets, notes: next offset to read, and what is kept beside it, by partition.
        then: called when subscribers can read all messages of it.
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
