"""The plain readings of a record batch, decoded as one text of a line each: cheaper than one by one.

Whatever is not plain, be it one record of the batch, is None here and left to worker/codec/readings.py, which says what
a reading is and what is wrong with those that are none. It is what a worker without the compiled core goes by.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from worker.codec.rules import FLOAT32_MAX, SECONDS_BELOW, Refused, entity_of, timestamp_of
from worker.entities import Entities
from worker.kafka.batches import Part, RecordBatch, records_of
from worker.records import F32, I32, I64, LATEST_MS, Batch, PlainRecord

if TYPE_CHECKING:
    from worker.codec.readings import ReadingSchema
    from worker.codec.typed import Typed

LEAST = 8                               # records; of fewer, columns cost more than they save


class NotPlain(Exception):
    """To be read one by one."""


_NOT_PLAIN = (NotPlain, Refused, msgspec.MsgspecError, RecursionError, UnicodeDecodeError, OverflowError)


class LineDecoder:
    """Legend: B readings of the batch, F features."""

    def __init__(self, schema: ReadingSchema, typed: Typed, entities: Entities) -> None:
        self._schema, self._typed, self._entities = schema, typed, entities
        self._bytes = min(schema.max_record_bytes, schema.max_fields)   # a text has no more fields than bytes

    def decode(self, batch: RecordBatch, parts: Sequence[Part]) -> Batch | None:
        """parts: of the batch's records. None where one of them is not plain."""
        if len(parts) < LEAST:
            return None
        offsets, stamps, keys, values, _ = zip(*parts, strict=True)
        try:
            readings = self._read(values)
            x_BF = self._columns(readings)
            timestamp_ms_B = self._times(batch, parts, stamps, [reading.timestamp for reading in readings])
            entity_B = self._codes(batch, keys, [reading.entity for reading in readings])
        except _NOT_PLAIN:
            return None
        return Batch(
            x_BF=x_BF,
            entity_B=entity_B,
            timestamp_ms_B=timestamp_ms_B,
            partition_B=np.full(len(parts), batch.partition, np.int32),
            offset_B=np.array(offsets, np.int64),
        )

    def _read(self, values: Sequence[bytes]) -> list[Any]:
        """One reading of each value. A line that begins and ends as an object does, and goes on in no other, holds one
        or more: where an object is open at its end, what follows it is no JSON. As many objects as lines are one each.
        """
        if not all(values) or not values[0].startswith(b"{"):
            raise NotPlain
        text, lines = b"\n".join(values), len(values)
        if text.count(b"\n") != lines - 1 or text.count(b"}\n{") != lines - 1 or not text.endswith(b"}"):
            raise NotPlain
        if max(map(len, values)) > self._bytes or self._deep(text, values):
            raise NotPlain
        readings: list[Any] = self._typed.decoder.decode_lines(text)
        if len(readings) != lines:
            raise NotPlain
        return readings

    def _deep(self, text: bytes, values: Sequence[bytes]) -> bool:
        """Whether one may be nested too deeply. Each has an opening bracket at least."""
        most = self._schema.max_depth
        opening = text.count(b"{") + text.count(b"[")
        return opening >= len(values) + most and any(v.count(b"{") + v.count(b"[") > most for v in values)

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

    def _times(self, batch: RecordBatch, parts: Sequence[Part], stamps: Sequence[int], fields: list[Any]) -> I64:
        name = self._schema.timestamp_field
        kinds = set(map(type, fields))                          # no set of values: who sends them chooses their hash
        if name is None or kinds == {type(None)}:
            time_B: I64 = np.maximum(np.array(stamps, np.int64), 0)
        elif kinds == {int}:
            given_B = np.array(fields, np.int64)
            if ((given_B < 0) | (given_B > LATEST_MS)).any():
                raise NotPlain
            time_B = np.where(given_B < SECONDS_BELOW, given_B * 1000, given_B)
        else:
            both = zip(records_of(batch, parts), fields, strict=True)
            time_B = np.array([timestamp_of(record, name, field) for record, field in both], np.int64)
        if ((time_B < 0) | (time_B > LATEST_MS)).any():
            raise NotPlain
        return time_B

    def _codes(self, batch: RecordBatch, keys: Sequence[bytes | None], fields: list[Any]) -> I32:
        name = self._schema.entity_field
        whose: Sequence[bytes | str | None] = keys
        if name is not None:
            if not set(map(type, fields)) <= {str, int}:
                raise NotPlain
            whose = list(map(str, fields))                      # text hashes as nobody can foresee; numbers do not
        named: dict[bytes | str | None, str] = {}
        for one in dict.fromkeys(whose):
            key = one if isinstance(one, bytes) else None
            named[one] = entity_of(PlainRecord(batch.topic, batch.partition, 0, 0, key, None), name, one)
        code_of = {one: self._entities.code(batch.partition, entity) for one, entity in named.items()}
        return np.fromiter(map(code_of.__getitem__, whose), np.int32, len(whose))
