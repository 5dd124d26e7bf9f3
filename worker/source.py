"""Where records come from: the port. Kafka is behind it (worker/kafka/source.py), or memory (worker/memory.py)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

from worker.kafka.batches import RecordBatch
from worker.kafka.offsets import Start
from worker.kafka.sink import Receipt
from worker.records import Record


class Change(NamedTuple):
    """Partitions that came, or went: `revoked` on request, `lost` to another worker already. Those `rewound` are still
    ours, and begin again at their committed offsets: a transaction that held what came after was given up, or the
    offsets that were to be read next have expired.
    """

    kind: Literal["assigned", "revoked", "lost", "rewound"]
    partitions: tuple[int, ...]


@dataclass
class Fetched:
    """Records in order of arrival by partition, or whole batches of them, undecoded. Changes come first: they happened
    before the records.
    """

    records: Sequence[Record] | Sequence[RecordBatch] = ()
    changes: list[Change] = field(default_factory=list)
    reason: Literal["full", "waited", "drained"] = "waited"     # drained: the topic holds no more


class Pledge(NamedTuple):
    """Offsets that a transaction is to commit, and the member of the group that has the right to: for the sink."""

    offsets: Any
    member: Any


class CommitLost(Exception):
    """The group has moved on: the partitions are another's now, and so are their offsets."""


class Source(Protocol):
    """Readings by partition, and the offsets up to which they are done."""

    topic: str

    def poll(self, max_records: int, max_wait_seconds: float, idle_seconds: float) -> Fetched:
        """Waits up to idle_seconds for a first record; then, while there are more, up to max_wait_seconds for a full
        batch.
        """

    def start(self, partition: int) -> Start:
        """After an `assigned`: where to go on. The caller seeks. Raises BrokerError, CommitLost."""

    def seek(self, partition: int, offset: int) -> None: ...

    def commit(self, offsets: Mapping[int, int], notes: Mapping[int, str]) -> None:
        """Next offset to read, and what is kept beside it, by partition.

        Raises CommitLost where the partitions have moved on, and BrokerError.
        """

    def begin_commit(self, offsets: Mapping[int, int], notes: Mapping[int, str]) -> Receipt:
        """As commit, without waiting: the errors that commit raises are the receipt's. One at a time."""

    def member(self) -> object:
        """Who we are in the group now; another one after each rebalance."""

    def pledge(self, offsets: Mapping[int, int], notes: Mapping[int, str], member: object) -> Pledge:
        """What `commit` would commit, for a transaction. The group refuses it where `member` is of the past."""

    def idle(self) -> list[Change]:
        """Keeps membership while the output is slow, and takes no record."""

    def assignment(self) -> Collection[int]: ...

    @property
    def leaving(self) -> bool:
        """Whether the next poll may take partitions away, so that what was read is to be committed before."""

    @property
    def joined(self) -> bool:
        """Whether the group has given this member its share, be it none, and can be heard."""

    def ends(self) -> Mapping[int, int]:
        """The offset after the last record, for every partition of the topic."""

    def position(self, partition: int) -> int:
        """Next offset that poll returns."""

    def lag(self, partition: int) -> int | None:
        """Records after the position; None before the first fetch."""

    def close(self) -> None: ...
