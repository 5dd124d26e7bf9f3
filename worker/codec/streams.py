"""Arrow streams as they come: measured, opened, validated; and rows of one as a stream of their own."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from worker.codec import ipc, table
from worker.codec.readings import ReadingSchema
from worker.codec.rules import Refused, require_size
from worker.kafka_settings import InputSettings
from worker.places import MOST_ROWS
from worker.records import PlainRecord, Record

ENTITY = "entity"                       # the column that names it where no setting does
EXPANSION = 8                           # a stream may come to so many times the most bytes of a record, no more
# A poll is bounded by the bytes that it fetches: what those may become must be, too. Rows of columns without buffers
# cost a sender nothing.
DENSITY = 16                            # bytes of float32s that a byte of a stream may become …
SPARSE_BYTES = 16_384                   # … and so many more, for a few readings that lack most features

_OPTIONS = pa.ipc.IpcReadOptions(use_threads=False)


class Part(NamedTuple):
    """One record batch."""

    batch: Any
    places: dict[str, int]              # of columns by name; of a name that comes twice the last, as in JSON

    def column(self, name: str) -> Any:
        return self.batch.column(self.places[name])


def require_modest(value: bytes, schema: ReadingSchema) -> ipc.Holding:
    """Before anything is decoded. Raises Refused."""
    require_size(value, schema.max_record_bytes)
    try:
        found = ipc.holding(value)
    except ValueError as error:
        raise Refused("invalid_arrow", f"no Arrow stream: {error}") from None
    most_bytes = EXPANSION * schema.max_record_bytes
    matrix_bytes = 4 * found.rows * len(schema.features)
    if not found.rows:
        raise Refused("empty", "the Arrow stream has no rows; a row is a reading")
    if found.rows > MOST_ROWS:
        raise Refused("too_large", f"{found.rows} rows; at most {MOST_ROWS} are read")
    if found.columns > schema.max_fields:
        raise Refused(
            "too_many_fields",
            f"{found.columns} columns; at most {schema.max_fields} are read (ZMU_INPUT__MAX_FIELDS)",
        )
    if max(found.decoded_bytes, matrix_bytes) > most_bytes:
        raise Refused(
            "too_large",
            f"{len(value)} bytes that come to {max(found.decoded_bytes, matrix_bytes)}; at most {most_bytes} are "
            f"held ({EXPANSION} times ZMU_INPUT__MAX_RECORD_BYTES)",
        )
    if matrix_bytes > DENSITY * len(value) + SPARSE_BYTES:
        raise Refused(
            "too_large",
            f"{len(value)} bytes that come to {matrix_bytes} as {found.rows} rows of {len(schema.features)} features; "
            f"at most {DENSITY} times as many are held: send what is there of them, less compressed",
        )
    return found


def opened(value: bytes) -> list[Part]:
    """Batches with at least one row, each sound. Raises Refused."""
    try:
        batches = [batch for batch in pa.ipc.open_stream(value, options=_OPTIONS) if len(batch)]
        for batch in batches:
            batch.validate(full=True)
        return [Part(batch, {name: i for i, name in enumerate(batch.schema.names)}) for batch in batches]
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        raise Refused("invalid_arrow", f"no sound Arrow stream: {str(error)[:200]}") from None


def only(record: Record, parts: Sequence[Part], rows: list[int], codec: ipc.Codec | None) -> Record:
    """The record with these rows of it; as received where they cannot be taken out."""
    sink = pa.BufferOutputStream()
    schema = parts[0].batch.schema
    if not all(map(table.is_flat, schema.types)):
        return record
    try:
        with pa.ipc.new_stream(sink, schema, options=pa.ipc.IpcWriteOptions(compression=codec)) as writer:
            for batch, which in _shared_out(parts, rows):
                writer.write_batch(batch.take(pa.array(which, pa.int32())))
    except pa.ArrowException:           # a kind of column that this pyarrow can read, and not take from
        return record
    return PlainRecord(
        record.topic, record.partition, record.offset, record.timestamp, record.key, sink.getvalue().to_pybytes(),
        record.headers,
    )


def _shared_out(parts: Sequence[Part], rows: list[int]) -> Iterator[tuple[Any, list[int]]]:
    """By batch, which of its own rows these are. rows: ascending."""
    begin = at = 0
    for batch, _ in parts:
        end = begin + len(batch)
        until = bisect_left(rows, end, at)
        if until > at:
            yield batch, [row - begin for row in rows[at:until]]
        begin, at = end, until


def first_reading(value: bytes, settings: InputSettings) -> tuple[dict[str, object], int]:
    """What a reading in JSON like the stream's first row would look like, and how many rows there are.

    Numbers are 0.0 and texts are empty. Nothing, of a stream that cannot be read: whoever decodes it says why.
    """
    try:
        rows = require_modest(value, ReadingSchema.of((), settings)).rows
        part = opened(value)[0]
    except Refused:
        return {}, 0
    return {name: "" if name == ENTITY else table.first(part.column(name)) for name in part.places}, rows
