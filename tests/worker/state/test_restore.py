"""What the records of a state partition add up to; tests/worker/test_takeover.py has the long stories."""

from __future__ import annotations

import pytest

from worker.memory import MemoryStateStore
from worker.state.restore import REREAD_LIMIT, Restored, restore
from worker.state.snapshots import Row, Stand

LAYOUT, OTHER_LAYOUT, MODEL = "aa" * 8, "bb" * 8, "cc" * 8
LIFE, OWNER, BEFORE, SLEEPER, NEXT = 1, 2, 3, 4, 5


def row(name: str, next_offset: int, owner: int = OWNER, data: bytes | None = b"x", life: int = LIFE) -> Row:
    return Row(name, data, next_offset, life, owner, LAYOUT, MODEL)


class Topic(MemoryStateStore):
    """A snapshot of OWNER, which loaded the partition when it held what BEFORE had written."""

    def __init__(self, *before: Row) -> None:
        super().__init__()
        self.publish(0, before)
        self.log_start = len(before)

    def restored(
        self, at: int = 100, committed: int = 150, earliest: int = 0, topic_id: str = "0" * 32, note: str | None = None
    ) -> Restored:
        stand = Stand(at, LIFE, OWNER, self.log_start, topic_id)
        return restore(self.load(0), stand.note() if note is None else note, committed, earliest, LAYOUT, NEXT)


def test_of_many_versions_the_last_counts_compacted_or_not() -> None:
    topic = Topic()
    for at in range(10, 101, 10):
        topic.publish(0, [row(f"pump-{i}", at, data=bytes([i, at])) for i in range(20)])
    whole = topic.restored()
    assert {name: kept.data for name, kept in whole.rows.items()} == {f"pump-{i}": bytes([i, 100]) for i in range(20)}
    assert (whole.replay_from, whole.others_from, whole.late, whole.rewrite) == (100, 100, 0, set())
    topic.compact(0)
    assert len(topic.load(0).records) == 20
    assert topic.restored() == whole


def test_an_entity_silent_since_before_the_owner_keeps_its_row() -> None:
    topic = Topic(row("idle", 7, BEFORE))
    topic.publish(0, [row("busy", 100)])
    restored = topic.restored()
    assert restored.replay_from == 100
    assert {name: kept.next_offset for name, kept in restored.rows.items()} == {"idle": 7, "busy": 100}


def test_a_snapshot_cut_short_does_no_harm() -> None:
    topic = Topic()
    topic.publish(0, [row("a", 100), row("b", 100)])
    topic.publish(0, [row("a", 140)])                       # … and the worker died
    restored = topic.restored()
    assert restored.replay_from == 100
    assert {name: kept.next_offset for name, kept in restored.rows.items()} == {"a": 140, "b": 100}


def test_a_dropped_entity_is_gone() -> None:
    topic = Topic()
    topic.publish(0, [row("a", 90), row("a", 100, data=None)])
    assert topic.restored().rows == {}
    assert not topic.restored().lost


def test_an_entity_dropped_after_the_snapshot_takes_in_nothing_older() -> None:
    topic = Topic()
    topic.publish(0, [row("a", 90), row("a", 140, data=None)])
    assert topic.restored().rows == {"a": row("a", 140, data=None)}


@pytest.mark.parametrize("data", [b"old", None])
def test_a_late_record_is_believed_and_read_on_from(data: bytes | None) -> None:
    topic = Topic()
    topic.publish(0, [row("a", 100), row("b", 100)])
    topic.publish(0, [row("a", 60, SLEEPER, data)])
    restored = topic.restored()
    assert (restored.replay_from, restored.others_from, restored.late) == (60, 100, 1)
    assert restored.rows["a"] == row("a", 60, SLEEPER, data)
    assert restored.rows["b"].next_offset == 100


def test_a_late_record_from_the_snapshot_on_is_as_good_as_any() -> None:
    topic = Topic()
    topic.publish(0, [row("a", 100), row("a", 100, SLEEPER), row("b", 120, SLEEPER)])
    restored = topic.restored()
    assert (restored.replay_from, restored.late) == (100, 0)
    assert restored.rows["b"].next_offset == 120


@pytest.mark.parametrize(("at", "earliest"), [(REREAD_LIMIT + 61, 0), (100, 61)])
def test_a_late_record_from_too_far_back_costs_its_entity_the_state(at: int, earliest: int) -> None:
    topic = Topic()
    topic.publish(0, [row("a", 60, SLEEPER)])
    restored = topic.restored(at, committed=at, earliest=earliest)
    assert restored.rows == {}
    assert restored.lost == {"late": 1}
    assert restored.rewrite == {"a"}
    assert restored.replay_from == at


def test_a_damaged_record_costs_its_entity_the_state_and_no_other() -> None:
    topic = Topic()
    topic.publish(0, [row("a", 90), row("b", 90)])
    topic.append(0, b"a", b"whoever", [])
    topic.append(0, b"\xff\xfe", b"whoever", [])
    topic.append(0, None, b"whoever", [])
    restored = topic.restored()
    assert restored.rows.keys() == {"b"}
    assert restored.lost == {"damaged": 1}
    assert restored.rewrite == {"a"}


def test_rows_of_another_layout_are_no_use_and_written_again() -> None:
    topic = Topic()
    topic.publish(0, [row("a", 100)._replace(layout=OTHER_LAYOUT), row("b", 100)])
    restored = topic.restored()
    assert restored.rows.keys() == {"b"}
    assert restored.lost == {"layout": 1}
    assert restored.rewrite == {"a"}


def test_a_row_ahead_of_what_is_committed_is_not_used() -> None:
    topic = Topic()
    topic.publish(0, [row("a", 151), row("b", 150)])
    restored = topic.restored(committed=150)
    assert restored.rows.keys() == {"b"}
    assert restored.lost == {"ahead": 1}


def test_a_new_group_begins_without_a_word() -> None:
    restored = restore(MemoryStateStore().load(0), "", 40, 0, LAYOUT, NEXT)
    assert restored == Restored(Stand(40, NEXT, NEXT, 0, "0" * 32), 40, 40)


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"note": ""}, "names no snapshot"),
        ({"note": "set by hand"}, "names no snapshot"),
        ({"topic_id": "f" * 32}, "made anew"),
        ({"committed": 99}, "after the committed offset"),
        ({"earliest": 101}, "were deleted"),
    ],
)
def test_state_that_cannot_be_trusted_is_dropped_whole_and_the_reason_given(how: dict[str, object], why: str) -> None:
    topic = Topic(row("a", 90))
    topic.publish(0, [row("b", 100)])
    restored = topic.restored(**how)                        # type: ignore[arg-type]
    committed = how.get("committed", 150)
    assert why in restored.afresh
    assert (restored.rows, restored.replay_from, restored.others_from) == ({}, committed, committed)
    assert restored.rewrite == {"a", "b"}
    assert restored.stand == Stand(committed, NEXT, NEXT, 2, "0" * 32)      # type: ignore[arg-type]


def test_a_damaged_batch_costs_the_partition_its_state() -> None:
    topic = Topic(row("a", 90))
    stand = Stand(100, LIFE, OWNER, 1, "0" * 32)
    restored = restore(topic.load(0)._replace(unreadable=3), stand.note(), 150, 0, LAYOUT, NEXT)
    assert "3 offsets of the state topic are damaged" in restored.afresh


def test_rows_from_before_all_began_afresh_do_not_count() -> None:
    topic = Topic(row("a", 500, BEFORE, life=9))            # from when the group had been further on
    topic.publish(0, [row("b", 100)])
    restored = topic.restored(committed=1000)
    assert restored.rows.keys() == {"b"}
    assert restored.rewrite == {"a"}
    assert not restored.lost
    topic.publish(0, [row("b", 600, SLEEPER, life=9)])      # a sleeper of those times wakes
    restored = topic.restored(committed=1000)
    assert restored.rows == {}
    assert restored.lost == {"another_life": 1}
