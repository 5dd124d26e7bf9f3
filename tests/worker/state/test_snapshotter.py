"""Which partition is due, which rows go, and what may be said when."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from worker.entities import Entities
from worker.kafka.sink import Failed
from worker.memory import MemoryStateStore
from worker.state.restore import Restored
from worker.state.snapshots import Row, Stand, unpack
from worker.state.snapshotter import Snapshotter
from worker.state.state import Column, States

MODEL = "ab" * 32


class World:
    """A worker's memory and its state topic; time passes when told to."""

    def __init__(self, store: MemoryStateStore | None = None) -> None:
        self.store = store or MemoryStateStore()
        self.entities, self.states = Entities(), States([Column("count", "<i8")])
        self.now = 0.0
        owners = iter(range(1, 100))
        self.snapshotter = Snapshotter(
            self.store, self.entities, 60.0, clock=lambda: self.now, draw_owner=lambda: next(owners)
        )

    def hold(self, partition: int, committed: int = 0, note: str = "") -> Restored:
        return self.snapshotter.restore(partition, committed, note, 0, self.states.layout)

    def read(self, partition: int, *names: str) -> None:
        codes = np.array([self.entities.code(partition, name) for name in names], np.int32)
        self.states.reserve(self.entities.capacity)
        self.states["count"][codes] += 1
        self.snapshotter.touch(codes)

    def snapshot(self, partition: int, offset: int) -> dict[str, int | None]:
        """The new records: name → its row's content, None for a tombstone."""
        before = self.store.load(partition).end
        self.snapshotter.begin(partition, offset, self.states, MODEL)
        self.snapshotter.settle()
        rows = [unpack(record) for record in self.store.load(partition).records if record.offset >= before]
        assert {row.next_offset for row in rows} <= {offset}
        assert {row.model for row in rows} <= {MODEL[:16]}
        return {row.name: int.from_bytes(row.data, "little") if row.data else None for row in rows}


class Later:
    """An answer that has not come yet."""

    def __init__(self) -> None:
        self.answer: Failed | None = None
        self.came = False

    def done(self) -> bool:
        return self.came

    def error(self) -> Exception | None:
        return self.answer.error() if self.answer else None


class SlowStore(MemoryStateStore):
    def __init__(self) -> None:
        super().__init__()
        self.receipts: list[Later] = []

    def publish(self, partition: int, rows: list[Row]) -> list[Later]:      # type: ignore[override]
        super().publish(partition, rows)
        sent = [Later() for _ in rows]
        self.receipts += sent
        return sent


def test_a_snapshot_holds_what_changed_since_the_last() -> None:
    world = World()
    world.hold(0)
    world.read(0, "a", "b", "a")
    assert world.snapshot(0, 3) == {"a": 1, "b": 1}         # one batch: numpy counts a code once
    assert world.snapshot(0, 3) == {}
    world.read(0, "b", "c")
    assert world.snapshot(0, 5) == {"b": 2, "c": 1}


def test_partitions_are_apart() -> None:
    world = World()
    world.hold(0)
    world.hold(1)
    world.read(0, "a")
    world.read(1, "a", "b")
    assert world.snapshot(1, 2) == {"a": 1, "b": 1}
    assert world.snapshot(0, 1) == {"a": 1}


def test_many_entities() -> None:
    world = World()
    world.hold(0)
    names = [f"pump-{i}" for i in range(1000)]
    world.read(0, *names)
    assert world.snapshot(0, 1000) == dict.fromkeys(names, 1)
    world.read(0, *names[::100])
    assert world.snapshot(0, 1010) == dict.fromkeys(names[::100], 2)


def test_the_note_names_a_snapshot_only_when_all_of_it_is_acknowledged() -> None:
    store = SlowStore()
    world = World(store)
    world.hold(0, committed=7)
    empty = world.snapshotter.note(0)
    assert Stand.read(empty) == Stand(7, 1, 1, 0, store.topic_id)
    world.read(0, "a", "b")
    promised = world.snapshotter.begin(0, 9, world.states, MODEL)
    store.receipts[1].came = True
    assert world.snapshotter.settle() == []
    assert world.snapshotter.note(0) == empty
    assert world.snapshotter.busy
    store.receipts[0].came = True
    world.now = 2.5
    (settled,) = world.snapshotter.settle()
    assert settled == (0, 2, 16, 2.5, None)
    assert not world.snapshotter.busy
    assert Stand.read(world.snapshotter.note(0)) == promised == Stand(9, 1, 1, 0, store.topic_id)


def test_what_changes_while_a_snapshot_is_on_its_way_is_in_the_next() -> None:
    store = SlowStore()
    world = World(store)
    world.hold(0)
    world.read(0, "a", "b")
    world.snapshotter.begin(0, 2, world.states, MODEL)
    world.read(0, "a")
    world.snapshotter.forget(0, ["b"])
    world.entities.release([world.entities.code(0, "b")])
    for receipt in store.receipts:
        receipt.came = True
    world.snapshotter.settle()
    assert world.snapshot(0, 3) == {"a": 2, "b": None}


def test_one_at_a_time() -> None:
    world = World(SlowStore())
    world.hold(0)
    world.read(0, "a")
    assert world.snapshotter.begin(0, 1, world.states, MODEL) is not None
    assert world.snapshotter.begin(0, 1, world.states, MODEL) is None
    assert world.snapshotter.begin(5, 1, world.states, MODEL) is None       # not ours


def test_a_dropped_entity_becomes_a_tombstone_unless_it_is_back() -> None:
    world = World()
    world.hold(0)
    world.read(0, "a", "b", "c")
    world.snapshot(0, 3)
    codes = [world.entities.code(0, name) for name in ("a", "b")]
    world.snapshotter.forget(0, ["a", "b"])
    world.states.reset(codes)
    world.entities.release(codes)
    world.read(0, "b")
    assert world.snapshot(0, 4) == {"a": None, "b": 1}
    assert world.snapshot(0, 4) == {}


def test_due_by_the_clock_the_longest_first() -> None:
    world = World(SlowStore())
    snapshotter = world.snapshotter
    world.hold(0)
    world.now = 5.0
    world.hold(1)
    world.read(1, "a")
    assert snapshotter.due() is None
    world.now = 64.0
    assert snapshotter.due() == 0
    snapshotter.begin(0, 0, world.states, MODEL)
    assert snapshotter.due() is None
    world.now = 65.0
    assert snapshotter.due() == 1
    snapshotter.begin(1, 1, world.states, MODEL)
    world.now = 1000.0
    snapshotter.settle()                                    # that of 0, which was empty
    assert snapshotter.due() == 0
    snapshotter.release(0)
    assert snapshotter.due() is None                        # that of 1 is on its way


def test_a_new_layout_has_everything_written_at_once() -> None:
    store = SlowStore()
    world = World(store)
    world.hold(0)
    world.read(0, "a", "b")
    world.snapshotter.begin(0, 2, world.states, MODEL)
    world.snapshotter.rewrite_all()                         # while the other is still on its way
    for receipt in store.receipts:
        receipt.came = True
    world.snapshotter.settle()
    assert world.snapshotter.due() == 0
    assert world.snapshot(0, 2) == {"a": 1, "b": 1}


def test_after_a_failure_everything_is_written_again_by_a_new_owner() -> None:
    world = World()
    world.hold(0)
    world.read(0, "a", "b", "c")
    world.snapshot(0, 3)
    stand = world.snapshotter.note(0)
    world.store._refusals = [OSError("full")]
    world.snapshotter.forget(0, ["c"])
    world.entities.release([world.entities.code(0, "c")])
    world.read(0, "a")
    world.snapshotter.begin(0, 4, world.states, MODEL)
    (settled,) = world.snapshotter.settle()
    assert isinstance(settled.error, OSError)
    assert world.snapshotter.note(0) == stand               # the old one still holds
    world.now = 60.0
    assert world.snapshotter.due() == 0
    end = world.store.load(0).end
    assert world.snapshot(0, 5) == {"a": 2, "b": 1, "c": None}
    assert Stand.read(world.snapshotter.note(0)) == Stand(5, 1, 2, end, world.store.topic_id)


@pytest.fixture
def again() -> Callable[[World, int], tuple[World, Restored]]:
    """Another worker on the same topic."""

    def make(before: World, committed: int) -> tuple[World, Restored]:
        after = World(before.store)
        return after, after.hold(0, committed, before.snapshotter.note(0))

    return make


def test_the_next_worker_gets_the_rows(again: Callable[[World, int], tuple[World, Restored]]) -> None:
    world = World()
    world.hold(0)
    world.read(0, "a", "b")
    world.read(0, "a")
    world.snapshot(0, 3)
    _, restored = again(world, 8)
    assert (restored.replay_from, restored.others_from) == (3, 3)
    states = States([Column("count", "<i8")])
    for code, name in enumerate(("a", "b")):
        data = restored.rows[name].data
        assert data is not None
        states.load(code, data)
    assert states["count"][:2].tolist() == [2, 1]


def test_what_was_taken_over_need_not_be_written_again(again: Callable[[World, int], tuple[World, Restored]]) -> None:
    world = World()
    world.hold(0)
    world.read(0, "a", "b")
    world.snapshot(0, 2)
    after, restored = again(world, 2)
    for name in restored.rows:
        after.entities.code(0, name)
    after.read(0, "b")
    assert after.snapshot(0, 3).keys() == {"b"}


def test_leftovers_of_a_group_that_begins_afresh_are_dropped(
    again: Callable[[World, int], tuple[World, Restored]]
) -> None:
    world = World()
    world.hold(0)
    world.read(0, "a", "b")
    world.snapshot(0, 2)
    after = World(world.store)
    assert "names no snapshot" in after.hold(0, committed=1, note="").afresh     # a tool has moved the group back
    after.read(0, "b")
    assert after.snapshot(0, 2) == {"a": None, "b": 1}
    _, restored = again(after, 2)
    assert restored.rows.keys() == {"b"}
    assert not restored.lost


def test_a_partition_that_is_not_ours_has_no_note() -> None:
    world = World()
    world.hold(0)
    world.snapshotter.release(0)
    assert world.snapshotter.note(0) == ""
    world.snapshotter.forget(0, ["a"])
    assert world.snapshotter.begin(0, 1, world.states, MODEL) is None
