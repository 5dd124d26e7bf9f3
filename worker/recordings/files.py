"""Recordings: files of readings as the same columns that Kafka's records become.

CSV (`,` or `;`), JSON lines (both also gzipped) and Parquet. JSON lines go through the decoder of Kafka's records;
the others mean the same: a value is read as a double and stored as float32, an empty one is missing, a boolean counts
as 1 or 0, and what is no finite number refuses its row.

Legend: B readings, F features, N rows of a file.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from worker.codec.readings import ReadingDecoder, ReadingSchema
from worker.codec.rules import FLOAT32_MAX, MAX_ENTITY_CHARACTERS
from worker.entities import Entities
from worker.errors import InputError
from worker.recordings import tables
from worker.recordings.tables import Table
from worker.records import I32, Batch, PlainRecord, Refusal

PARTITION = 0
_LINES_AT_ONCE = 4096

_TABLES: dict[str, Callable[[Path], Table]] = {
    ".csv": tables.read_csv,
    ".tsv": tables.read_csv,
    ".parquet": tables.read_parquet,
    ".pq": tables.read_parquet,
}
_JSON_LINES = (".jsonl", ".ndjson", ".json")


def read(path: Path, schema: ReadingSchema, entities: Entities) -> tuple[Batch, list[Refusal]]:
    """A whole file in its order, and the rows that are no readings.

    offset is the 0-based row, partition 0. The entity is the schema's field, else the file's name without endings.
    timestamp_ms is the schema's field, else the first column of dates with times, else -1.
    Raises InputError where the file cannot be used as a whole.
    """
    if is_json_lines(path):
        batch, refused = _read_json_lines(path, schema, entities)
    else:
        batch, refused = _read_table(path, table(path), schema, entities)
    if not len(batch):
        why = f"; row {refused[0].record.offset}: {refused[0].message}" if refused else ""
        raise InputError(f"{path} holds no readings ({len(refused)} rows){why}")
    return batch, refused


def table(path: Path) -> Table:
    """A CSV or Parquet file. Raises InputError where there is none or its ending is unknown."""
    _require(path)
    reader = _TABLES.get(_ending(path))
    if reader is None or (path.suffix == ".gz" and reader is tables.read_parquet):
        known = ", ".join([*_TABLES, *_JSON_LINES])
        raise InputError(f"{path}: recordings end in {known} (.gz after CSV and JSON lines)")
    return reader(path)


def is_json_lines(path: Path) -> bool:
    return _ending(path) in _JSON_LINES


def lines(path: Path) -> Iterator[bytes]:
    """Lines of a JSON lines file; empty ones are no rows. Raises InputError."""
    _require(path)
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for line in file:
                if line.strip():
                    yield line.rstrip(b"\r\n")
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: not readable: {error}") from None


def stem(path: Path) -> str:
    """The file's name without .csv, .gz and the like: the entity of a file that names none."""
    return path.name.removesuffix(".gz").removesuffix(_ending(path)) or path.name


def concatenated(batches: Sequence[Batch], features: int) -> Batch:
    """Batches one after the other as one."""
    none = np.empty(0, np.int64)
    return Batch(
        x_BF=np.concatenate([np.empty((0, features), np.float32), *(b.x_BF for b in batches)]),
        entity_B=np.concatenate([none.astype(np.int32), *(b.entity_B for b in batches)]),
        timestamp_ms_B=np.concatenate([none, *(b.timestamp_ms_B for b in batches)]),
        partition_B=np.concatenate([none.astype(np.int32), *(b.partition_B for b in batches)]),
        offset_B=np.concatenate([none, *(b.offset_B for b in batches)]),
    )


def _read_json_lines(path: Path, schema: ReadingSchema, entities: Entities) -> tuple[Batch, list[Refusal]]:
    decoder = ReadingDecoder(schema, entities)
    key = stem(path).encode()
    rows = (PlainRecord(path.name, PARTITION, i, 0, key, line) for i, line in enumerate(lines(path)))
    batches, refused = [], []
    while some := list(islice(rows, _LINES_AT_ONCE)):
        batch, bad = decoder.decode(some)
        batches.append(batch)
        refused += sorted(bad, key=lambda refusal: refusal.record.offset)
    batch = concatenated(batches, len(schema.features))
    # The decoder gives a record without a time that of Kafka: here 0, which no reading has.
    batch.timestamp_ms_B[batch.timestamp_ms_B == 0] = tables.NO_TIME
    return batch, refused


def _read_table(path: Path, found: Table, schema: ReadingSchema, entities: Entities) -> tuple[Batch, list[Refusal]]:
    columns = found.columns
    needed = [*schema.features, *([schema.entity_field] if schema.entity_field else [])]
    absent = [name for name in needed if name not in columns]
    if absent:
        raise InputError(
            f"{path} has no column {_listed(absent)}; it has {_listed(columns)}. Name the features in "
            "ZMU_INPUT__FEATURES and the entity's column in ZMU_INPUT__ENTITY_FIELD, or take a model of these columns"
        )
    refused: dict[int, tuple[str, str, str | None]] = {}         # position → code, message, feature
    x_NF = np.empty((len(found.row_N), len(schema.features)), np.float32)
    for f, feature in enumerate(schema.features):
        value_N, faults = tables.numbers(columns[feature])
        for i, text in faults.items():
            message = f"{feature} is {text[:32]!r}; it must be a number, a boolean or empty"
            refused.setdefault(i, ("wrong_type", message, feature))
        for i in np.flatnonzero(np.abs(value_N) > FLOAT32_MAX).tolist():
            message = f"{feature} is larger than a 32-bit float can hold ({FLOAT32_MAX:.2g})"
            refused.setdefault(i, ("non_finite", message, feature))
            value_N[i] = np.nan
        x_NF[:, f] = value_N
    stamp_N, faults = _times(found, schema)
    for i, text in faults.items():
        refused.setdefault(i, ("bad_timestamp", f"the time is {text[:64]!r}, which is not RFC 3339 or epoch", None))
    names = [stem(path)] * len(stamp_N) if schema.entity_field is None else tables.texts(columns[schema.entity_field])
    for i, name in enumerate(names):
        if not name or len(name) > MAX_ENTITY_CHARACTERS:
            message = f"{schema.entity_field} is {'empty' if not name else 'too long'}; it must be the entity's name"
            refused.setdefault(i, ("bad_entity", message, None))
    kept = np.delete(np.arange(len(found.row_N)), sorted(refused))
    batch = Batch(
        x_BF=x_NF[kept],
        entity_B=_codes((names[i] for i in kept.tolist()), entities),
        timestamp_ms_B=stamp_N[kept],
        partition_B=np.full(len(kept), PARTITION, np.int32),
        offset_B=found.row_N[kept],
    )
    faulty = {int(found.row_N[i]): why for i, why in refused.items()}
    faulty |= {row: ("wrong_length", message, None) for row, message in found.broken.items()}
    return batch, [
        Refusal(PlainRecord(path.name, PARTITION, row, tables.NO_TIME, None, None), *faulty[row])
        for row in sorted(faulty)
    ]


def _times(found: Table, schema: ReadingSchema) -> tuple[np.ndarray[tuple[int], np.dtype[np.int64]], dict[int, str]]:
    column = found.columns.get(schema.timestamp_field or "")
    if column is None:
        others = (c for name, c in found.columns.items() if name not in {*schema.features, schema.entity_field})
        column = next(filter(tables.holds_times, others), None)
    if column is None:
        return np.full(len(found.row_N), tables.NO_TIME, np.int64), {}
    return tables.times(column)


def _codes(names: Iterable[str | None], entities: Entities) -> I32:
    return np.fromiter((entities.code(PARTITION, name) for name in names if name is not None), np.int32)


def _ending(path: Path) -> str:
    return Path(path.name.removesuffix(".gz")).suffix.lower()


def _require(path: Path) -> None:
    if not path.is_file():
        found = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"{path} {found}; name a file of readings (CSV, JSON lines, Parquet)")


def _listed(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(map(repr, listed[:8])) + (f" and {len(listed) - 8} more" if len(listed) > 8 else "")
