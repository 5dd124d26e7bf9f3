"""Kafka records → one columnar batch, and the records that are no readings, each with its reason.

A reading is a JSON object: features by name, or all of them as one array; an entity and a timestamp by field or
from Kafka. Absent and null features are missing (NaN); booleans count as 1 and 0. Everything else that is not a
finite number is refused, never guessed. A record may also be an Arrow stream, many readings: worker/codec/arrow.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, Self

import msgspec
import numpy as np

from worker.codec import outline
from worker.codec.rules import FLOAT32_MAX, Refused, entity_of, kind_of, overflow, require_size, timestamp_of
from worker.codec.typed import typed_of
from worker.entities import Entities
from worker.kafka_settings import InputSettings
from worker.records import F32, Batch, Record, Refusal

if TYPE_CHECKING:
    from worker.codec.arrow import ArrowDecoder

STREAM = b"\xff\xff\xff\xff"             # an Arrow stream begins so, and no JSON: it is no UTF-8
ARROW_FILE = b"ARROW1"


@dataclass(frozen=True, slots=True)
class ReadingSchema:
    """Where in a record what is."""

    features: tuple[str, ...]
    entity_field: str | None = None
    timestamp_field: str | None = "timestamp"
    values_field: str = "values"
    max_record_bytes: int = 1_048_576
    max_depth: int = 32
    max_fields: int = 10_000

    @classmethod
    def of(cls, features: tuple[str, ...], settings: InputSettings) -> Self:
        """These features, where the settings say that they are."""
        return cls(
            features, settings.entity_field, settings.timestamp_field, settings.values_field,
            settings.max_record_bytes, settings.max_depth, settings.max_fields,
        )


class ReadingDecoder:
    """Decodes batches of records by one schema. Typed and fast where records are plain, patient where not."""

    def __init__(self, schema: ReadingSchema, entities: Entities) -> None:
        self._schema = schema
        self._entities = entities
        self.typed = typed_of(schema)
        self._generic = msgspec.json.Decoder()
        self._missing = (None,) * len(schema.features)
        self._arrow: ArrowDecoder | None = None         # made for the first stream: few topics have any

    def decode(self, records: Sequence[Record]) -> tuple[Batch, list[Refusal]]:
        """`records` in order of arrival → their readings as columns, and the refused ones."""
        if not any(record.value[:4] == STREAM for record in records if record.value):
            return self._decode_json(records)
        parts: list[Batch] = []
        refused: list[Refusal] = []
        for is_stream, some in groupby(records, key=lambda record: (record.value or b"")[:4] == STREAM):
            for batch, bad in map(self._decode_stream, some) if is_stream else [self._decode_json(list(some))]:
                parts.append(batch)
                refused += bad
        return Batch.joined(parts), refused

    def _decode_stream(self, record: Record) -> tuple[Batch, list[Refusal]]:
        try:
            if self._arrow is None:
                self._arrow = _arrow_decoder(self._schema, self._entities)
            return self._arrow.decode(record)
        except Refused as why:
            return self._decode_json([])[0], [Refusal(record, why.code, why.message, why.feature)]

    def _decode_json(self, records: Sequence[Record]) -> tuple[Batch, list[Refusal]]:
        rows: list[Any] = []
        codes: list[int] = []
        stamps: list[int] = []
        kept: list[Record] = []
        refused: list[Refusal] = []
        for record in records:
            try:
                row, entity, timestamp_ms = self._read(record)
                code = self._entities.code(record.partition, entity)
            except Refused as why:
                refused.append(Refusal(record, why.code, why.message, why.feature))
            else:
                rows.append(row)
                codes.append(code)
                stamps.append(timestamp_ms)
                kept.append(record)
        x_BF, spoilt = self._columns(rows)
        if spoilt:
            for i in sorted(spoilt, reverse=True):
                name = self._schema.features[spoilt[i]]
                refused.append(Refusal(kept[i], "non_finite", overflow(name), name))
                del codes[i], stamps[i], kept[i]
            x_BF = np.delete(x_BF, list(spoilt), axis=0)
        return Batch(
            x_BF=x_BF,
            entity_B=np.array(codes, np.int32),
            timestamp_ms_B=np.array(stamps, np.int64),
            partition_B=np.fromiter((record.partition for record in kept), np.int32, len(kept)),
            offset_B=np.fromiter((record.offset for record in kept), np.int64, len(kept)),
        ), refused

    def _columns(self, rows: list[Any]) -> tuple[F32, dict[int, int]]:
        """Rows of numbers and None → float32 with NaN; and row → feature of values that overflow float32."""
        wide_BF = np.array(rows, np.float64).reshape(len(rows), len(self._schema.features))
        large_BF = np.abs(wide_BF) > FLOAT32_MAX
        if not large_BF.any():
            return wide_BF.astype(np.float32), {}
        spoilt = {int(i): int(np.argmax(large_BF[i])) for i in np.flatnonzero(large_BF.any(1))}
        wide_BF[large_BF] = np.nan
        return wide_BF.astype(np.float32), spoilt

    def _read(self, record: Record) -> tuple[Any, str, int]:
        value = record.value
        if not value:
            raise Refused("empty", "the record has no value; a reading is a JSON object")
        require_size(value, self._schema.max_record_bytes)
        if len(value) > self._schema.max_fields or value.count(b"[") + value.count(b"{") > self._schema.max_depth:
            self._require_modest(value)
        if self.typed is None:
            return self._read_patiently(record, value)
        try:
            reading = self.typed.decoder.decode(value)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            return self._read_patiently(record, value)
        if reading.values is not None:
            row: Any = reading.values
            if len(row) != len(self._missing):
                raise self._wrong_length(len(row))
        else:
            (row,) = self.typed.named([reading])
            if row == self._missing:
                return self._read_patiently(record, value)
        return row, *self._whose_and_when(record, reading.entity, reading.timestamp)

    def _require_modest(self, value: bytes) -> None:
        """Depth and number of fields, before anything is built of them."""
        found = outline.of(value)
        if found.depth > self._schema.max_depth:
            most = self._schema.max_depth
            raise Refused("too_deep", f"nested {found.depth} deep; at most {most} is read (ZMU_INPUT__MAX_DEPTH)")
        if found.fields > self._schema.max_fields:
            raise Refused(
                "too_many_fields",
                f"{found.fields} fields and elements; at most {self._schema.max_fields} are read "
                "(ZMU_INPUT__MAX_FIELDS)",
            )

    def _read_patiently(self, record: Record, value: bytes) -> tuple[Any, str, int]:
        """What the typed decoder will not take: booleans, and everything whose fault must be named."""
        schema = self._schema
        try:
            document = self._generic.decode(value)
        except RecursionError:
            raise Refused("invalid_json", "nested too deeply") from None
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            file = "; it is an Arrow file: send the stream format" if value.startswith(ARROW_FILE) else ""
            raise Refused("invalid_json", f"not JSON: {error}{file}") from None
        if not isinstance(document, dict):
            raise Refused("wrong_type", f"found {kind_of(document)}; a reading is a JSON object")
        values = document.get(schema.values_field)
        if values is not None:
            if not isinstance(values, list):
                raise Refused("wrong_type", f"{schema.values_field} is {kind_of(values)}; it must be an array")
            if len(values) != len(schema.features):
                raise self._wrong_length(len(values))
        elif document.keys().isdisjoint(schema.features):
            raise Refused("no_features", f"none of the model's features is present, such as {schema.features[0]!r}")
        else:
            values = [document.get(name) for name in schema.features]
        row = [_number(name, value) for name, value in zip(schema.features, values, strict=True)]
        entity = document.get(schema.entity_field) if schema.entity_field else None
        stamp = document.get(schema.timestamp_field) if schema.timestamp_field else None
        return row, *self._whose_and_when(record, entity, stamp)

    def _whose_and_when(self, record: Record, entity: object, stamp: object) -> tuple[str, int]:
        schema = self._schema
        return entity_of(record, schema.entity_field, entity), timestamp_of(record, schema.timestamp_field, stamp)

    def _wrong_length(self, found: int) -> Refused:
        return Refused(
            "wrong_length",
            f"{self._schema.values_field} has {found} numbers; the model has {len(self._schema.features)} features",
        )


def _arrow_decoder(schema: ReadingSchema, entities: Entities) -> ArrowDecoder:
    """Raises Refused where there is no pyarrow."""
    try:
        from worker.codec.arrow import ArrowDecoder  # here: pyarrow takes a while to load
    except ImportError as error:
        raise Refused(
            "no_pyarrow", f"an Arrow stream, which this worker cannot read ({error}); pip install pyarrow there"
        ) from None
    return ArrowDecoder(schema, entities)


def _number(feature: str, value: object) -> float | None:
    if value is None or isinstance(value, float):
        return value
    if isinstance(value, bool):
        return float(value)
    if isinstance(value, int):
        if abs(value) > FLOAT32_MAX:
            raise Refused("non_finite", f"{feature} is larger than a 32-bit float can hold", feature)
        return float(value)
    raise Refused("wrong_type", f"{feature} is {kind_of(value)}; it must be a number, a boolean or null", feature)
