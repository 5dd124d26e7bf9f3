"""Source, sink and state store in memory: the real ports without a broker, for tests and for trying things out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

from worker.errors import BrokerError
from worker.kafka.offsets import Start
from worker.kafka.sink import Failed, Message
from worker.records import PlainRecord, Record
from worker.source import Change, CommitLost, Fetched, Pledge
from worker.state.restore import Loaded
from worker.state.snapshots import Row, pack


class MemorySource:
    """A topic as lists. Everything assigned at the first poll; commits are kept in `committed`."""

    def __init__(self, topic: str, records: Sequence[Record]) -> None:
        self.topic = topic
        self._partitions: dict[int, list[Record]] = defaultdict(list)
        for record in records:
            self._partitions[record.partition].append(record)
        self._positions: dict[int, int] = {}
        self.committed: dict[int, int] = {}
        self.notes: dict[int, str] = {}
        self.joined = False

    def poll(self, max_records: int, max_wait_seconds: float, idle_seconds: float) -> Fetched:
        if not self.joined:
            self.joined = True
            return Fetched(changes=[Change("assigned", tuple(sorted(self._partitions)))])
        found: list[Record] = []
        for partition, log in self._partitions.items():
            at = self._positions[partition]
            taken = log[at : at + max_records - len(found)]
            self._positions[partition] += len(taken)
            found += taken
        return Fetched(found, reason="full" if len(found) == max_records else "waited")

    def start(self, partition: int) -> Start:
        note = self.notes.get(partition, "")
        return Start(self.committed.get(partition, 0), fresh=partition not in self.committed, note=note)

    def seek(self, partition: int, offset: int) -> None:
        self._positions[partition] = offset

    def commit(self, offsets: Mapping[int, int], notes: Mapping[int, str]) -> None:
        self.committed.update(offsets)
        self.notes.update(notes)

    def begin_commit(self, offsets: Mapping[int, int], notes: Mapping[int, str]) -> Failed | Acknowledged:
        try:
            self.commit(offsets, notes)
        except (CommitLost, BrokerError) as error:
            return Failed(error)
        return Acknowledged()

    def member(self) -> object:
        return self

    def pledge(self, offsets: Mapping[int, int], notes: Mapping[int, str], member: object) -> Pledge:
        return Pledge(lambda: self.commit(dict(offsets), dict(notes)), member)

    def idle(self) -> list[Change]:
        return []

    def assignment(self) -> Collection[int]:
        return set(self._partitions) if self.joined else set()

    @property
    def leaving(self) -> bool:
        return False

    def ends(self) -> Mapping[int, int]:
        return {partition: len(log) for partition, log in self._partitions.items()}

    def position(self, partition: int) -> int:
        return self._positions[partition]

    def lag(self, partition: int) -> int | None:
        return len(self._partitions[partition]) - self._positions[partition]

    def close(self) -> None:
        return None


class MemorySink:
    """Keeps what it is sent. `refusals` are given, one each, as the answer to the next messages."""

    def __init__(self, refusals: Sequence[Exception] = ()) -> None:
        self.messages: list[Message] = []
        self._refusals = list(refusals)

    def send(self, message: Message) -> Failed | Acknowledged:
        if self._refusals:
            return Failed(self._refusals.pop(0))
        self.messages.append(message)
        return Acknowledged()

    def together(self) -> AbstractContextManager[None]:
        return nullcontext()

    def flush(self, timeout_seconds: float) -> None:
        return None

    def renew(self) -> None:
        return None

    def close(self) -> None:
        return None


class MemoryTransactions(MemorySink):
    """Shows what it is sent when that is committed. `endings` are given, one each, as the fate of the next commits; an
    error's came about all the same where it is a MaybeCommitted.
    """

    def __init__(self, refusals: Sequence[Exception] = (), endings: Sequence[Exception | None] = ()) -> None:
        super().__init__(refusals)
        self.open: list[Message] = []
        self.renewals = 0
        self._endings = list(endings)

    def send(self, message: Message) -> Failed | Acknowledged:
        if self._refusals:
            return Failed(self._refusals.pop(0))
        self.open.append(message)
        return Acknowledged()

    def commit(self, pledge: Pledge) -> Failed | Acknowledged:
        error = self._endings.pop(0) if self._endings else None
        if error is None or isinstance(error, MaybeCommitted):
            self.messages += self.open
            pledge.offsets()
        self.open = []
        return Acknowledged() if error is None else Failed(error)

    def abort(self) -> None:
        self.open = []

    def renew(self) -> None:
        self.renewals += 1
        self.open = []


class MaybeCommitted(Exception):
    """The answer to a commit was lost, and not the commit."""


class MemoryStateStore:
    """A compacted topic as lists. `refusals` are given, one each, as the answer to the next rows."""

    def __init__(self, refusals: Sequence[Exception] = ()) -> None:
        self.logs: dict[int, list[PlainRecord]] = defaultdict(list)
        self.topic_id = "0" * 32
        self._ends: dict[int, int] = defaultdict(int)
        self._refusals = list(refusals)

    def ensure(self) -> str:
        return self.topic_id

    def load(self, partition: int) -> Loaded:
        return Loaded(list(self.logs[partition]), self._ends[partition], self.topic_id)

    def publish(self, partition: int, rows: Sequence[Row]) -> list[Failed | Acknowledged]:
        receipts: list[Failed | Acknowledged] = []
        for row in rows:
            if self._refusals:
                receipts.append(Failed(self._refusals.pop(0)))
            else:
                self.append(partition, *pack(row))
                receipts.append(Acknowledged())
        return receipts

    def append(
        self, partition: int, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]]
    ) -> None:
        """One record, whoever sent it."""
        self.logs[partition].append(PlainRecord("state", partition, self._ends[partition], 0, key, value, headers))
        self._ends[partition] += 1

    def compact(self, partition: int, upto: int | None = None) -> None:
        """What a broker may do at any time to records below an offset (default: all): of each key, the last stays."""
        log = self.logs[partition]
        last = {record.key: record.offset for record in log if upto is None or record.offset < upto}
        self.logs[partition] = [record for record in log if record.offset >= last.get(record.key, 0)]

    def close(self) -> None:
        return None


class Acknowledged:
    def done(self) -> bool:
        return True

    def error(self) -> Exception | None:
        return None
