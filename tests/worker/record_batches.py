"""Record batches as brokers keep them, of every format, codec and kind, and broken ones."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

from hypothesis import strategies as st
from kafka import TopicPartition
from kafka.consumer.fetcher import Fetcher
from kafka.protocol.consumer import FetchResponse
from kafka.record import MemoryRecords
from kafka.record.default_records import DefaultRecordBatchBuilder
from kafka.record.legacy_records import LegacyRecordBatchBuilder
from kafka.record.util import calc_crc32c

TP = TopicPartition("sensor-readings", 3)
CONTROL, APPEND_TIME = 0x20, 0x08
Aborted = FetchResponse.FetchableTopicResponse.PartitionData.AbortedTransaction


class Content(NamedTuple):
    """One record, before it has an offset."""

    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]] = []  # noqa: RUF012  read only


class Kind(NamedTuple):
    """What sort of batch it is."""

    codec: int = 0                      # none, gzip, snappy, lz4, zstd
    magic: int = 2
    producer_id: int = -1
    transactional: bool = False
    append_time: bool = False
    gap: int = 1                        # between its offsets: compaction leaves holes


def batch_of(contents: Sequence[Content], offset: int, kind: Kind = Kind()) -> tuple[bytes, int]:  # noqa: B008
    """A batch and the offset after it."""
    if kind.magic < 2:
        messages = LegacyRecordBatchBuilder(magic=kind.magic, compression_type=kind.codec % 3, batch_size=2**30)
        for n, content in enumerate(contents):
            messages.append(offset + n, content.timestamp, content.key, content.value)
        return bytes(messages.build()), offset + len(contents)
    epoch = 0 if kind.producer_id >= 0 else -1
    builder = DefaultRecordBatchBuilder(2, kind.codec, kind.transactional, kind.producer_id, epoch, epoch, 2**30)
    for n, content in enumerate(contents):
        builder.append(n * kind.gap, content.timestamp, content.key, content.value, content.headers)
    raw = _at_offset(builder.build(), offset)
    if kind.append_time:
        raw = marked(raw, APPEND_TIME)
    return raw, offset + (len(contents) - 1) * kind.gap + 1


def marker_of(abort: bool, producer_id: int, offset: int) -> tuple[bytes, int]:
    """The end of a transaction."""
    builder = DefaultRecordBatchBuilder(2, 0, True, producer_id, 0, -1, 1024)
    builder.append(0, 1_000, struct.pack(">hh", 0, 0 if abort else 1), b"\0\0\0\0\0\0", [])
    return marked(_at_offset(builder.build(), offset), CONTROL), offset + 1


def marked(raw: bytes, attribute: int) -> bytes:
    changed = bytearray(raw)
    changed[22] |= attribute
    return signed(bytes(changed))


def signed(raw: bytes) -> bytes:
    """With the CRC and the length that its bytes have."""
    sized = raw[:8] + struct.pack(">i", len(raw) - 12) + raw[12:]
    return sized[:17] + struct.pack(">I", calc_crc32c(memoryview(sized)[21:])) + sized[21:]


def _at_offset(raw: bytes | bytearray, offset: int) -> bytes:
    return struct.pack(">q", offset) + bytes(raw[8:])


def fetched(
    part: type[Any], raw: bytes, fetch_offset: int = 0, aborted: Sequence[tuple[int, int]] = (), committed: bool = True
) -> Any:
    """A partition's part of a fetch, as the fetcher makes it. aborted: (producer id, first offset)."""
    return part(
        fetch_offset, TP, MemoryRecords(raw), key_deserializer=None, value_deserializer=None, check_crcs=True,
        isolation_level=1 if committed else 0, metric_aggregator=None, on_drain=lambda _: None,
        aborted_transactions=[Aborted(producer_id=p, first_offset=o) for p, o in aborted],
    )


def stock(raw: bytes, **asked: Any) -> Any:
    return fetched(Fetcher.PartitionRecords, raw, **asked)


stamps = st.integers(0, 2**42)
contents = st.builds(
    Content,
    stamps,
    st.none() | st.binary(max_size=12),
    st.none() | st.binary(max_size=200),
    st.lists(st.tuples(st.text(max_size=6), st.none() | st.binary(max_size=6)), max_size=2),
)
kinds = st.builds(
    Kind,
    codec=st.integers(0, 4),
    magic=st.sampled_from([2, 2, 2, 2, 1, 0]),
    producer_id=st.sampled_from([-1, 7, 8]),
    append_time=st.booleans(),
    gap=st.integers(1, 3),
)


@st.composite
def logs(draw: st.DrawFn) -> tuple[bytes, int, list[tuple[int, int]]]:
    """Batches one after the other: bytes, the offset after them, and transactions that the broker says were aborted."""
    raw, offset, aborted = b"", draw(st.integers(0, 50)), []
    for _ in range(draw(st.integers(1, 5))):
        if draw(st.integers(0, 4)) == 0:
            more, offset = marker_of(draw(st.booleans()), draw(st.sampled_from([7, 8])), offset)
        else:
            kind = draw(kinds)
            kind = kind._replace(transactional=kind.producer_id >= 0 and draw(st.booleans()))
            if kind.transactional and draw(st.booleans()):
                aborted.append((kind.producer_id, offset))
            more, offset = batch_of(draw(st.lists(contents, min_size=1, max_size=6)), offset, kind)
        raw += more
        offset += draw(st.integers(0, 2))
    return raw, offset, aborted
