"""When a partition's state is due for the state topic, which rows of it, and what may be said once they are there.

The order is the guarantee: (1) an offset is committed; (2) rows that stand at it are sent; (3) all are acknowledged;
(4) from then on the partition's commits carry a note that names the snapshot.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from worker.entities import Entities
from worker.kafka.sink import Receipt
from worker.kafka.statestore import StateStore
from worker.records import I32
from worker.state.restore import Restored, restore
from worker.state.snapshots import Row, Stand, name_of
from worker.state.state import States

SLICE_BYTES = 2**20                     # of rows sent at once: tens of milliseconds
ROW_BYTES = 100                         # of a record, beside the row


class Settled(NamedTuple):
    """What became of a partition's snapshot."""

    partition: int
    rows: int                   # dropped entities among them
    size_bytes: int             # of the rows
    seconds: float              # from the first row sent to the last one acknowledged
    error: Exception | None     # None where it is complete; else all is sent again when next due


@dataclass
class _Flight:
    """A snapshot on its way, slice by slice: neither the loop nor the producer's memory is taken up by all at once."""

    stand: Stand
    turn: int
    started: float
    rows: list[Row]
    size_bytes: int
    sent: int = 0               # rows
    receipts: Sequence[Receipt] = ()                    # of the last slice
    error: Exception | None = None


@dataclass
class _Held:
    """A partition that is ours."""

    owner: int
    stand: Stand
    log_start: int
    topic_id: str
    next_due: float
    clean_turn: int             # entities last touched in this turn or before are on the topic as they are
    rewrite: set[str] = field(default_factory=set)      # … but for these
    broken: bool = False        # a snapshot failed: what of it is on the topic is not known
    flight: _Flight | None = None


class Snapshotter:
    """Keeps no state but what is due; rows are in States, names in Entities. Every method is for the loop's thread."""

    def __init__(
        self,
        store: StateStore,
        entities: Entities,
        interval_seconds: float,
        clock: Callable[[], float] = time.monotonic,
        draw_owner: Callable[[], int] = lambda: secrets.randbits(64),
        slice_bytes: int = SLICE_BYTES,
    ) -> None:
        self._store, self._entities, self._interval_seconds = store, entities, interval_seconds
        self._clock, self._draw_owner, self._slice_bytes = clock, draw_owner, slice_bytes
        self._held: dict[int, _Held] = {}
        self._turn = 1
        self._touched = np.zeros(64, np.int64)          # turn in which the entity's row last changed, by code

    def restore(self, partition: int, committed: int, note: str, earliest: int, layout: str) -> Restored:
        """Takes over a partition that was just assigned: loads its rows and says how to go on (see Restored).

        committed, note: offset and metadata, fetched from the group after the assignment and before this.
        earliest: first offset of the input partition that can still be read.
        Raises BrokerError; may be called again then.
        """
        loaded = self._store.load(partition)
        owner = self._draw_owner()
        restored = restore(loaded, note, committed, earliest, layout, owner)
        self._turn += 1
        self._held[partition] = _Held(
            owner, restored.stand, loaded.end, loaded.topic_id,
            next_due=self._clock() + self._interval_seconds,
            clean_turn=self._turn - 1,
            rewrite=set(restored.rewrite),
        )
        return restored

    def release(self, partition: int) -> None:
        """The partition went. What is still on its way does no harm."""
        self._held.pop(partition, None)

    def touch(self, codes: I32) -> None:
        """These entities' rows change in this batch, silently or not."""
        self._reserve()
        self._touched[codes] = self._turn

    def forget(self, partition: int, names: Iterable[str]) -> None:
        """Entities that were dropped, or had their rows reset."""
        if partition in self._held:
            self._held[partition].rewrite.update(names)

    def rewrite_all(self) -> None:
        """The rows have another layout or meaning now: every partition is due, with every entity."""
        self._reserve()
        self._touched[:] = self._turn
        for held in self._held.values():
            held.next_due = self._clock()

    def note(self, partition: int) -> str:
        """Metadata for the partition's next commit; of a partition that is not ours, none."""
        held = self._held.get(partition)
        return held.stand.note() if held else ""

    @property
    def busy(self) -> bool:
        """Whether a snapshot is on its way."""
        return any(held.flight for held in self._held.values())

    def due(self) -> int | None:
        """The partition that has been due for longest. Begin one between two batches: that spreads the work."""
        idle = [(held.next_due, partition) for partition, held in self._held.items() if not held.flight]
        when, partition = min(idle, default=(np.inf, -1))
        return partition if when <= self._clock() else None

    def begin(self, partition: int, offset: int, states: States, model_sha256: str) -> Stand | None:
        """Sends what changed since the last snapshot. The rows must stand exactly at `offset`, and it be committed;
        or both be part of one transaction, which then also commits the note of the stand that this returns.

        None where the partition is not ours or one is on its way. Raises BrokerError, where the next one that is due
        tries again.
        """
        held = self._held.get(partition)
        if held is None or held.flight is not None:
            return None
        held.next_due = self._clock() + self._interval_seconds
        if held.broken:
            self._begin_anew(held, partition)
        rows = self._rows(held, partition, offset, states, model_sha256[:16])
        stand = Stand(offset, held.stand.life, held.owner, held.log_start, held.topic_id)
        size_bytes = sum(len(row.data or b"") for row in rows)
        held.flight = _Flight(stand, self._turn, self._clock(), rows, size_bytes)
        held.rewrite = set()
        self._turn += 1
        self._advance(held.flight, partition)
        return stand

    def settle(self) -> list[Settled]:
        """Sends on what is on its way, without waiting. Returns the snapshots that the broker has now taken, or
        refused. Call it between two batches while `busy`.
        """
        settled = []
        for partition, held in self._held.items():
            flight = held.flight
            if flight is None or not self._advance(flight, partition):
                continue
            held.flight = None
            if flight.error is None:
                held.stand, held.clean_turn = flight.stand, flight.turn
            else:
                held.broken = True
            seconds = self._clock() - flight.started
            settled.append(Settled(partition, len(flight.rows), flight.size_bytes, seconds, flight.error))
        return settled

    def _advance(self, flight: _Flight, partition: int) -> bool:
        """Whether it has come to its end."""
        if not all(receipt.done() for receipt in flight.receipts):
            return False
        flight.error = next((error for receipt in flight.receipts if (error := receipt.error()) is not None), None)
        if flight.error is not None or flight.sent == len(flight.rows):
            return True
        start, size_bytes = flight.sent, 0
        while flight.sent < len(flight.rows) and size_bytes < self._slice_bytes:
            size_bytes += len(flight.rows[flight.sent].data or b"") + ROW_BYTES
            flight.sent += 1
        flight.receipts = self._store.publish(partition, flight.rows[start : flight.sent])
        return False

    def _begin_anew(self, held: _Held, partition: int) -> None:
        """After a failure. Rows that were given up may still land, later than others: under a new owner they are late
        ones, and do no harm. All that the topic holds is written again, or dropped.
        """
        loaded = self._store.load(partition)
        held.owner, held.log_start, held.topic_id = self._draw_owner(), loaded.end, loaded.topic_id
        held.rewrite |= {name for record in loaded.records if (name := name_of(record)) is not None}
        held.clean_turn = -1
        held.broken = False

    def _rows(self, held: _Held, partition: int, offset: int, states: States, model: str) -> list[Row]:
        codes = self._entities.of_partition(partition)
        self.touch(np.array([codes[name] for name in held.rewrite if name in codes], np.int32))
        names, code_S = list(codes), np.fromiter(codes.values(), np.int32, len(codes))
        changed = np.flatnonzero(self._touched[code_S] > held.clean_turn).tolist()

        def row(name: str, data: bytes | None) -> Row:
            return Row(name, data, offset, held.stand.life, held.owner, states.layout, model)

        return [
            *(row(names[i], states.dump(int(code_S[i]))) for i in changed),
            *(row(name, None) for name in held.rewrite if name not in codes),
        ]

    def _reserve(self) -> None:
        if self._entities.capacity > len(self._touched):
            grown = np.zeros(2 * self._entities.capacity, np.int64)
            grown[: len(self._touched)] = self._touched
            self._touched = grown
