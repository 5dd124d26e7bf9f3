"""Whole record batches instead of records: the same records, offsets and errors as kafka-python's own way."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka.errors import CorruptRecordError, UnsupportedCodecError

from tests.worker.record_batches import Content, Kind, batch_of, fetched, logs, marker_of, signed, stock
from worker.errors import StreamError
from worker.kafka import rawfetch
from worker.kafka.batches import walk
from worker.kafka.rawfetch import WholeBatches

CONTENT = Content(1_000, b"pump-1", b"{}")


def by_record(part: Any, at_once: int) -> tuple[list[tuple[object, ...]], str | None]:
    """Everything that kafka-python gives, and the error that ends it."""
    found: list[tuple[object, ...]] = []
    try:
        while part:
            found += [(r.offset, r.timestamp, r.key, r.value, list(r.headers)) for r in part.take(at_once)]
    except Exception as error:          # stock lets the codecs' own errors through
        return found, type(error).__name__
    return found, None


def by_batch(part: Any, at_once: int) -> tuple[list[tuple[object, ...]], str | None]:
    found: list[tuple[object, ...]] = []
    try:
        while part:
            for batch in part.take(at_once):
                found += [(r.offset, r.timestamp, r.key, r.value, list(r.headers)) for r in walk(batch)]
    except (CorruptRecordError, UnsupportedCodecError, StreamError) as error:
        return found, type(error).__name__
    return found, None


def as_stock_says(records: list[tuple[object, ...]]) -> list[tuple[object, ...]]:
    """Messages of format v0 have no time; -1 is Kafka's word for it."""
    return [(offset, -1 if stamp is None else stamp, *rest) for offset, stamp, *rest in records]


def forward(records: list[tuple[object, ...]]) -> list[tuple[object, ...]]:
    """Stock goes back where damage tells it to: no checksum covers a batch's first offset in the old formats' heads."""
    found: list[tuple[object, ...]] = []
    for record in records:
        if int(str(record[0])) > (int(str(found[-1][0])) if found else -1):
            found.append(record)
    return found


@settings(max_examples=120, deadline=None)
@given(logs(), st.integers(0, 70), st.booleans(), st.integers(1, 9), st.integers(0, 40))
def test_the_same_records_as_stock(
    log: tuple[bytes, int, list[tuple[int, int]]], start: int, committed: bool, at_once: int, cut: int
) -> None:
    raw, _, aborted = log
    raw = raw[: len(raw) - cut]         # a response ends in the middle of a batch
    asked = {"fetch_offset": start, "aborted": aborted, "committed": committed}
    theirs, ours = stock(raw, **asked), fetched(WholeBatches, raw, **asked)
    expected, error = by_record(theirs, at_once)
    assert by_batch(ours, at_once) == (as_stock_says(expected), error)
    assert ours.next_fetch_offset == max(theirs.next_fetch_offset, start)
    assert ours.leader_epoch == theirs.leader_epoch


def first_offsets(raw: bytes) -> list[int]:
    """As the heads say them."""
    found = []
    while len(raw) > 16:
        found.append(int.from_bytes(raw[:8], "big", signed=True))
        raw = raw[12 + int.from_bytes(raw[8:12], "big") :]
    return found


@settings(max_examples=100, deadline=None)
@given(logs(), st.data())
def test_damage_is_found_where_stock_finds_it(
    log: tuple[bytes, int, list[tuple[int, int]]], data: st.DataObject
) -> None:
    raw = bytearray(log[0])
    raw[data.draw(st.integers(17, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    expected, error = by_record(stock(bytes(raw)), 100)
    found, ours = by_batch(fetched(WholeBatches, bytes(raw)), 100)
    there = forward(as_stock_says(expected))
    if error is None and ours is not None:          # stock believes first offsets that contradict each other
        assert any(later <= base for base, later in pairwise(first_offsets(bytes(raw))))
        return
    assert (ours is None) == (error is None)
    assert found == there[: len(found)]
    assert error or found == there


@settings(max_examples=120, deadline=None)
@given(st.lists(st.builds(Content, st.integers(0, 2**40), st.none() | st.binary(max_size=3), st.binary(max_size=9)),
                min_size=1, max_size=4), st.data())
def test_batches_that_are_signed_and_wrong(contents: list[Content], data: st.DataObject) -> None:
    """What a faulty producer may write: the CRC holds, the records do not."""
    raw = bytearray(batch_of(contents, 5)[0])
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(57, len(raw) - 1))] = data.draw(st.integers(0, 255))     # 57: the count of records
    cut = data.draw(st.integers(0, 5))
    wrong = signed(bytes(raw[: len(raw) - cut]))
    expected, error = by_record(stock(wrong), 100)
    found, ours = by_batch(fetched(WholeBatches, wrong), 100)
    if error is None and ours is not None:
        # Stock takes numbers that no producer may write: of more than 64 bits, and offsets before the batch's own; what
        # lies before all offsets it leaves out.
        numbers = [(int(str(offset)), int(str(stamp))) for offset, stamp, *_ in expected]
        far = [not 5 <= offset < 5 + 2**31 or abs(stamp) >= 2**62 for offset, stamp in numbers]
        assert any(far) or len(far) < len(contents)
        return
    if error is not None and ours is None:
        assert "\ufffd" in str(found)           # stock stops at a header whose name is not UTF-8
        return
    assert (ours is None) == (error is None)
    assert error or found == expected


@pytest.mark.parametrize("codec", range(5))
def test_every_codec(codec: int) -> None:
    raw, end = batch_of([CONTENT] * 3, 10, Kind(codec=codec))
    part = fetched(WholeBatches, raw, fetch_offset=11)
    (batch,) = part.take(None)
    assert [record.offset for record in walk(batch)] == [11, 12]
    assert batch.next_offset == part.next_fetch_offset == end == 13


def test_a_codec_that_nobody_knows() -> None:
    raw = bytearray(batch_of([CONTENT], 0)[0])
    raw[22] |= 7
    with pytest.raises(UnsupportedCodecError):
        fetched(WholeBatches, signed(bytes(raw))).take(1)


def test_what_a_codec_cannot_read_is_damage() -> None:
    raw, _ = batch_of([CONTENT] * 50, 0, Kind(codec=4))
    with pytest.raises(CorruptRecordError, match="zstd"):
        fetched(WholeBatches, signed(raw[:61] + b"no frame of zstd")).take(1)


def test_an_aborted_transaction_is_passed_over_and_the_next_is_not() -> None:
    kind = Kind(producer_id=7, transactional=True)
    raw = b""
    offset = 0
    for abort in (True, False):
        more, offset = batch_of([CONTENT] * 2, offset, kind)
        marker, offset = marker_of(abort, 7, offset)
        raw += more + marker
    found, _ = by_batch(fetched(WholeBatches, raw, aborted=[(7, 0)]), 100)
    assert [record[0] for record in found] == [3, 4]


def test_good_batches_come_before_the_error() -> None:
    good, offset = batch_of([CONTENT] * 2, 0)
    bad = bytearray(batch_of([CONTENT], offset)[0])
    bad[-1] ^= 1
    part = fetched(WholeBatches, good + bytes(bad))
    assert len(part.take(100)) == 2
    with pytest.raises(CorruptRecordError, match="offset 2"):
        part.take(100)


def test_a_length_that_leads_nowhere() -> None:
    with pytest.raises(CorruptRecordError):
        fetched(WholeBatches, b"\0" * 8 + b"\xff\xff\xff\xf0" + b"\0" * 40).take(1)


def test_an_unknown_consumer_is_left_alone() -> None:
    class Other:
        pass

    assert not rawfetch.attach(Other())
