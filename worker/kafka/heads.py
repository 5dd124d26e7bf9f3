"""Where record batches begin and end in raw bytes, and what their heads say, whether it is true or not.

Kafka protocol, "Record Batch": format v2. Older ones, whose messages come one by one or wrapped in one, have the first
fields and the place of the format's number in common with it.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from kafka.errors import CorruptRecordError

_OVERHEAD = 12                          # first offset and length, which the length does not count
_MAGIC_AT = 16
_LEAST = 14                             # of any message of any format


class Header(NamedTuple):
    base_offset: int
    length: int
    leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_offset_delta: int
    first_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    records: int

    @property
    def last_offset(self) -> int:
        return self.base_offset + self.last_offset_delta


HEADER = struct.Struct(">qiibIhiqqqhii")


def is_current(raw: memoryview) -> bool:
    """Whether it is of format v2, and not of an older one."""
    return 2 <= raw[_MAGIC_AT] < 128    # a signed byte


def next_batch(buffer: memoryview, at: int) -> memoryview | None:
    """The batch that begins here; None where the response ends, in the middle of one or not."""
    if len(buffer) - at < _OVERHEAD:
        return None
    length = int.from_bytes(buffer[at + 8 : at + 12], "big", signed=True)
    if length < _LEAST:
        raise CorruptRecordError(f"Record size is less than the minimum record overhead ({_LEAST})")
    end = at + _OVERHEAD + length
    return buffer[at:end] if end <= len(buffer) else None


def next_base(buffer: memoryview, at: int) -> int | None:
    """The first offset of the batch that begins here, if one does. Older formats may give their last one, or none."""
    head = buffer[at : at + _MAGIC_AT + 1]
    return first_offset(head) if len(head) > _MAGIC_AT and is_current(head) else None


def first_offset(raw: memoryview) -> int:
    return int.from_bytes(raw[:8], "big", signed=True)


def header(raw: memoryview) -> Header | None:
    """None of an older format, and of what is too short for one."""
    return Header._make(HEADER.unpack_from(raw)) if len(raw) >= HEADER.size and is_current(raw) else None
