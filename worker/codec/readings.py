"""Kafka records → one columnar batch, and the records that are no readings, each with its reason.

A reading is a JSON object: features by name, or all of them as one array; an entity and a timestamp by field or
from Kafka. Absent and null features are missing (NaN); booleans count as 1 and 0. Everything else that is not a
finite number is refused, never guessed.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Self

import msgspec
import numpy as np

from worker.codec import outline
from worker.entities import Entities
from worker.kafka_settings import InputSettings
from worker.records import F32, LATEST_MS, Batch, Record, Refusal

UNKEYED = "unkeyed"                     # the entity of readings that name none
MAX_ENTITY_CHARACTERS = 512
FLOAT32_MAX = float(np.finfo(np.float32).max)
SECONDS_BELOW = 1e11                    # a smaller number is epoch seconds (to the year 5138), a larger one ms


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


class Refused(Exception):
    def __init__(self, code: str, message: str, feature: str | None = None) -> None:
        super().__init__(code, message, feature)
        self.code, self.message, self.feature = code, message, feature


class ReadingDecoder:
    """Decodes batches of records by one schema. Typed and fast where records are plain, patient where not."""

    def __init__(self, schema: ReadingSchema, entities: Entities) -> None:
        self._schema = schema
        self._entities = entities
        self._typed: msgspec.json.Decoder[Any] | None
        try:
            self._typed = msgspec.json.Decoder(_struct(schema))
        except ValueError:
            self._typed = None              # every reading is read patiently
        self._generic = msgspec.json.Decoder()
        self._features: Callable[[Any], Any] = attrgetter(*(f"f_{i}" for i in range(len(schema.features))))
        self._single = len(schema.features) == 1
        self._missing = (None,) * len(schema.features)

    def decode(self, records: Sequence[Record]) -> tuple[Batch, list[Refusal]]:
        """`records` in order of arrival → their readings as columns, and the refused ones."""
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
                message = f"{name} is larger than a 32-bit float can hold ({FLOAT32_MAX:.2g})"
                refused.append(Refusal(kept[i], "non_finite", message, name))
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
        if len(value) > self._schema.max_record_bytes:
            raise Refused(
                "too_large",
                f"{len(value)} bytes; at most {self._schema.max_record_bytes} are read (ZMU_INPUT__MAX_RECORD_BYTES)",
            )
        if len(value) > self._schema.max_fields or value.count(b"[") + value.count(b"{") > self._schema.max_depth:
            self._require_modest(value)
        if self._typed is None:
            return self._read_patiently(record, value)
        try:
            reading = self._typed.decode(value)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            return self._read_patiently(record, value)
        if reading.values is not None:
            row: Any = reading.values
            if len(row) != len(self._missing):
                raise self._wrong_length(len(row))
        else:
            row = self._features(reading)
            if self._single:
                row = (row,)
            if row == self._missing:
                return self._read_patiently(record, value)
        return row, self._entity(record, reading.entity), self._timestamp(record, reading.timestamp)

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
            raise Refused("invalid_json", f"not JSON: {error}") from None
        if not isinstance(document, dict):
            raise Refused("wrong_type", f"found {_kind(document)}; a reading is a JSON object")
        values = document.get(schema.values_field)
        if values is not None:
            if not isinstance(values, list):
                raise Refused("wrong_type", f"{schema.values_field} is {_kind(values)}; it must be an array")
            if len(values) != len(schema.features):
                raise self._wrong_length(len(values))
        elif document.keys().isdisjoint(schema.features):
            raise Refused("no_features", f"none of the model's features is present, such as {schema.features[0]!r}")
        else:
            values = [document.get(name) for name in schema.features]
        row = [_number(name, value) for name, value in zip(schema.features, values, strict=True)]
        entity = document.get(schema.entity_field) if schema.entity_field else None
        stamp = document.get(schema.timestamp_field) if schema.timestamp_field else None
        return row, self._entity(record, entity), self._timestamp(record, stamp)

    def _wrong_length(self, found: int) -> Refused:
        return Refused(
            "wrong_length",
            f"{self._schema.values_field} has {found} numbers; the model has {len(self._schema.features)} features",
        )

    def _entity(self, record: Record, field: object) -> str:
        name = self._schema.entity_field
        if name is not None:
            if isinstance(field, bool) or not isinstance(field, str | int) or field == "":
                raise Refused("bad_entity", f"{name} is {_kind(field)}; it must be the entity's name")
            entity = str(field)
        elif record.key:
            try:
                entity = record.key.decode()
            except UnicodeDecodeError:
                raise Refused("bad_entity", "the message key is not UTF-8") from None
        else:
            return UNKEYED
        if len(entity) > MAX_ENTITY_CHARACTERS:
            raise Refused("bad_entity", f"the entity's name has {len(entity)} characters, over {MAX_ENTITY_CHARACTERS}")
        return entity

    def _timestamp(self, record: Record, field: object) -> int:
        name = self._schema.timestamp_field
        if name is None or field is None:
            if record.timestamp > LATEST_MS:
                raise Refused("bad_timestamp", f"Kafka's timestamp is {record.timestamp} ms, after the year 9999")
            return max(record.timestamp, 0)
        if isinstance(field, str):
            timestamp_ms = _parsed(name, field)
        elif isinstance(field, int | float) and not isinstance(field, bool):
            timestamp_ms = round(field * 1000) if abs(field) < SECONDS_BELOW else round(field)
        else:
            raise Refused("bad_timestamp", f"{name} is {_kind(field)}; it must be epoch ms, epoch s or RFC 3339")
        if not 0 <= timestamp_ms <= LATEST_MS:
            raise Refused("bad_timestamp", f"{name} is {field!r}, outside 1970 to 9999")
        return timestamp_ms


def _struct(schema: ReadingSchema) -> type[msgspec.Struct]:
    """A reading as a type for msgspec, its features first and renamed, since names of features can be any text.

    Raises ValueError for a name that JSON would escape, which msgspec does not take.
    """
    names: dict[str, str] = {}
    fields: list[tuple[str, Any, Any]] = []
    for i, feature in enumerate(schema.features):
        names[f"f_{i}"] = feature
        fields.append((f"f_{i}", float | None, None))
    fields.append(("values", list[float | None] | None, None))
    names["values"] = schema.values_field
    # Where a role has no field of its own, a name that no reading has keeps it absent.
    fields.append(("entity", str | int | None, None))
    names["entity"] = schema.entity_field if schema.entity_field is not None else "\x7fentity"
    fields.append(("timestamp", int | float | str | None, None))
    names["timestamp"] = schema.timestamp_field if schema.timestamp_field is not None else "\x7ftimestamp"
    return msgspec.defstruct("Reading", fields, rename=names, gc=False)


def _number(feature: str, value: object) -> float | None:
    if value is None or isinstance(value, float):
        return value
    if isinstance(value, bool):
        return float(value)
    if isinstance(value, int):
        if abs(value) > FLOAT32_MAX:
            raise Refused("non_finite", f"{feature} is larger than a 32-bit float can hold", feature)
        return float(value)
    raise Refused("wrong_type", f"{feature} is {_kind(value)}; it must be a number, a boolean or null", feature)


def _parsed(name: str, text: str) -> int:
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise Refused("bad_timestamp", f"{name} is {text[:64]!r}, which is not RFC 3339") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return round(moment.timestamp() * 1000)


def _kind(value: object) -> str:
    if value is None:
        return "null or absent"
    if isinstance(value, str):
        return f"the string {value[:32]!r}"
    names = {dict: "an object", list: "an array", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), type(value).__name__)
