"""How much an Arrow IPC stream holds, without decoding it: what is not modest is refused before anything is allocated.

A stream is a run of messages: ff ff ff ff, the length of the metadata (int32), the metadata, a body. The metadata is a
flatbuffer (a Message of format/Message.fbs), whose tables name their fields by a vtable of offsets. Compressed buffers
begin with the size that they have once out of their codec (int64; -1: this one is not compressed).

Arrow Columnar Format, "Serialization and Interprocess Communication": https://arrow.apache.org/docs/format/Columnar.html
"""

from __future__ import annotations

import struct
from typing import Literal, NamedTuple

Codec = Literal["lz4", "zstd"]

CONTINUATION = 0xFFFFFFFF
MOST_MESSAGES = 256                     # the schema, a dictionary for each column of names, a batch or a few
VERSION_5 = 4                           # of the metadata: since Arrow 1.0; older ones say elsewhere what is compressed
SCHEMA, DICTIONARY, BATCH = 1, 2, 3     # MessageHeader
CODECS: dict[int, Codec] = {0: "lz4", 1: "zstd"}

_U16, _I32, _I64 = struct.Struct("<H"), struct.Struct("<i"), struct.Struct("<q")
_HEAD, _BUFFER = struct.Struct("<Ii"), struct.Struct("<qq")


class Holding(NamedTuple):
    """columns: of the schema, or arrays of a batch where these are more, nested ones among them.
    decoded_bytes: of bodies, once out of their codec; of dictionaries, once for each batch.
    """

    rows: int
    columns: int
    decoded_bytes: int
    codec: Codec | None


def holding(stream: bytes) -> Holding:
    """Raises ValueError for what is no stream of this format."""
    try:
        return _holding(stream)
    except struct.error:
        raise ValueError("it names places beyond its end") from None


def _holding(stream: bytes) -> Holding:
    at, number, rows, columns, decoded_bytes, dictionaries = 0, 0, 0, 0, 0, 0
    codec: Codec | None = None
    while at < len(stream):
        mark, size = _HEAD.unpack_from(stream, at)
        if mark != CONTINUATION:
            raise ValueError(f"no message begins at byte {at}")
        at += _HEAD.size
        if size == 0:
            break                                       # the end, said; it may also just end
        if number == MOST_MESSAGES:
            raise ValueError(f"more than {MOST_MESSAGES} messages")
        metadata = _Metadata(stream, at, size)
        message = metadata.root()
        if message.u16(0) != VERSION_5:
            raise ValueError("of a version before Arrow 1.0")
        kind, header, body_bytes = message.u8(1), message.table(2), message.i64(3)
        at += size
        if body_bytes < 0 or at + body_bytes > len(stream):
            raise ValueError(f"a body of {body_bytes} bytes where {len(stream) - at} are left")
        if header is None or (kind == SCHEMA) != (number == 0) or kind not in (SCHEMA, DICTIONARY, BATCH):
            raise ValueError("a schema, then record batches and their dictionaries, are read")
        if kind == SCHEMA:
            columns = header.vector(1, 4)[1]
        else:
            batch = header if kind == BATCH else header.table(1)
            if batch is None:
                raise ValueError("a dictionary without values")
            if kind == BATCH:
                rows += _natural(batch.i64(0))
            columns = max(columns, batch.vector(1, 16)[1])
            body = memoryview(stream)[at : at + body_bytes]
            compression = batch.table(3)
            if compression is None:
                held = body_bytes
            else:
                codec = CODECS.get(compression.u8(0))
                held = _decoded_bytes(batch, body)
            if kind == DICTIONARY:
                dictionaries += held
            decoded_bytes += held + (dictionaries if kind == BATCH else 0)     # each batch goes through them anew
        at += body_bytes
        number += 1
    if not number:
        raise ValueError("it holds no schema")
    return Holding(rows, columns, decoded_bytes, codec)


def _decoded_bytes(batch: _Table, body: memoryview) -> int:
    begin, count = batch.vector(2, _BUFFER.size)
    total = 0
    for i in range(count):
        at, size = _BUFFER.unpack_from(batch.metadata.bytes, begin + i * _BUFFER.size)
        if at < 0 or size < 0 or at + size > len(body):
            raise ValueError("a buffer beyond the body's end")
        if size:
            (decoded,) = _I64.unpack_from(body, at)
            total += size if decoded == -1 else _natural(decoded)
    return total


class _Metadata:
    def __init__(self, stream: bytes, at: int, size: int) -> None:
        if size < 0 or at + size > len(stream):
            raise ValueError(f"metadata of {size} bytes where {len(stream) - at} are left")
        self.bytes = memoryview(stream)[at : at + size]

    def root(self) -> _Table:
        return _Table(self, self.read(_I32, 0))

    def read(self, kind: struct.Struct, at: int) -> int:
        if at < 0:                                      # which struct would count from the end
            raise ValueError("it names places before its beginning")
        found: int = kind.unpack_from(self.bytes, at)[0]
        return found


class _Table:
    """Fields by their number in the schema; 0 or None where they are absent."""

    def __init__(self, metadata: _Metadata, at: int) -> None:
        self.metadata, self._at = metadata, at
        self._vtable = at - metadata.read(_I32, at)
        self._vtable_bytes = metadata.read(_U16, self._vtable)

    def _field(self, number: int) -> int:
        """Its place; 0 where it is absent."""
        entry = 4 + 2 * number
        if entry + 2 > self._vtable_bytes:
            return 0
        offset = self.metadata.read(_U16, self._vtable + entry)
        return self._at + offset if offset else 0

    def u8(self, number: int) -> int:
        at = self._field(number)
        return self.metadata.bytes[at] if 0 < at < len(self.metadata.bytes) else 0

    def u16(self, number: int) -> int:
        at = self._field(number)
        return self.metadata.read(_U16, at) if at else 0

    def i64(self, number: int) -> int:
        at = self._field(number)
        return self.metadata.read(_I64, at) if at else 0

    def table(self, number: int) -> _Table | None:
        at = self._field(number)
        return _Table(self.metadata, at + self.metadata.read(_I32, at)) if at else None

    def vector(self, number: int, item_bytes: int) -> tuple[int, int]:
        """Where it begins, and how many items it has."""
        at = self._field(number)
        if not at:
            return 0, 0
        at += self.metadata.read(_I32, at)
        count = self.metadata.read(_I32, at)
        if count < 0 or at + 4 + count * item_bytes > len(self.metadata.bytes):
            raise ValueError("a list beyond the metadata's end")
        return at + 4, count


def _natural(number: int) -> int:
    if number < 0:
        raise ValueError(f"a size of {number}")
    return number
