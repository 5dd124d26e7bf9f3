"""Whole Kafka record batches, undecoded, and their records one by one.

A batch of format v2 (Kafka protocol, "Record Batch") out of its codec is a run of records: length, attributes,
timestamp delta, offset delta, key, value, headers, all numbers zigzag varints.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from worker.errors import StreamError
from worker.records import PlainRecord, Record

MOST_RECORDS = 2**31 - 1                # of a batch: its count is an int32

Headers = Sequence[tuple[str, bytes | None]]
Part = tuple[int, int, bytes | None, bytes | None, Headers]     # offset, timestamp in ms, key, value, headers


class RecordBatch(NamedTuple):
    """What was fetched at once, checked and out of its codec."""

    partition: int
    base_offset: int
    first_timestamp: int                # ms since the epoch; each record says how much later it is
    append_timestamp: int | None        # of all records, where the broker stamps them
    records: int
    from_offset: int                    # records before it were not asked for
    data: bytes
    topic: str
    next_offset: int                    # after the last record, be it compacted away
    newest_ms: int
    damage: str = ""                    # why it holds no records, though it did: worker/kafka/damage.py


def size(fetched: Sequence[Record] | Sequence[RecordBatch]) -> int:
    """Number of records."""
    return sum(one.records if isinstance(one, RecordBatch) else 1 for one in fetched)


def next_offsets(fetched: Sequence[Record] | Sequence[RecordBatch]) -> dict[int, int]:
    """By partition: where to go on after these."""
    return {one.partition: one.next_offset if isinstance(one, RecordBatch) else one.offset + 1 for one in fetched}


def newest_ms(fetched: Sequence[Record] | Sequence[RecordBatch]) -> dict[int, int]:
    """By partition: Kafka's timestamp of what came last."""
    return {
        one.partition: one.newest_ms if isinstance(one, RecordBatch) else one.timestamp
        for one in fetched
        if not (isinstance(one, RecordBatch) and one.damage)
    }


def walk(batch: RecordBatch) -> list[PlainRecord]:
    """The records that were asked for. Raises StreamError for a batch that is not as the format says."""
    return records_of(batch, parts(batch))


def records_of(batch: RecordBatch, parts: Sequence[Part]) -> list[PlainRecord]:
    return [PlainRecord(batch.topic, batch.partition, *part) for part in parts]


def parts(batch: RecordBatch) -> list[Part]:
    """The same, without what the batch says for all."""
    try:
        return _parts(batch)
    except (IndexError, ValueError) as error:
        raise StreamError(
            f"topic {batch.topic!r} cannot be read on: partition {batch.partition} has a damaged record in the batch "
            f"at offset {batch.base_offset} ({error}). Move the group past it (kafka-consumer-groups.sh "
            f"--reset-offsets --to-offset {batch.next_offset})"
        ) from error


def _parts(batch: RecordBatch) -> list[Part]:
    """Numbers of one and two bytes, as nearly all are, are read in place: this is walked for every record."""
    _, base_offset, first_ms, append_ms, records, from_offset, data, _, _, _, _ = batch
    found: list[Part] = []
    at, size = 0, len(data)
    for _ in range(records):
        bits, at = data[at], at + 1
        if bits > 0x7F:
            bits, at = (bits & 0x7F | data[at] << 7, at + 1) if data[at] < 0x80 else _bits(data, at - 1)
        length = (bits >> 1) ^ -(bits & 1)
        end = at + length
        if length < 0 or end > size:
            raise ValueError(f"a record of {length} bytes where {size - at} are left")
        at = at + 1 if data[at] < 0x80 else _bits(data, at)[1]     # attributes: none are used

        bits, at = data[at], at + 1
        if bits > 0x7F:
            bits, at = (bits & 0x7F | data[at] << 7, at + 1) if data[at] < 0x80 else _bits(data, at - 1)
        delta_ms = (bits >> 1) ^ -(bits & 1)

        bits, at = data[at], at + 1
        if bits > 0x7F:
            bits, at = (bits & 0x7F | data[at] << 7, at + 1) if data[at] < 0x80 else _bits(data, at - 1)
        delta = (bits >> 1) ^ -(bits & 1)

        n, at = (data[at] >> 1, at + 1) if not data[at] & 0x81 else _varint(data, at)
        if n < 0:
            key = None
        else:
            key = data[at : at + n]
            at += n

        bits, at = data[at], at + 1
        if bits > 0x7F:
            bits, at = (bits & 0x7F | data[at] << 7, at + 1) if data[at] < 0x80 else _bits(data, at - 1)
        n = (bits >> 1) ^ -(bits & 1)
        if n < 0:
            value = None
        else:
            value = data[at : at + n]
            at += n

        n, at = (data[at] >> 1, at + 1) if not data[at] & 0x81 else _varint(data, at)
        headers: Headers = ()
        if n:
            headers, at = _headers(data, at, n)
        if at != end:
            raise ValueError(f"a record of {length} bytes whose parts take {length + at - end}")
        if not 0 <= delta <= MOST_RECORDS:
            raise ValueError(f"a record {delta} offsets after the batch's first")
        offset = base_offset + delta
        if offset >= from_offset:
            found.append((offset, first_ms + delta_ms if append_ms is None else append_ms, key, value, headers))
    if at != size:
        raise ValueError(f"{size - at} bytes after the last record")
    return found


def _headers(data: bytes, at: int, count: int) -> tuple[list[tuple[str, bytes | None]], int]:
    if count < 0:
        raise ValueError(f"{count} headers")
    headers: list[tuple[str, bytes | None]] = []
    for _ in range(count):
        n, at = _varint(data, at)
        if n < 0:
            raise ValueError("a header without a name")
        name = data[at : at + n].decode(errors="replace")       # no one checks that it is UTF-8
        at += n
        n, at = _varint(data, at)
        value = None if n < 0 else data[at : at + n]
        at += max(n, 0)
        if at > len(data):
            raise ValueError("a header that does not end")
        headers.append((name, value))
    return headers, at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A zigzag varint and the place after it."""
    bits, at = _bits(data, at)
    return (bits >> 1) ^ -(bits & 1), at


def _bits(data: bytes, at: int) -> tuple[int, int]:
    """A varint as it lies there and the place after it."""
    bits, shift = 0, 0
    while True:
        byte = data[at]
        at += 1
        bits |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if shift >= 64:
            raise ValueError("a number of more than 64 bits")
    if bits >> 64:
        raise ValueError("a number of more than 64 bits")
    return bits, at
