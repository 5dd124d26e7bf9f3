"""The plain readings of some record batches, decoded as one text of a line each: cheaper than one by one.

Whatever is not plain is left to worker/codec/readings.py, which says what a reading is and what is wrong with the
others. It is what a worker without the compiled core goes by.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from itertools import starmap
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from worker.codec.rules import FLOAT32_MAX, SECONDS_BELOW, Refused, entity_of, timestamp_of
from worker.entities import Entities
from worker.kafka.batches import RecordBatch, size, walk
from worker.kafka.framing import Bytes, Framed, NotPlain, framed
from worker.records import F32, I32, I64, LATEST_MS, Batch, PlainRecord

if TYPE_CHECKING:
    from worker.codec.readings import ReadingSchema
    from worker.codec.typed import Typed

_NEWLINE, _OPENING, _CLOSING, _BLANK = b"\n{} "
_TIMESTAMP = attrgetter("timestamp")
_NAMELESS = PlainRecord("", 0, 0, 0, None, None)        # what rules ask a record for is put in
LEAST = 96                              # records; of fewer, columns cost more than they save
MOST = 2048                             # of one text: caches hold what comes of it
WIDEST = 256                            # bytes between two values, most of them the key
_NOT_PLAIN = (NotPlain, Refused, msgspec.MsgspecError, RecursionError, UnicodeDecodeError, OverflowError)


class Plain(NamedTuple):
    batch: Batch
    value_bytes: int                    # of its records


class LineDecoder:
    """Legend: B readings, F features, N bytes."""

    def __init__(self, schema: ReadingSchema, typed: Typed, entities: Entities) -> None:
        self._schema, self._typed, self._entities = schema, typed, entities
        self._doubles = struct.Struct(f"{len(schema.features)}d").pack
        self._bytes = min(schema.max_record_bytes, schema.max_fields)   # a text has no more fields than bytes

    def decode(self, batches: Sequence[RecordBatch]) -> Iterator[Plain | list[PlainRecord]]:
        """In their order, the plain ones as columns, the others as records.

        Raises StreamError for a batch that is not as the format says.
        """
        try:
            if size(batches) < LEAST:
                raise NotPlain
            records = framed(batches)
        except NotPlain:
            for batch in batches:
                yield from self.decode([batch]) if len(batches) > 1 else [walk(batch)]
        else:
            yield from self._decode(records)

    def _decode(self, records: Framed) -> Iterator[Plain | list[PlainRecord]]:
        """One that is not plain takes those near it along, not all."""
        count = len(records.keys)
        try:
            if count > MOST:
                raise NotPlain
            yield self._plain(records)
        except _NOT_PLAIN:
            if count < 2 * LEAST:
                yield records.one_by_one()
                return
            for half in slice(None, count // 2), slice(count // 2, None):
                yield from self._decode(records.part(half))

    def _plain(self, records: Framed) -> Plain:
        readings = self._read(records)
        batch = Batch(
            x_BF=self._columns(readings),
            timestamp_ms_B=self._times(records, list(map(_TIMESTAMP, readings))),
            entity_B=self._codes(records, readings),
            partition_B=records.partition_R,
            offset_B=records.offset_R,
        )
        return Plain(batch, int((records.value_end_R - records.value_R).sum()))

    def _read(self, records: Framed) -> list[Any]:
        """One reading of each value. A line that begins and ends as an object does, and goes on in no other, holds one
        or more: where an object is open at its end, what follows it is no JSON. As many objects as lines are one each.
        """
        begin_B, end_B, bytes_N = records.value_R, records.value_end_R, records.bytes_N
        longest = (end_B - begin_B).max()
        if longest > self._bytes or (bytes_N[begin_B] != _OPENING).any() or (bytes_N[end_B - 1] != _CLOSING).any():
            raise NotPlain                                      # an empty one begins with what comes after it: no brace
        text_N = _lines(bytes_N, begin_B, end_B)
        if np.count_nonzero(text_N == _NEWLINE) != len(begin_B) - 1 or self._deep(text_N, end_B - begin_B[0]):
            raise NotPlain
        readings = self._typed.decode_lines(text_N.data, text_N[: end_B[0] - begin_B[0]].data)
        if len(readings) != len(begin_B):
            raise NotPlain
        return readings

    def _deep(self, text_N: Bytes, end_B: I64) -> bool:
        """Whether one may be nested too deeply."""
        at = np.flatnonzero(text_N | 0x20 == _OPENING)          # a bracket differs from a brace by that alone
        return bool(np.diff(np.searchsorted(at, end_B), prepend=0).max() > self._schema.max_depth)

    def _columns(self, readings: Sequence[Any]) -> F32:
        features = len(self._schema.features)
        listed = [reading.values for reading in readings if reading.values is not None]
        if listed and (len(listed) < len(readings) or set(map(len, listed)) != {features}):
            raise NotPlain
        rows: Sequence[Sequence[float | None]] = listed or self._typed.named(readings)
        try:
            wide_BF = np.frombuffer(b"".join(starmap(self._doubles, rows)), np.float64).reshape(len(rows), features)
        except struct.error:                                    # some are missing
            wide_BF = np.array(rows, np.float64)
        if (np.abs(wide_BF) > FLOAT32_MAX).any() or (not listed and np.isnan(wide_BF).all(1).any()):
            raise NotPlain
        return wide_BF.astype(np.float32)

    def _times(self, records: Framed, fields: list[Any]) -> I64:
        name = self._schema.timestamp_field
        kinds = set(map(type, fields))                          # no set of values: who sends them chooses their hash
        if name is None or kinds == {type(None)}:
            time_B: I64 = np.maximum(records.timestamp_ms_R, 0)
        elif kinds == {int}:
            given_B = np.array(fields, np.int64)
            if ((given_B < 0) | (given_B > LATEST_MS)).any():
                raise NotPlain
            time_B = np.where(given_B < SECONDS_BELOW, given_B * 1000, given_B)
        else:
            both = zip(records.timestamp_ms_R.tolist(), fields, strict=True)
            stamps = [timestamp_of(_NAMELESS._replace(timestamp=ms), name, field) for ms, field in both]
            time_B = np.array(stamps, np.int64)
        if ((time_B < 0) | (time_B > LATEST_MS)).any():
            raise NotPlain
        return time_B

    def _codes(self, records: Framed, readings: Sequence[Any]) -> I32:
        name = self._schema.entity_field
        whose: Sequence[bytes | str | None] = records.keys
        if name is not None:
            fields = [reading.entity for reading in readings]
            if not set(map(type, fields)) <= {str, int}:
                raise NotPlain
            whose = list(map(str, fields))                      # text hashes as nobody can foresee; numbers do not
        partition_B = records.partition_R
        ends = [*(np.flatnonzero(np.diff(partition_B)) + 1).tolist(), len(whose)]
        runs = zip([0, *ends], ends, strict=False)              # of a partition each
        return np.concatenate([self._codes_within(int(partition_B[at]), whose[at:end]) for at, end in runs])

    def _codes_within(self, partition: int, whose: Sequence[bytes | str | None]) -> I32:
        code_of = {}
        for one in dict.fromkeys(whose):
            key = one if isinstance(one, bytes) else None
            entity = entity_of(PlainRecord("", partition, 0, 0, key, None), self._schema.entity_field, one)
            code_of[one] = self._entities.code(partition, entity)
        return np.fromiter(map(code_of.__getitem__, whose), np.int32, len(whose))


def _lines(bytes_N: Bytes, begin_B: I64, end_B: I64) -> Bytes:
    """What lies between these, a line each; blank is what lay between them. Raises NotPlain where that is much."""
    text_N = bytes_N[begin_B[0] : end_B[-1]].copy()
    at_B, last_B = end_B[:-1] - begin_B[0], begin_B[1:] - begin_B[0] - 1    # each value's length is said before it
    widest = (last_B - at_B).max(initial=0)
    if widest > WIDEST:
        raise NotPlain
    for place in range(widest):
        text_N[np.minimum(at_B + place, last_B)] = _BLANK
    text_N[last_B] = _NEWLINE
    return text_N
