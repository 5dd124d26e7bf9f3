"""The records of a batch as columns: the same as one by one, or left to that."""

from __future__ import annotations

import tracemalloc
from contextlib import AbstractContextManager
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.worker.record_batches import Content, Kind, batch_of, contents, fetched, kinds, signed
from worker.errors import StreamError
from worker.kafka import framing
from worker.kafka.batches import RecordBatch, parts
from worker.kafka.framing import framed
from worker.kafka.rawfetch import WholeBatches

Row = tuple[int, int, bytes | None, bytes | None]


def opened(raw: bytes, fetch_offset: int = 0) -> list[RecordBatch]:
    return list(fetched(WholeBatches, raw, fetch_offset=fetch_offset).take(None))


def one_by_one(batch: RecordBatch) -> list[Row] | str:
    try:
        return [part[:4] for part in parts(batch)]
    except StreamError as error:
        return str(error)


def as_columns(batch: RecordBatch, least: int = 1) -> list[Row] | str | None:
    try:
        with mock.patch.object(framing, "LEAST", least):
            found = framed(batch)
    except StreamError as error:
        return str(error)
    if found is None:
        return None
    columns = found.offset_R.tolist(), found.timestamp_ms_R.tolist(), found.keys, found.values
    return list(zip(*columns, strict=True))


@settings(max_examples=200, deadline=None)
@given(st.lists(contents, min_size=1, max_size=12), kinds, st.integers(0, 30))
def test_columns_are_the_records(some: list[Content], kind: Kind, fetch_offset: int) -> None:
    raw, _ = batch_of(some, 5, kind)
    spread_ms = max(content.timestamp for content in some) - min(content.timestamp for content in some)
    dated = kind.magic > 0 and spread_ms < 2**33
    plain = dated and fetch_offset <= 5 and not any(content.headers for content in some)
    for batch in opened(raw, fetch_offset):
        found = as_columns(batch)
        assert found == one_by_one(batch) or (found is None and not plain)


@settings(max_examples=300, deadline=None)
@given(st.lists(contents.map(lambda c: c._replace(headers=[])), min_size=1, max_size=6), st.data())
def test_a_broken_batch_is_as_broken(some: list[Content], data: st.DataObject) -> None:
    """The CRC holds, the records do not."""
    raw = bytearray(batch_of(some, 0)[0])
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(57, len(raw) - 1))] = data.draw(st.integers(0, 255))
    for batch in opened(signed(bytes(raw[: len(raw) - data.draw(st.integers(0, 4))]))):
        assert as_columns(batch) in (one_by_one(batch), None)


@pytest.mark.parametrize("size", [0, 31, 63, 64, 200, 8_150])
def test_records_of_any_size(size: int) -> None:
    """Numbers of one byte, and of more."""
    (batch,) = opened(batch_of([Content(2**41 + size * n, b"k" * n, b"v" * size) for n in range(3)], 0)[0])
    with without_a_walk():
        assert as_columns(batch) == one_by_one(batch)


def test_plain_batches_go_at_once() -> None:
    plain = [Content(1_000 + n, b"pump-1", b"{}" * n) for n in range(framing.LEAST)]
    (large,), (small,) = opened(batch_of(plain, 0)[0]), opened(batch_of(plain[1:], 0)[0])
    with without_a_walk():
        assert as_columns(large, framing.LEAST) == one_by_one(large)
        with pytest.raises(AssertionError, match="walked"):
            framed(small)


def test_a_large_record_is_left_to_the_walk() -> None:
    (batch,) = opened(batch_of([Content(1_000, None, b"v" * 8_192)] * 3, 0)[0])
    assert as_columns(batch) is None


@pytest.mark.parametrize("least", [1, 128])
def test_all_records_lie_before_what_was_asked_for(least: int) -> None:
    """The batch's last offsets were compacted away."""
    (batch,) = opened(batch_of([Content(1_000, None, b"{}")] * 3, 0)[0])
    assert as_columns(batch._replace(from_offset=5), least) in ([], None)


@pytest.mark.parametrize("least", [1, 128])
@pytest.mark.parametrize("odd", [{"first_timestamp": 2**63 - 1}, {"base_offset": 2**63 - 1}, {"append_timestamp": -5}])
def test_numbers_do_not_wrap(odd: dict[str, int], least: int) -> None:
    contents = [Content(1_000 + n, None, b"{}") for n in range(3)]
    (batch,) = opened(batch_of(contents, 0)[0])
    batch = batch._replace(**odd)
    assert as_columns(batch, least) in (one_by_one(batch), None)


def test_nothing_is_copied_for_lengths_that_cannot_be() -> None:
    """Each key claims the rest of the batch."""
    claimed = 100_000
    record = bytes([0, 0, 0]) + varint(claimed) + b"k"
    data = (varint(len(record)) + record) * 20_000
    batch = opened(batch_of([Content(1_000, None, None)], 0)[0])[0]._replace(data=data, records=20_000)
    tracemalloc.start()
    try:
        assert isinstance(as_columns(batch), str | None)
        assert tracemalloc.get_traced_memory()[1] < 50 * len(data)
    finally:
        tracemalloc.stop()


def varint(value: int) -> bytes:
    """A number as records hold it, zigzag."""
    found, bits = bytearray(), value << 1
    while bits > 0x7F:
        found.append(bits & 0x7F | 0x80)
        bits >>= 7
    return bytes([*found, bits])


def without_a_walk() -> AbstractContextManager[object]:
    return mock.patch.object(framing, "parts", side_effect=AssertionError("walked"))
