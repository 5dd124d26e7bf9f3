"""Arrow streams for tests: readings as rows, and what senders of other habits make of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from tests.factory import FEATURES
from worker.codec.readings import ReadingDecoder, ReadingSchema
from worker.entities import Entities
from worker.records import Batch, PlainRecord, Refusal

NOW_MS = 1_764_000_000_000
SCHEMA = ReadingSchema(FEATURES)


def stream(columns: Mapping[str, Any], codec: str | None = None, cuts: Sequence[int] = ()) -> bytes:
    """Columns are what pa.array takes, or arrays. cuts: rows at which another record batch begins."""
    batch = pa.RecordBatch.from_pydict(dict(columns))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=pa.ipc.IpcWriteOptions(compression=codec)) as writer:
        for begin, end in zip([0, *cuts], [*cuts, len(batch)], strict=True):
            writer.write_batch(batch.slice(begin, end - begin))
    return bytes(sink.getvalue().to_pybytes())


def rows_of(value: bytes) -> list[dict[str, Any]]:
    return list(pa.ipc.open_stream(value).read_all().to_pylist())


def lists_of(kind: Any, rows: Sequence[Sequence[float | None] | None], width: int = 3) -> Any:
    """fixed, list or large."""
    of = {"fixed": pa.list_(pa.float64(), width), "list": pa.list_(pa.float64()), "large": pa.large_list(pa.float64())}
    return pa.array(rows, of[kind])


def decoded(
    value: bytes, schema: ReadingSchema = SCHEMA, key: bytes | None = b"line-1", stamp: int = NOW_MS
) -> tuple[Batch, list[Refusal], list[str]]:
    """And the entities' names."""
    entities = Entities()
    record = PlainRecord("sensor-readings", 2, 41, stamp, key, value, [("content-type", b"x")])
    batch, refused = ReadingDecoder(schema, entities).decode([record])
    return batch, refused, [entities.names[code] for code in batch.entity_B]


def refused_whole(value: bytes, schema: ReadingSchema = SCHEMA, **asked: Any) -> Refusal:
    batch, (refusal,), _ = decoded(value, schema, **asked)
    assert len(batch) == 0
    assert refusal.rows == ()
    assert refusal.readings == 1
    assert refusal.record.value == value
    return refusal
