"""The records of a batch as columns: at once the same as one by one, and the same errors."""

from __future__ import annotations

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


def as_columns(batch: RecordBatch, least: int = 1) -> list[Row] | str:
    try:
        with mock.patch.object(framing, "LEAST", least):
            found = framed(batch)
    except StreamError as error:
        return str(error)
    columns = found.offset_R.tolist(), found.timestamp_ms_R.tolist(), found.keys, found.values
    return list(zip(*columns, strict=True))


@settings(max_examples=200, deadline=None)
@given(st.lists(contents, min_size=1, max_size=12), kinds, st.integers(0, 30))
def test_columns_are_the_records(some: list[Content], kind: Kind, fetch_offset: int) -> None:
    raw, _ = batch_of(some, 5, kind)
    for batch in opened(raw, fetch_offset):
        assert as_columns(batch) == one_by_one(batch)


@settings(max_examples=300, deadline=None)
@given(st.lists(contents.map(lambda c: c._replace(headers=[])), min_size=1, max_size=6), st.data())
def test_a_broken_batch_is_as_broken(some: list[Content], data: st.DataObject) -> None:
    """The CRC holds, the records do not."""
    raw = bytearray(batch_of(some, 0)[0])
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(57, len(raw) - 1))] = data.draw(st.integers(0, 255))
    for batch in opened(signed(bytes(raw[: len(raw) - data.draw(st.integers(0, 4))]))):
        assert as_columns(batch) == one_by_one(batch)


@pytest.mark.parametrize("size", [0, 62, 63, 8_191, 8_192, 2_100_000])
def test_records_of_any_size(size: int) -> None:
    """Numbers of one byte, and of more."""
    (batch,) = opened(batch_of([Content(2**41 + size * n, b"k" * n, b"v" * size) for n in range(3)], 0)[0])
    assert as_columns(batch) == one_by_one(batch)


def test_plain_batches_go_at_once() -> None:
    """The others are walked, as the format says what is wrong with them."""
    plain = [Content(1_000 + n, b"pump-1", b"{}" * n) for n in range(framing.LEAST)]
    (large,), (small,) = opened(batch_of(plain, 0)[0]), opened(batch_of(plain[1:], 0)[0])
    with mock.patch.object(framing, "parts", side_effect=AssertionError("walked")):
        framed(large)
        with pytest.raises(AssertionError, match="walked"):
            framed(small)
    assert as_columns(large, framing.LEAST) == one_by_one(large)
