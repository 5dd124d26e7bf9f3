"""The records of a batch as columns: the same as one by one, or left to that."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.worker.record_batches import Content, Kind, batch_of, contents, fetched, kinds, signed
from worker.kafka.batches import RecordBatch, parts
from worker.kafka.framing import NotPlain, framed
from worker.kafka.rawfetch import WholeBatches

Row = tuple[int, int, int, bytes | None, bytes | None]


def varint(value: int) -> bytes:
    """A number as records hold it, zigzag."""
    found, bits = bytearray(), value << 1
    while bits > 0x7F:
        found.append(bits & 0x7F | 0x80)
        bits >>= 7
    return bytes([*found, bits])


def opened(raw: bytes, fetch_offset: int = 0) -> list[RecordBatch]:
    return list(fetched(WholeBatches, raw, fetch_offset=fetch_offset).take(None))


def one_by_one(batch: RecordBatch) -> list[Row]:
    """Raises StreamError for one that is broken."""
    return [(batch.partition, *part[:4]) for part in parts(batch)]


def as_columns(*batches: RecordBatch) -> list[Row] | None:
    try:
        found = framed(batches)
    except NotPlain:
        return None
    return [(r.partition, r.offset, r.timestamp, r.key, r.value) for r in found.one_by_one()]


@settings(max_examples=200, deadline=None)
@given(st.lists(contents, min_size=1, max_size=12), kinds, st.integers(0, 30))
def test_columns_are_the_records(some: list[Content], kind: Kind, fetch_offset: int) -> None:
    raw, _ = batch_of(some, 5, kind)
    spread_ms = max(content.timestamp for content in some) - min(content.timestamp for content in some)
    dated = kind.magic > 0 and spread_ms < 2**33
    told = not any(content.headers or content.value is None for content in some)
    for batch in opened(raw, fetch_offset):
        found = as_columns(batch)
        assert found == one_by_one(batch) or (found is None and not (dated and told and fetch_offset <= 5))


told = contents.map(lambda content: content._replace(value=content.value or b"", headers=[]))
modest = st.tuples(st.lists(told, min_size=1), kinds.map(lambda kind: kind._replace(magic=2)), st.integers(0, 9))


@settings(max_examples=200, deadline=None)
@given(st.lists(modest, min_size=1, max_size=5))
def test_batches_together_are_the_batches(several: list[tuple[list[Content], Kind, int]]) -> None:
    batches, offset = [], 0
    for some, kind, partition in several:
        raw, offset = batch_of(some, offset, kind)
        batches += [batch._replace(partition=partition) for batch in opened(raw)]
    each = [as_columns(batch) for batch in batches]
    together = as_columns(*batches)
    assert together == (None if None in each else [row for rows in each for row in rows or ()])


@settings(max_examples=300, deadline=None)
@given(st.lists(contents.map(lambda c: c._replace(headers=[])), min_size=1, max_size=6), st.data())
def test_a_broken_batch_is_as_broken(some: list[Content], data: st.DataObject) -> None:
    """The CRC holds, the records do not. Among others, it is no other."""
    raw = bytearray(batch_of(some, 0)[0])
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(57, len(raw) - 1))] = data.draw(st.integers(0, 255))
    (whole,) = opened(batch_of([Content(1_000, b"k", b"{}")] * 3, 0)[0])
    for batch in opened(signed(bytes(raw[: len(raw) - data.draw(st.integers(0, 4))]))):
        alone, among = as_columns(batch), as_columns(whole, batch, whole)
        if alone is None:
            assert among is None
        else:
            assert alone == one_by_one(batch)
            assert among == [*one_by_one(whole), *alone, *one_by_one(whole)]


@pytest.mark.parametrize("size", [0, 31, 63, 64, 200, 8_150])
def test_records_of_any_size(size: int) -> None:
    """Numbers of one byte, and of more."""
    (batch,) = opened(batch_of([Content(2**41 + size * n, b"k" * n, b"v" * size) for n in range(3)], 0)[0])
    assert as_columns(batch) == one_by_one(batch)


def test_a_large_record_is_left_to_the_walk() -> None:
    (batch,) = opened(batch_of([Content(1_000, None, b"v" * 8_192)] * 3, 0)[0])
    assert as_columns(batch) is None


def test_a_batch_that_the_broker_stamped_among_those_that_it_did_not() -> None:
    contents = [Content(1_000 + n, None, b"{}") for n in range(3)]
    (batch,) = opened(batch_of(contents, 0)[0])
    rows = as_columns(batch, batch._replace(append_timestamp=5), batch)
    assert rows is not None
    assert [row[2] for row in rows] == [1_000, 1_001, 1_002, 5, 5, 5, 1_000, 1_001, 1_002]


def test_all_records_lie_before_what_was_asked_for() -> None:
    """The batch's last offsets were compacted away."""
    (batch,) = opened(batch_of([Content(1_000, None, b"{}")] * 3, 0)[0])
    assert as_columns(batch._replace(from_offset=5)) is None


@pytest.mark.parametrize("odd", [{"first_timestamp": 2**63 - 1}, {"base_offset": 2**63 - 1}, {"append_timestamp": -5}])
def test_numbers_do_not_wrap(odd: dict[str, int]) -> None:
    contents = [Content(1_000 + n, None, b"{}") for n in range(3)]
    (batch,) = opened(batch_of(contents, 0)[0])
    assert as_columns(batch._replace(**odd)) is None


@pytest.mark.parametrize(
    ("record", "claimed"),
    [
        (b"\0\0\0" + varint(100_000) + b"k", 20_000),        # each key claims the rest of the batch
        (b"", 96),                                            # nothing but records of no bytes, few of them claimed
        (b"", 20_000 * 8),
    ],
)
def test_little_is_made_of_what_cannot_be(record: bytes, claimed: int) -> None:
    data = (varint(len(record)) + record) * 20_000 * (1 if record else 8)
    batch = opened(batch_of([Content(1_000, None, None)], 0)[0])[0]._replace(data=data, records=claimed)
    tracemalloc.start()
    try:
        assert as_columns(batch) is None
        assert tracemalloc.get_traced_memory()[1] < (50 * len(data) if record else 10_000)
    finally:
        tracemalloc.stop()
