"""Record batches → columns: by the compiled core where it was built, else record by record in Python.

The core reads plain readings only and hands everything else back as it came. So what is refused, and why, is said in
one place, worker/codec/readings.py, whoever runs; tests hold the two equal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import Any, Literal, NamedTuple

import numpy as np

from worker import compiled, threads
from worker.codec.lines import LineDecoder, Plain
from worker.codec.readings import ReadingDecoder, ReadingSchema
from worker.entities import Entities
from worker.kafka.batches import RecordBatch, walk
from worker.records import I32, Batch, PlainRecord, Record, Refusal

Path = Literal["compiled", "python", "records"]
AT_ONCE = 1024                          # records that Python frames together
CORE_FIELDS = 7                         # of a RecordBatch: what the core wants to know


class Decoded(NamedTuple):
    batch: Batch
    refused: list[Refusal]
    value_bytes: int                    # of all records, the refused ones too
    path: Path                          # who did it

    def by_partition(self) -> Counter[int]:
        """Number of readings, and of records that are none."""
        partitions, count = np.unique(self.batch.partition_B, return_counts=True)
        counted = Counter(dict(zip(partitions.tolist(), count.tolist(), strict=True)))
        for refusal in self.refused:
            counted[refusal.record.partition] += refusal.readings
        return counted


class ColumnDecoder:
    """Decodes record batches by one schema."""

    def __init__(self, schema: ReadingSchema, entities: Entities) -> None:
        self._readings = ReadingDecoder(schema, entities)
        self._entities, self._features = entities, len(schema.features)
        self._core = _core(schema)
        typed = self._readings.typed
        self._lines = None if typed is None else LineDecoder(schema, typed, entities)

    def decode(self, fetched: Sequence[Record] | Sequence[RecordBatch]) -> Decoded:
        """Readings in order of arrival. Raises StreamError for a batch that is not as the format says."""
        batches = [one for one in fetched if isinstance(one, RecordBatch)]
        if len(batches) < len(fetched):
            return self._one_by_one([one for one in fetched if not isinstance(one, RecordBatch)], "records")
        if self._core is None:
            return self._in_python(batches)
        found = self._core.decode([batch[:CORE_FIELDS] for batch in batches], threads.most())
        code = self._entities.code
        codes = np.array([code(partition, name) for partition, name in found.entities], np.int32)
        number_B = np.frombuffer(found.batch_B, np.int32)
        partition_N = np.array([batch.partition for batch in batches], np.int32)
        plain = Batch(
            x_BF=np.frombuffer(found.x_BF, np.float32).reshape(len(number_B), self._features),
            entity_B=codes[np.frombuffer(found.entity_B, np.int32)],
            timestamp_ms_B=np.frombuffer(found.timestamp_ms_B, np.int64),
            partition_B=partition_N[number_B],
            offset_B=np.frombuffer(found.offset_B, np.int64),
        )
        if not found.left and not found.unread:
            return Decoded(plain, [], found.value_bytes, "compiled")
        left = [
            (number, PlainRecord(batches[number].topic, batches[number].partition, *record))
            for number, *record in found.left
        ]
        left += [(number, record) for number in found.unread for record in walk(batches[number])]
        left.sort(key=itemgetter(0))
        rest = self._one_by_one([record for _, record in left], "compiled")
        unread = set(found.unread)
        unread_bytes = _bytes([record for number, record in left if number in unread])
        batch, value_bytes = rest.batch, found.value_bytes + unread_bytes
        if len(plain):
            batch = Batch.joined([plain, rest.batch])
            number_B = np.concatenate([number_B, _numbers(rest.batch, left)])
            batch = batch.take(np.lexsort((batch.offset_B, number_B)))      # a stable sort: rows stay as they are
        return Decoded(batch, rest.refused, value_bytes, "compiled")

    def _in_python(self, batches: Sequence[RecordBatch]) -> Decoded:
        readings: list[Batch] = []
        refused: list[Refusal] = []
        left: list[Record] = []
        value_bytes = 0

        def read_left() -> None:
            batch, bad = self._readings.decode(left)
            readings.append(batch)
            refused.extend(bad)
            left.clear()

        for some in self._in_parts(batches):
            if isinstance(some, list):
                left += some
                value_bytes += _bytes(some)
                continue
            if left:
                read_left()
            readings.append(some.batch)
            value_bytes += some.value_bytes
        if left or not readings:
            read_left()
        return Decoded(Batch.joined(readings), refused, value_bytes, "python")

    def _in_parts(self, batches: Sequence[RecordBatch]) -> Iterator[Plain | list[PlainRecord]]:
        if self._lines is None:
            yield from map(walk, batches)
            return
        for some in _grouped(batches):
            yield from self._lines.decode(some)

    def _one_by_one(self, records: Sequence[Record], path: Path) -> Decoded:
        batch, refused = self._readings.decode(records)
        return Decoded(batch, refused, _bytes(records), path)


def _grouped(batches: Sequence[RecordBatch]) -> Iterator[list[RecordBatch]]:
    """Of AT_ONCE records at least, but for the last. A batch stays whole; empty ones are left out."""
    some: list[RecordBatch] = []
    records = 0
    for batch in batches:
        if batch.records or batch.data:
            some.append(batch)
            records += batch.records
        if records >= AT_ONCE:
            yield some
            some, records = [], 0
    if some:
        yield some


def _bytes(records: Sequence[Record]) -> int:
    """Of their values."""
    return sum(len(record.value or b"") for record in records)


def _core(schema: ReadingSchema) -> Any:
    """The compiled decoder; None where it is not to be had, or where a field plays two parts."""
    core = compiled.core()
    roles = [schema.values_field, schema.entity_field, schema.timestamp_field]
    names = [*schema.features, *(name for name in roles if name is not None)]
    if core is None or len(set(names)) < len(names):
        return None
    return core.Decoder(
        list(schema.features), schema.values_field, schema.entity_field, schema.timestamp_field,
        schema.max_record_bytes, schema.max_depth, schema.max_fields,
    )


def _numbers(batch: Batch, left: Sequence[tuple[int, Record]]) -> I32:
    """Of each reading: the number of the record batch that its record lies in. Those of a record follow each other."""
    number_of = {(record.partition, record.offset): number for number, record in left}
    begins_B = np.ones(len(batch), np.bool_)
    begins_B[1:] = (np.diff(batch.offset_B) != 0) | (np.diff(batch.partition_B) != 0)
    places = zip(batch.partition_B[begins_B].tolist(), batch.offset_B[begins_B].tolist(), strict=True)
    number_R = np.array([number_of[place] for place in places], np.int32)
    return np.asarray(number_R[np.cumsum(begins_B) - 1])
