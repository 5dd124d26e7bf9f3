"""The records of a batch as columns, without a loop over what is in each where a batch is large and plain.

A record's length says where the next one begins, so these are gone through one by one. All else of a record, as the
format has it (worker/kafka/batches.py), is then read for all of them at once.

Legend: R records of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from worker.kafka.batches import MOST_RECORDS, RecordBatch, parts
from worker.records import I64, LATEST_MS

LEAST = 128                             # records; of fewer, columns cost more than they save
_LONGEST = 5                            # bytes of a number: 35 bits
_OFFSETS = 2**62                        # below it, sums of an offset and such a number are no larger than an int64


class Framed(NamedTuple):
    """The records that were asked for, in their order; their headers are not told."""

    offset_R: I64
    timestamp_ms_R: I64
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]


class NotPlain(Exception):
    """To be read one by one, which says what is wrong with it, if anything is."""


def framed(batch: RecordBatch) -> Framed | None:
    """None where there is more to say of a record. Raises StreamError for a batch that is not as the format says."""
    try:
        if batch.records >= LEAST:
            return _at_once(batch)
        found = parts(batch)
        offsets, stamps, keys, values, _ = zip(*found, strict=True) if found else ((),) * 5
        return Framed(np.array(offsets, np.int64), np.array(stamps, np.int64), keys, values)
    except (NotPlain, IndexError, OverflowError):
        return None


def _at_once(batch: RecordBatch) -> Framed:
    """Raises NotPlain or IndexError where it is not as most are."""
    data, append_ms = batch.data, batch.append_timestamp
    first_ms = batch.first_timestamp if append_ms is None else append_ms
    if not (0 <= first_ms <= LATEST_MS and 0 <= batch.base_offset < _OFFSETS):
        raise NotPlain
    start_R, end_R = _bounds(data, batch.records)
    bytes_N: Any = np.frombuffer(data, np.uint8)
    if (bytes_N[start_R] > 0x7F).any():                     # attributes: none are used
        raise NotPlain
    delta_ms_R, at_R = _numbers(bytes_N, start_R + 1)
    delta_R, at_R = _numbers(bytes_N, at_R)
    keys, at_R = _slices(data, bytes_N, at_R, end_R)
    values, at_R = _slices(data, bytes_N, at_R, end_R)
    headers_R, at_R = _numbers(bytes_N, at_R)
    offset_R = batch.base_offset + delta_R
    if headers_R.any() or (at_R != end_R).any() or (delta_R < 0).any() or (delta_R > MOST_RECORDS).any():
        raise NotPlain
    if (offset_R < batch.from_offset).any():
        raise NotPlain
    stamp_R = first_ms + delta_ms_R if append_ms is None else np.full_like(delta_R, append_ms)
    return Framed(offset_R, stamp_R, keys, values)


def _bounds(data: bytes, records: int) -> tuple[I64, I64]:
    """Where each record begins, after its length, and where it ends. Raises IndexError where they are fewer."""
    starts, lengths, at = [], [], 0
    for _ in range(records):
        bits = data[at]
        at += 1
        if bits > 0x7F:
            more = data[at]
            at += 1
            if more > 0x7F:                                 # 8 KiB or more
                raise NotPlain
            bits = bits & 0x7F | more << 7
        starts.append(at)
        lengths.append(bits)
        at += bits >> 1
    bits_R, start_R = np.array(lengths, np.int64), np.array(starts, np.int64)
    if at != len(data) or (bits_R & 1).any():               # odd ones are negative
        raise NotPlain
    return start_R, start_R + (bits_R >> 1)


def _numbers(bytes_N: Any, at_R: I64) -> tuple[I64, I64]:
    """The zigzag varint at each place, and the place after it. Raises IndexError past the end."""
    byte_R = bytes_N[at_R].astype(np.int64)
    bits_R, after_R = byte_R & 0x7F, at_R + 1
    shift = 7
    while (goes_on_R := byte_R > 0x7F).any():
        if shift == 7 * _LONGEST:
            raise NotPlain
        byte_R = np.where(goes_on_R, bytes_N[after_R], 0).astype(np.int64)
        bits_R |= (byte_R & 0x7F) << shift
        after_R = after_R + goes_on_R
        shift += 7
    return (bits_R >> 1) ^ -(bits_R & 1), after_R


def _slices(data: bytes, bytes_N: Any, at_R: I64, within_R: I64) -> tuple[list[bytes | None], I64]:
    """The bytes at each place that begin with their length, and the place after them; None where there are none.

    within_R: what they may go up to.
    """
    length_R, at_R = _numbers(bytes_N, at_R)
    end_R = at_R + np.maximum(length_R, 0)
    if (end_R > within_R).any():
        raise NotPlain
    places = zip(at_R.tolist(), end_R.tolist(), strict=True)
    found: list[bytes | None] = [data[at:end] for at, end in places]
    for i in np.flatnonzero(length_R < 0).tolist():
        found[i] = None
    return found, end_R
