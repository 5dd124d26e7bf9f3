"""Rows of state as records of a compacted topic, and the note beside a committed offset that says which rows count.

A row is true for ever: what the entity's state was when all its readings below `next_offset`, and none from there on,
had been taken in. It can be old, never wrong. What the rows add up to is worker/state/restore.py's to say.
"""

from __future__ import annotations

import re
import struct
import zlib
from typing import NamedTuple, Self

from worker.records import Record

HEADER = "zmu-state"
_MARK = struct.Struct(">2sB8s8sQQq")
_CHECKSUM = struct.Struct(">I")
MARK_BYTES = _MARK.size + _CHECKSUM.size
_MAGIC, _FORMAT = b"zS", 1

Headers = list[tuple[str, bytes]]


class DamagedRow(ValueError):
    """A record of the state topic that is none of ours, or not as we wrote it."""


class Row(NamedTuple):
    """One entity's state, or (data is None) that it was dropped and begins afresh."""

    name: str
    data: bytes | None          # of worker.state.States.dump
    next_offset: int            # of the input partition
    life: int                   # see Stand
    owner: int                  # who wrote it: drawn anew at every assignment of the partition
    layout: str                 # of worker.state.States, 16 hex digits
    model: str                  # first 16 hex digits of the SHA-256 of the model's weights


class Stand(NamedTuple):
    """What the state topic was good for when an offset was committed: a snapshot is complete at `offset`.

    It travels as the metadata of the committed offset. The group's coordinator takes it from the partition's owner
    alone, so that it is the one thing that a worker which lost the partition cannot write any more.
    """

    offset: int                 # of the input partition: rows of all entities touched below it are on the topic
    life: int                   # the owner under whom all state last began afresh: rows of another life do not count
    owner: int                  # who took the snapshot
    log_start: int              # of the state partition: where its log ended when that owner loaded it
    topic_id: str               # of the state topic: one made anew under the same name lacks the rows

    def note(self) -> str:
        return f"s={self.offset},b={self.life:016x},o={self.owner:016x},l={self.log_start},t={self.topic_id}"

    @classmethod
    def read(cls, note: str) -> Self | None:
        """None where the note is not ours: a tool has set the offsets, or a worker without state committed."""
        found = _NOTE.fullmatch(note)
        if found is None:
            return None
        offset, life, owner, log_start, topic_id = found.groups()
        return cls(int(offset), int(life, 16), int(owner, 16), int(log_start), topic_id)


_NOTE = re.compile(r"s=(\d{1,19}),b=([0-9a-f]{16}),o=([0-9a-f]{16}),l=(\d{1,19}),t=([0-9a-f]*)", re.ASCII)


def pack(row: Row) -> tuple[bytes, bytes | None, Headers]:
    """Key, value and headers. The mark is a header, so that a tombstone has one too.

    Header (big-endian): "zS", format 1, layout 8 bytes, model 8 bytes, life u64, owner u64, next offset i64, CRC-32 of
    all that, the key and the value.
    """
    key = row.name.encode()
    mark = _MARK.pack(
        _MAGIC, _FORMAT, bytes.fromhex(row.layout), bytes.fromhex(row.model), row.life, row.owner, row.next_offset
    )
    return key, row.data, [(HEADER, mark + _CHECKSUM.pack(_checksum(mark, key, row.data)))]


def unpack(record: Record) -> Row:
    """What `pack` packed. Raises DamagedRow, whatever the record holds."""
    mark = next((value for name, value in record.headers if name == HEADER), None)
    if mark is None or len(mark) != MARK_BYTES:
        raise DamagedRow(f"there is no header {HEADER} of {MARK_BYTES} bytes")
    mark, checksum = mark[: _MARK.size], _CHECKSUM.unpack(mark[_MARK.size :])
    magic, form, layout, model, life, owner, next_offset = _MARK.unpack(mark)
    if magic != _MAGIC or form != _FORMAT:
        raise DamagedRow(f"format {form} is not {_FORMAT}, which this version writes and reads")
    name = name_of(record)
    if name is None or checksum != (_checksum(mark, record.key or b"", record.value),):
        raise DamagedRow("the row differs from its checksum")
    return Row(name, record.value, next_offset, life, owner, layout.hex(), model.hex())


def _checksum(mark: bytes, key: bytes, data: bytes | None) -> int:
    return zlib.crc32(data or b"", zlib.crc32(key, zlib.crc32(mark)))


def name_of(record: Record) -> str | None:
    """The entity; None where the key cannot be one's name."""
    try:
        return (record.key or b"").decode() or None
    except UnicodeDecodeError:
        return None
