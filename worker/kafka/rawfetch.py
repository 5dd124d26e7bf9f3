"""kafka-python's consumer made to hand out whole record batches: no object for each record.

This is private ground of kafka-python 3.0 (`Fetcher.PartitionRecords`): `attach` tries it out, and says no where it
is not as known; the consumer then goes on in its own way. Positions, commits, seeks and rebalances stay the
consumer's: a batch is taken whole, and the position moves past it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import kafka.codec as codecs
from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import Fetcher
from kafka.errors import CorruptRecordError, UnsupportedCodecError
from kafka.protocol.consumer import IsolationLevel
from kafka.record import MemoryRecords, MemoryRecordsBuilder
from kafka.record.util import calc_crc32c

from worker.errors import StreamError
from worker.kafka.batches import RecordBatch, walk

_CODECS: dict[int, tuple[str, Callable[[], bool], Callable[[bytes], bytes]]] = {
    1: ("gzip", codecs.has_gzip, codecs.gzip_decode),
    2: ("snappy", codecs.has_snappy, codecs.snappy_decode),
    3: ("lz4", codecs.has_lz4, codecs.lz4_decode),
    4: ("zstd", codecs.has_zstd, codecs.zstd_decode),
}
_CODEC, _APPEND_TIME, _TRANSACTIONAL, _CONTROL = 0x07, 0x08, 0x10, 0x20
_OVERHEAD, _CRC_FROM = 12, 21           # base offset and length are not counted by the length; nor the head by the CRC
_MAGIC_AT = 16
_LEAST = 14                             # of any message of any format
_ABORT = 0


class _Header(NamedTuple):
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


_HEADER = struct.Struct(">qiibIhiqqqhii")


def attach(consumer: KafkaConsumer) -> bool:
    """Whether the consumer's poll now gives RecordBatch objects instead of records."""
    try:
        _try_out()
        fetcher = consumer._fetcher
        if fetcher.PartitionRecords is not Fetcher.PartitionRecords:
            return False
        fetcher.PartitionRecords = WholeBatches
    except Exception:                   # whatever it is: this kafka-python is not the one that was built for
        return False
    return True


class WholeBatches(Fetcher.PartitionRecords):  # type: ignore[misc]
    """One partition's part of one fetch response."""

    def __init__(self, fetch_offset: int, tp: TopicPartition, records: MemoryRecords, **known: Any) -> None:
        super().__init__(fetch_offset, tp, records, **known)
        self.record_iterator: Iterator[RecordBatch] | None = self._batches(memoryview(records._buffer))

    def take(self, n: int | None = None) -> Taken:
        """Whole batches, until there are n records or more."""
        self._maybe_raise_next_inline_exception()
        taken = Taken()
        try:
            for batch in self.record_iterator or ():
                taken.add(batch)
                if n is not None and len(taken) >= n:
                    break
        except Exception as error:
            if not len(taken):
                self.drain()            # to be fetched again, and to say so again: an iterator that threw is over
                raise
            self._next_inline_exception = error         # the batches before it come first
        return taken

    def _batches(self, buffer: memoryview) -> Iterator[RecordBatch]:
        at = 0
        last: _Header | None = None
        while (raw := _next(buffer, at)) is not None:
            at += len(raw)
            if not 2 <= raw[_MAGIC_AT] < 128:           # a signed byte
                last = None
                yield self._of_messages(raw)
                continue
            last = header = _Header._make(_HEADER.unpack_from(raw)) if len(raw) >= _HEADER.size else None
            if header is None or (self.check_crcs and calc_crc32c(raw[_CRC_FROM:]) != header.crc):
                raise CorruptRecordError(
                    f"Record batch for partition {self.topic_partition} at offset {int.from_bytes(raw[:8], 'big')} "
                    "failed crc check"
                )
            self.leader_epoch = header.leader_epoch
            if self._is_data(header, raw):
                batch = self._opened(header, raw)
                self.bytes_read += len(raw)
                self.records_read += header.records
                self.next_fetch_offset = batch.next_offset
                if batch.next_offset > self.fetch_offset:
                    yield batch
            else:
                self.next_fetch_offset = header.last_offset + 1
        if last is not None:
            self.next_fetch_offset = last.last_offset + 1
        self.drain()

    def _is_data(self, header: _Header, raw: memoryview) -> bool:
        """Whether it holds records for us: not a marker of a transaction, nor part of one that was aborted."""
        control = bool(header.attributes & _CONTROL)
        if self.isolation_level == IsolationLevel.READ_COMMITTED and header.producer_id > -1:
            self._consume_aborted_transactions_up_to(header.last_offset)
            if control and self._is_abort(header, raw):
                self.aborted_producer_ids.discard(header.producer_id)
            elif header.attributes & _TRANSACTIONAL and header.producer_id in self.aborted_producer_ids:
                return False
        return not control

    def _is_abort(self, header: _Header, raw: memoryview) -> bool:
        try:
            marker = next(walk(self._opened(header, raw)._replace(from_offset=-1)), None)
            return marker is not None and struct.unpack(">hh", marker.key or b"")[1] == _ABORT
        except (StreamError, struct.error) as error:
            raise CorruptRecordError(f"Found invalid control record: {error}") from error

    def _opened(self, header: _Header, raw: memoryview) -> RecordBatch:
        tp, codec = self.topic_partition, header.attributes & _CODEC
        return RecordBatch(
            partition=tp.partition,
            base_offset=header.base_offset,
            first_timestamp=header.first_timestamp,
            append_timestamp=header.max_timestamp if header.attributes & _APPEND_TIME else None,
            records=header.records,
            from_offset=self.fetch_offset,
            data=bytes(raw[_HEADER.size :]) if codec == 0 else _decompressed(codec, bytes(raw[_HEADER.size :])),
            topic=tp.topic,
            next_offset=header.last_offset + 1,
            newest_ms=header.max_timestamp,
        )

    def _of_messages(self, raw: memoryview) -> RecordBatch:
        """Messages of formats v0 and v1, which old segments may still hold, written anew as v2."""
        builder = MemoryRecordsBuilder(magic=2, compression_type=0, batch_size=2**31 - 1)
        try:
            batch = MemoryRecords(bytes(raw)).next_batch()
            sound = not self.check_crcs or batch.validate_crc()
            messages = list(batch) if sound else []
            sound = sound and (not self.check_crcs or all(message.validate_crc() for message in messages))
        except (struct.error, ValueError, IndexError) as error:
            raise CorruptRecordError(f"Found invalid messages in {self.topic_partition}: {error}") from error
        if not messages or not sound:
            raise CorruptRecordError(f"Messages of {self.topic_partition} failed crc check")
        for message in messages:
            builder.skip(message.offset - messages[0].offset - builder.next_offset())
            stamp = -1 if message.timestamp is None else message.timestamp
            builder.append(stamp, message.key, message.value, [])
        builder.close()
        written = memoryview(builder.records()._buffer)
        opened = self._opened(_Header._make(_HEADER.unpack_from(written)), written)
        self.bytes_read += len(raw)
        self.records_read += opened.records
        self.next_fetch_offset = messages[-1].offset + 1
        return opened._replace(base_offset=messages[0].offset, next_offset=self.next_fetch_offset)


class Taken:
    """Batches to whoever goes through them; their number of records to whoever asks for the length."""

    def __init__(self) -> None:
        self._batches: list[RecordBatch] = []
        self._records = 0

    def add(self, batch: RecordBatch) -> None:
        self._batches.append(batch)
        self._records += max(batch.records, 1)

    def __len__(self) -> int:
        return self._records

    def __iter__(self) -> Iterator[RecordBatch]:
        return iter(self._batches)


def _next(buffer: memoryview, at: int) -> memoryview | None:
    """The batch that begins here; None where the response ends, in the middle of one or not."""
    if len(buffer) - at < _OVERHEAD:
        return None
    length = int.from_bytes(buffer[at + 8 : at + 12], "big", signed=True)
    if length < _LEAST:
        raise CorruptRecordError(f"Record size is less than the minimum record overhead ({_LEAST})")
    end = at + _OVERHEAD + length
    return buffer[at:end] if end <= len(buffer) else None


def _decompressed(codec: int, data: bytes) -> bytes:
    if codec not in _CODECS:
        raise UnsupportedCodecError(f"Unrecognized compression type: {codec}")
    name, is_there, decode = _CODECS[codec]
    if not is_there():
        raise UnsupportedCodecError(f"Libraries for {name} compression codec not found")
    try:
        return bytes(decode(data))
    except Exception as error:          # each codec has its own
        raise CorruptRecordError(f"Found data that {name} cannot decompress: {error}") from error


def _try_out() -> None:
    """The ways of kafka-python that this rests on, gone through once. Raises whatever comes of it otherwise."""
    builder = MemoryRecordsBuilder(magic=2, compression_type=0, batch_size=4096)
    for i in range(3):
        builder.append(i, b"k", b"v")
    builder.close()
    tp = TopicPartition("trial", 0)
    drained: list[WholeBatches] = []
    part = WholeBatches(
        1, tp, MemoryRecords(bytes(builder._buffer)), check_crcs=True, key_deserializer=None, value_deserializer=None,
        isolation_level=IsolationLevel.READ_COMMITTED, aborted_transactions=None, metric_aggregator=None,
        on_drain=drained.append,
    )
    taken = part.take(1)
    found = [record[1:6] for batch in taken for record in walk(batch)]
    if found != [(0, 1, 1, b"k", b"v"), (0, 2, 2, b"k", b"v")] or part.next_fetch_offset != 3:
        raise ValueError("record batches are not as known")
    if len(part.take(1)) or part or drained != [part]:
        raise ValueError("a fetched part does not end as known")
