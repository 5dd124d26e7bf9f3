"""State over many owners of a partition: crashes, workers that wake up late, rows given up, compaction at any moment.

Whatever happens, the next owner's state is what one worker would have that had never been disturbed.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Sequence

import numpy as np
import pytest

from worker.entities import Entities
from worker.memory import MemoryStateStore
from worker.state.restore import Loaded, Restored, restore
from worker.state.snapshots import Row, pack
from worker.state.snapshotter import Snapshotter
from worker.state.state import Column, States

FORGET_AFTER = 60                   # readings of the partition without one of the entity
MIX = np.uint64(6364136223846793005)


def fresh() -> States:
    return States([Column("past", "<u8"), Column("last", "<i8", (), -1)])


def take_in(states: States, code: int, offset: int) -> None:
    """A state that no reading more, less or in another order would give."""
    past, last = states["past"][code], states["last"][code]
    if last >= 0 and offset - last > FORGET_AFTER:
        past = np.uint64(0)
    with np.errstate(over="ignore"):
        states["past"][code] = (past + np.uint64(offset + 1)) * MIX
    states["last"][code] = offset


class Pending:
    """A row on its way: acknowledged when it lands, or given up, and then it may land all the same."""

    def __init__(self, row: Row) -> None:
        self.row = row
        self.landed = False
        self.failed = False

    def done(self) -> bool:
        return self.landed or self.failed

    def error(self) -> Exception | None:
        return OSError("given up") if self.failed else None


class SlowStore:
    """One worker's way to the shared topic: what it publishes waits until the test lets it land."""

    def __init__(self, topic: MemoryStateStore) -> None:
        self._topic = topic
        self.waiting: deque[Pending] = deque()
        self.late: Sequence[Pending] = ()

    def load(self, partition: int) -> Loaded:
        return self._topic.load(partition)

    def publish(self, partition: int, rows: Sequence[Row]) -> Sequence[Pending]:
        sent = [Pending(row) for row in rows]
        self.waiting += sent
        return sent

    def land(self, number: int) -> None:
        for _ in range(min(number, len(self.waiting))):
            pending = self.waiting.popleft()
            self._topic.append(0, *pack(pending.row))
            pending.landed = not pending.failed

    def give_up(self, chance: random.Random) -> None:
        """A producer built anew. What the old one sent may be lost from some row on, or land behind the new one's."""
        for pending in self.waiting:
            pending.failed = True
        kept = list(self.waiting)[: chance.randint(0, len(self.waiting))]
        self.waiting.clear()
        self.late = kept

    def land_late(self) -> None:
        for pending in self.late:
            self._topic.append(0, *pack(pending.row))
        self.late = ()

    def close(self) -> None: ...


class Worker:
    def __init__(self, plant: Plant) -> None:
        self.plant, self.store = plant, SlowStore(plant.topic)
        self.entities, self.states = Entities(), fresh()
        self.snapshotter = Snapshotter(
            self.store, self.entities, 1.0, draw_owner=lambda: plant.chance.getrandbits(64), slice_bytes=1000
        )
        self.restored: Restored | None = None
        self.position, self.committed = 0, -1

    def start(self) -> None:
        committed, note = self.plant.committed
        restored = self.restored = self.snapshotter.restore(0, committed, note, 0, self.states.layout)
        starts = {}
        for name, row in restored.rows.items():
            code = self.entities.code(0, name)
            self.states.reserve(self.entities.capacity)
            starts[name] = row.next_offset
            if row.data is not None:
                self.states.load(code, row.data)
        for offset in range(restored.replay_from, committed):
            if offset >= starts.get(self.plant.log[offset], restored.others_from):
                self.take(offset)
        self.position = self.committed = committed

    def take(self, offset: int) -> None:
        code = self.entities.code(0, self.plant.log[offset])
        self.states.reserve(self.entities.capacity)
        take_in(self.states, code, offset)
        self.snapshotter.touch(np.array([code], np.int32))

    def work(self, readings: int) -> None:
        for offset in range(self.position, min(self.position + readings, len(self.plant.log))):
            self.take(offset)
            self.position = offset + 1
        if self.plant.owner is self:            # the coordinator refuses all others
            self.plant.committed = self.position, self.snapshotter.note(0)
            self.committed = self.position

    def snapshot(self) -> None:
        if self.position == self.committed:
            self.snapshotter.begin(0, self.committed, self.states, "0" * 64)

    def forget(self) -> None:
        silent = [
            name for name, code in self.entities.of_partition(0).items()
            if self.position - self.states["last"][code] > FORGET_AFTER
        ]
        codes = [self.entities.code(0, name) for name in silent]
        self.states.reset(codes)
        self.entities.release(codes)
        self.snapshotter.forget(0, silent)

    def remembers(self) -> dict[str, tuple[int, int]]:
        return {
            name: (int(self.states["past"][code]), int(self.states["last"][code]))
            for name, code in self.entities.of_partition(0).items()
            if self.states["last"][code] >= 0
        }


class Plant:
    """The input, the group's committed offset, and the state topic: what outlives a worker."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        names = [f"pump-{i}" for i in range(12)] + [f"visitor-{i}" for i in range(200)]
        weights = [2.0 ** -(i // 2) for i in range(12)] + [0.01] * 200      # some are seldom heard of
        self.log = self.chance.choices(names, weights, k=1500)
        self.topic = MemoryStateStore()
        self.committed = 0, ""
        self.owner = Worker(self)
        self.workers = [self.owner]
        self.owner.start()
        self.seen: Counter[str] = Counter()

    def take_over(self) -> None:
        self.owner = Worker(self)
        self.owner.start()
        self.workers = [*self.workers[-3:], self.owner]
        self.check()

    def purge(self) -> None:
        """What a broker does a day later: tombstones go, once they hide nothing and no worker is asleep any more."""
        if len(self.workers) == 1 and not self.owner.store.late:
            self.topic.compact(0)
            committed, note = self.committed
            needed = restore(self.topic.load(0), note, committed, 0, fresh().layout, 0).rows
            log = self.topic.logs[0]
            self.topic.logs[0] = [r for r in log if r.value is not None or (r.key or b"").decode() in needed]

    def check(self) -> None:
        committed, restored = self.owner.committed, self.owner.restored
        assert restored is not None
        assert not restored.lost
        self.seen.update(late=restored.late, takeovers=1, rows=len(restored.rows))
        undisturbed, codes = fresh(), Entities()
        for offset in range(committed):
            code = codes.code(0, self.log[offset])
            undisturbed.reserve(codes.capacity)
            take_in(undisturbed, code, offset)
        found = self.owner.remembers()
        for name, code in codes.of_partition(0).items():
            past, last = int(undisturbed["past"][code]), int(undisturbed["last"][code])
            if name in found or committed - last <= FORGET_AFTER:
                assert found.get(name) == (past, last), name

    def live(self, steps: int) -> None:
        chance = self.chance
        for _ in range(steps):
            worker = chance.choice([self.owner, *self.workers])
            what = chance.random()
            if what < 0.30:
                if worker is self.owner or chance.random() < 0.2:       # those asleep mostly stay where they were
                    worker.work(chance.randint(1, 25))
            elif what < 0.45:
                worker.snapshot()
            elif what < 0.75:
                worker.store.land(chance.choice([1, 2, 50]))
                worker.snapshotter.settle()
                while worker.store.waiting and chance.random() < 0.9:
                    worker.store.land(50)
                    worker.snapshotter.settle()
            elif what < 0.80:
                worker.store.give_up(chance)
                self.seen.update(failed=len(worker.snapshotter.settle()))
            elif what < 0.84:
                worker.store.land_late()
            elif what < 0.90:
                self.topic.compact(0, chance.choice([None, chance.randint(0, 400)]))
            elif what < 0.94:
                worker.forget()
            elif what < 0.97:
                self.take_over()
            elif what < 0.98:
                self.workers = [self.owner]                             # the others die
            else:
                self.purge()
        self.take_over()


@pytest.mark.parametrize("seed", range(40))
def test_the_next_owner_knows_what_an_undisturbed_one_would(seed: int) -> None:
    Plant(seed).live(400)


def test_the_dangers_did_occur() -> None:
    seen: Counter[str] = Counter()
    for seed in range(15):
        plant = Plant(seed)
        plant.live(400)
        seen += plant.seen
    assert min(seen[what] for what in ("late", "failed", "rows", "takeovers")) > 20, seen
