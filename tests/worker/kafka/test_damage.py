"""Record batches that are damaged where they lie: fetched again, then told of and passed over; good ones are not."""

from __future__ import annotations

import functools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.worker.record_batches import TP, Content, batch_of, fetched
from worker.kafka import damage
from worker.kafka.batches import RecordBatch, next_offsets, walk
from worker.kafka.damage import Damage, DamagedBatch
from worker.kafka.rawfetch import WholeBatches

CONTENT = Content(1_000, b"pump-1", b"{}")


def damaged_log(where: int = -1) -> tuple[bytes, int, int]:
    """Three batches, the second with a byte flipped; the second's first offset and the third's."""
    first, second_at = batch_of([CONTENT] * 2, 0)
    second, third_at = batch_of([CONTENT] * 3, second_at)
    third, _ = batch_of([CONTENT] * 2, third_at)
    bad = bytearray(second)
    bad[where] ^= 1
    return first + bytes(bad) + third, second_at, third_at


def tolerant(tries: int) -> Any:
    return functools.partial(WholeBatches, damage=Damage(tries))


@pytest.mark.parametrize("where", [-1, 18, 26, 30, 60])
def test_damage_is_told_of_and_passed_over(where: int) -> None:
    """Of the last byte, the checksum, the number of offsets, a time stamp, the number of records."""
    raw, second_at, third_at = damaged_log(where)
    taken = list(fetched(tolerant(1), raw).take(None))
    assert places(taken) == [(0, 2, 2), (2, 5, 0), (5, 7, 2)]
    (refusal,) = damage.refusals(taken)
    assert (refusal.code, refusal.record.offset, refusal.record.partition) == ("corrupt_batch", second_at, TP.partition)
    assert refusal.record.headers == [("source.last_offset", str(third_at - 1).encode())]
    assert f"offsets {second_at} to {third_at - 1}" in refusal.message
    assert [r.offset for batch in taken for r in walk(batch)] == [0, 1, 5, 6]
    assert next_offsets(taken) == {TP.partition: 7}


def test_damage_is_fetched_again_before_it_is_passed_over() -> None:
    raw, second_at, _ = damaged_log()
    part = tolerant(3)
    for _ in range(2):
        with pytest.raises(DamagedBatch, match=f"offset {second_at}"):
            fetched(part, raw, fetch_offset=second_at).take(1)
    (batch,) = fetched(part, raw, fetch_offset=second_at).take(1)
    assert batch.damage


def test_what_a_damaged_head_says_is_not_believed() -> None:
    """At the end of the log, with a number of offsets that its number of records denies: one offset at a time."""
    raw = bytearray(batch_of([CONTENT] * 3, 4)[0])
    raw[24] ^= 1                        # 65,536 offsets more
    (batch,) = fetched(tolerant(1), bytes(raw), fetch_offset=4).take(1)
    assert (batch.base_offset, batch.next_offset) == (4, 5)


def places(taken: list[RecordBatch]) -> list[tuple[int, int, int]]:
    return [(batch.base_offset, batch.next_offset, batch.records) for batch in taken]


@pytest.mark.parametrize("back", [1, 3, 9])
def test_a_first_offset_that_leads_back(back: int) -> None:
    """Into the batch before, to its beginning, and before all that was asked for; the CRC holds."""
    first, second_at = batch_of([CONTENT] * 3, 10)
    wrong, _ = batch_of([CONTENT] * 3, second_at - back)
    third, _ = batch_of([CONTENT], second_at + 3)
    taken = list(fetched(tolerant(1), first + wrong + third, fetch_offset=10).take(None))
    assert places(taken) == [(10, 13, 3), (13, 16, 0), (16, 17, 1)]
    (refusal,) = damage.refusals(taken)
    assert (refusal.code, refusal.record.offset) == ("corrupt_batch", 13)
    assert "leads back" in refusal.message
    # The last one of a response: its number of records says how far it reached.
    (_, last) = fetched(tolerant(1), first + wrong, fetch_offset=10).take(None)
    assert (last.base_offset, last.next_offset, bool(last.damage)) == (13, 16, True)


def test_what_leads_back_is_told_of_where_the_broker_does_not_give_it_again() -> None:
    """It looks for an offset by first offsets: asked for 13, it goes on behind what says that it is of 4."""
    first, second_at = batch_of([CONTENT] * 3, 10)
    wrong, _ = batch_of([CONTENT] * 3, 4)
    third, _ = batch_of([CONTENT], second_at + 3)
    kind = tolerant(4)
    part = fetched(kind, first + wrong + third, fetch_offset=10)
    assert places(list(part.take(None))) == [(10, 13, 3)]
    with pytest.raises(DamagedBatch, match=r"offset 13.*leads back"):
        part.take(None)
    taken = list(fetched(kind, third, fetch_offset=13).take(None))
    assert places(taken) == [(13, 16, 0), (16, 17, 1)]
    (refusal,) = damage.refusals(taken)
    assert refusal.record.headers == [("source.last_offset", b"15")]


def test_what_leads_back_in_one_copy_and_not_in_the_next_is_read() -> None:
    first, _ = batch_of([CONTENT] * 3, 10)
    second, second_at = batch_of([CONTENT] * 3, 13)
    kind = tolerant(4)
    part = fetched(kind, first + b"\0" * 8 + second[8:], fetch_offset=10)
    part.take(None)
    with pytest.raises(DamagedBatch):
        part.take(None)
    assert places(list(fetched(kind, second, fetch_offset=13).take(None))) == [(13, second_at, 3)]


def test_older_batches_before_the_offset_that_was_asked_for_are_no_damage() -> None:
    raw = b"".join(batch_of([CONTENT] * 3, offset)[0] for offset in (10, 13, 16, 19))
    taken = list(fetched(tolerant(1), raw, fetch_offset=17).take(None))
    assert [r.offset for batch in taken for r in walk(batch)] == [17, 18, 19, 20, 21]
    assert damage.refusals(taken) == []


def test_a_batch_behind_a_hole_is_right_where_the_next_leads_back() -> None:
    """Compaction leaves holes."""
    raw = b"".join(batch_of([CONTENT] * 3, offset)[0] for offset in (10, 20, 4, 26))
    taken = list(fetched(tolerant(1), raw, fetch_offset=10).take(None))
    assert places(taken) == [(10, 13, 3), (20, 23, 3), (23, 26, 0), (26, 29, 3)]


@pytest.mark.parametrize("far", [1, 2**40, 2**60])
def test_a_first_offset_that_leads_past_what_waits(far: int) -> None:
    """Into the next batch, or beyond all that there is; the CRC holds."""
    first, second_at = batch_of([CONTENT] * 2, 10)
    second, third_at = batch_of([CONTENT] * 3, second_at)
    wrong = (int.from_bytes(second[:8], "big") + 3 * far).to_bytes(8, "big") + second[8:]
    third, end = batch_of([CONTENT], third_at)
    taken = list(fetched(tolerant(1), first + wrong + third, fetch_offset=10).take(None))
    assert places(taken) == [(10, 12, 2), (12, 15, 0), (15, 16, 1)]
    # The last one of a response: what waits behind it is known by where the partition ends.
    part = functools.partial(WholeBatches, damage=Damage(1), end_of=lambda _: end)
    if far > 1:
        (one, other) = fetched(part, first + wrong, fetch_offset=10).take(None)
        assert (one.next_offset, other.base_offset, other.next_offset, other.records) == (12, 12, 15, 0)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 20), min_size=2, max_size=6), st.integers(0, 40), st.data())
def test_no_reading_is_lost_in_silence_nor_under_anothers_offset(
    sizes: list[int], start: int, data: st.DataObject
) -> None:
    """One bit of a first offset is wrong, of any batch that is not the first."""
    batches, offset = [], start
    for size in sizes:
        raw, offset = batch_of([Content(1_000, b"k", b"%d" % (offset + n)) for n in range(size)], offset)
        batches.append(bytearray(raw))
    bit = data.draw(st.integers(0, 62))
    batches[data.draw(st.integers(1, len(sizes) - 1))][7 - bit // 8] ^= 1 << bit % 8
    part = functools.partial(WholeBatches, damage=Damage(1), end_of=lambda _: offset)
    taken = list(fetched(part, b"".join(batches), fetch_offset=start).take(None))
    read = {record.offset: int(record.value or b"") for batch in taken for record in walk(batch)}
    told = {at for batch in taken if batch.damage for at in range(batch.base_offset, batch.next_offset)}
    assert all(at == value for at, value in read.items())
    assert sorted([*read, *told]) == list(range(start, offset))
    assert told


def test_what_came_while_the_broker_told_its_end_is_no_damage() -> None:
    """It tells where the partition ended before it read."""
    raw = b"".join(batch_of([CONTENT] * 3, offset)[0] for offset in (10, 13))
    part = functools.partial(WholeBatches, damage=Damage(1), end_of=lambda _: 13)
    taken = list(fetched(part, raw, fetch_offset=10).take(None))
    assert places(taken) == [(10, 13, 3), (13, 16, 3)]
