"""The plain readings of a record batch, decoded as one text of a line each: cheaper than one by one.

Whatever is not plain, be it one record of the batch, is None here and left to worker/codec/readings.py, which says what
a reading is and what is wrong with those that are none. It is what a worker without the compiled core goes by.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from worker.codec.rules import FLOAT32_MAX, SECONDS_BELOW, Refused, entity_of, timestamp_of
from worker.entities import Entities
from worker.kafka.batches import RecordBatch
from worker.kafka.framing import Framed, NotPlain, framed
from worker.records import F32, I32, I64, LATEST_MS, Batch, PlainRecord

if TYPE_CHECKING:
    from worker.codec.readings import ReadingSchema
    from worker.codec.typed import Typed

Bytes = npt.NDArray[np.uint8]

_NEWLINE, _OPENING, _CLOSING = b"\n{}"
_TIMESTAMP = attrgetter("timestamp")
LEAST = 8                               # records; of fewer, columns cost more than they save
_NOT_PLAIN = (NotPlain, Refused, msgspec.MsgspecError, RecursionError, UnicodeDecodeError, OverflowError)


class Plain(NamedTuple):
    batch: Batch
    value_bytes: int                    # of its records


class LineDecoder:
    """Legend: B readings of the batch, F features."""

    def __init__(self, schema: ReadingSchema, typed: Typed, entities: Entities) -> None:
        self._schema, self._typed, self._entities = schema, typed, entities
        self._bytes = min(schema.max_record_bytes, schema.max_fields)   # a text has no more fields than bytes

    def decode(self, batch: RecordBatch) -> Plain | None:
        """None where one of its records is not plain. Raises StreamError for a batch that is not as the format says."""
        records = framed(batch)
        if records is None or len(records.values) < LEAST:
            return None
        try:
            readings = self._read(records.values)
            x_BF = self._columns(readings)
            timestamp_ms_B = self._times(batch, records, list(map(_TIMESTAMP, readings)))
            entity_B = self._codes(batch, records.keys, readings)
        except _NOT_PLAIN:
            return None
        plain = Batch(
            x_BF=x_BF,
            entity_B=entity_B,
            timestamp_ms_B=timestamp_ms_B,
            partition_B=np.full(len(readings), batch.partition, np.int32),
            offset_B=records.offset_R,
        )
        return Plain(plain, sum(len(value) for value in records.values if value))

    def _read(self, values: Sequence[bytes | None]) -> list[Any]:
        """One reading of each value. A line that begins and ends as an object does, and goes on in no other, holds one
        or more: where an object is open at its end, what follows it is no JSON. As many objects as lines are one each.
        """
        given = [value for value in values if value]
        lines = len(given)
        if lines < len(values) or not given[0].startswith(b"{"):
            raise NotPlain
        if max(map(len, given)) > self._bytes:
            raise NotPlain
        text = b"\n".join(given)
        bytes_N = np.frombuffer(text, np.uint8)
        newline_N = bytes_N == _NEWLINE
        if np.count_nonzero(newline_N) != lines - 1 or not text.endswith(b"}"):
            raise NotPlain
        at_B = np.flatnonzero(newline_N)
        if (bytes_N[at_B - 1] != _CLOSING).any() or (bytes_N[at_B + 1] != _OPENING).any():
            raise NotPlain
        if self._deep(bytes_N, given):
            raise NotPlain
        readings: list[Any] = self._typed.decoder.decode_lines(text)
        if len(readings) != lines:
            raise NotPlain
        return readings

    def _deep(self, bytes_N: Bytes, values: Sequence[bytes]) -> bool:
        """Whether one may be nested too deeply. Each has an opening bracket at least.

        bytes_N: of all, with one between two.
        """
        opening_N = bytes_N | 0x20 == _OPENING                  # a bracket differs from a brace by that alone
        most, opening = self._schema.max_depth, np.count_nonzero(opening_N)
        if not len(values) + most <= opening <= len(values) * most:
            return bool(opening > len(values) * most)
        end_B = np.cumsum([len(value) + 1 for value in values])
        until_B = np.searchsorted(np.flatnonzero(opening_N), end_B)
        return bool(np.diff(until_B, prepend=0).max() > most)

    def _columns(self, readings: Sequence[Any]) -> F32:
        features = len(self._schema.features)
        listed = [reading.values for reading in readings if reading.values is not None]
        if not listed:
            named = map(self._typed.features, readings)
            rows = list(named) if features > 1 else [(value,) for value in named]
        elif len(listed) == len(readings) and set(map(len, listed)) == {features}:
            rows = listed
        else:
            raise NotPlain
        try:
            wide_BF = np.fromiter(chain.from_iterable(rows), np.float64, len(rows) * features)
        except TypeError:                                       # some are missing
            wide_BF = np.array(rows, np.float64)
        wide_BF = wide_BF.reshape(len(rows), features)
        if (np.abs(wide_BF) > FLOAT32_MAX).any() or (not listed and np.isnan(wide_BF).all(1).any()):
            raise NotPlain
        return wide_BF.astype(np.float32)

    def _times(self, batch: RecordBatch, records: Framed, fields: list[Any]) -> I64:
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
            blank = PlainRecord(batch.topic, batch.partition, 0, 0, None, None)
            time_B = np.array([timestamp_of(blank._replace(timestamp=ms), name, field) for ms, field in both], np.int64)
        if ((time_B < 0) | (time_B > LATEST_MS)).any():
            raise NotPlain
        return time_B

    def _codes(self, batch: RecordBatch, keys: Sequence[bytes | None], readings: Sequence[Any]) -> I32:
        name = self._schema.entity_field
        whose: Sequence[bytes | str | None] = keys
        if name is not None:
            fields = [reading.entity for reading in readings]
            if not set(map(type, fields)) <= {str, int}:
                raise NotPlain
            whose = list(map(str, fields))                      # text hashes as nobody can foresee; numbers do not
        named: dict[bytes | str | None, str] = {}
        for one in dict.fromkeys(whose):
            key = one if isinstance(one, bytes) else None
            named[one] = entity_of(PlainRecord(batch.topic, batch.partition, 0, 0, key, None), name, one)
        code_of = {one: self._entities.code(batch.partition, entity) for one, entity in named.items()}
        return np.fromiter(map(code_of.__getitem__, whose), np.int32, len(whose))
