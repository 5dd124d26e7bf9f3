"""The records of some batches as columns, without a loop over what is in each; plain ones only.

A record's length says where the next one begins, so these are gone through one by one. All else of a record, as the
format has it (worker/kafka/batches.py), is then read for all of them at once.

Legend: R records of all batches, N bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from worker.kafka.batches import MOST_RECORDS, RecordBatch
from worker.records import I32, I64, LATEST_MS, PlainRecord

Bytes = npt.NDArray[np.uint8]

_SHORTEST = 7                           # bytes of a record: its length, attributes, two deltas, two lengths, no headers
_LONGEST = 5                            # bytes of a number: 35 bits
_OFFSETS = 2**62                        # below it, sums of an offset and such a number are no larger than an int64


class Framed(NamedTuple):
    """The records that were asked for, in their order; they have no headers."""

    topic: str
    partition_R: I32
    offset_R: I64
    timestamp_ms_R: I64
    keys: Sequence[bytes | None]
    bytes_N: Bytes                      # records whole, the values among them
    value_R: I64                        # where each value begins, after its length
    value_end_R: I64

    def part(self, some: slice) -> Framed:
        """Without the others."""
        return Framed(
            self.topic, self.partition_R[some], self.offset_R[some], self.timestamp_ms_R[some], self.keys[some],
            self.bytes_N, self.value_R[some], self.value_end_R[some],
        )

    def one_by_one(self) -> list[PlainRecord]:
        columns = self.partition_R, self.offset_R, self.timestamp_ms_R, self.value_R, self.value_end_R
        rows = zip(*(column.tolist() for column in columns), self.keys, strict=True)
        return [
            PlainRecord(self.topic, partition, offset, timestamp_ms, key, self.bytes_N[at:end].tobytes())
            for partition, offset, timestamp_ms, at, end, key in rows
        ]


class NotPlain(Exception):
    """To be read one by one, which says what is wrong with it, if anything is."""


def framed(batches: Sequence[RecordBatch]) -> Framed:
    """Raises NotPlain where there is more to say of a record, or a batch is not as the format says."""
    try:
        return _framed(batches)
    except (IndexError, OverflowError):
        raise NotPlain from None


def _framed(batches: Sequence[RecordBatch]) -> Framed:
    stamped = [batch.append_timestamp is not None for batch in batches]     # by the broker, all records alike
    firsts = [batch.first_timestamp if batch.append_timestamp is None else batch.append_timestamp for batch in batches]
    if not all(0 <= ms <= LATEST_MS for ms in firsts) or not all(0 <= one.base_offset < _OFFSETS for one in batches):
        raise NotPlain
    start_R = _starts(batches)
    records = [batch.records for batch in batches]

    def of_each(what: Sequence[int]) -> I64:
        return np.repeat(np.array(what, np.int64), records)

    data = b"".join(batch.data for batch in batches)
    bytes_N = np.frombuffer(data, np.uint8)
    length_R, at_R = _numbers(bytes_N, start_R)
    end_R = at_R + length_R
    if (end_R != np.append(start_R[1:], len(data))).any():
        raise NotPlain
    if (bytes_N[at_R] > 0x7F).any():                        # attributes: none are used
        raise NotPlain
    delta_ms_R, at_R = _numbers(bytes_N, at_R + 1)
    delta_R, at_R = _numbers(bytes_N, at_R)
    key_length_R, key_R = _numbers(bytes_N, at_R)
    key_end_R = key_R + np.maximum(key_length_R, 0)
    value_length_R, value_R = _numbers(bytes_N, key_end_R)
    value_end_R = value_R + np.maximum(value_length_R, 0)
    headers_R, at_R = _numbers(bytes_N, value_end_R)
    if headers_R.any() or (at_R != end_R).any() or (delta_R < 0).any() or (delta_R > MOST_RECORDS).any():
        raise NotPlain                                      # lengths that add up lie within their record, too
    if (value_length_R < 0).any():                          # no value
        raise NotPlain
    offset_R = of_each([batch.base_offset for batch in batches]) + delta_R
    if (offset_R < of_each([batch.from_offset for batch in batches])).any():
        raise NotPlain
    if any(stamped):
        delta_ms_R[of_each(stamped).astype(np.bool_)] = 0
    keys: list[bytes | None] = [data[at:end] for at, end in zip(key_R.tolist(), key_end_R.tolist(), strict=True)]
    for i in np.flatnonzero(key_length_R < 0).tolist():
        keys[i] = None
    return Framed(
        topic=batches[0].topic,
        partition_R=of_each([batch.partition for batch in batches]).astype(np.int32),
        offset_R=offset_R,
        timestamp_ms_R=of_each(firsts) + delta_ms_R,
        keys=keys,
        bytes_N=bytes_N,
        value_R=value_R,
        value_end_R=value_end_R,
    )


def _starts(batches: Sequence[RecordBatch]) -> I64:
    """Where in all of their data each record begins, with its length; as if each had one of one or two bytes.

    Raises IndexError past the end.
    """
    starts: list[int] = []
    before = 0
    for batch in batches:
        data, at = batch.data, 0
        if batch.records * _SHORTEST > len(data):
            raise NotPlain
        for _ in range(batch.records):
            starts.append(before + at)
            bits = data[at]
            at += (bits >> 1) + 1 if bits < 0x80 else ((bits & 0x7F | data[at + 1] << 7) >> 1) + 2
        if at != len(data):
            raise NotPlain
        before += at
    return np.array(starts, np.int64)


def _numbers(bytes_N: Bytes, at_R: I64) -> tuple[I64, I64]:
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
