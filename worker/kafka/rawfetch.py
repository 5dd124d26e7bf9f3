"""kafka-python's consumer made to hand out whole record batches: no object for each record.

This is private ground of kafka-python 3.0 (`Fetcher.PartitionRecords`): `attach` tries it out, and says no where it
is not as known; the consumer then goes on in its own way. Positions, commits, seeks and rebalances stay the
consumer's: a batch is taken whole, and the position moves past it.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Iterator
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import Fetcher
from kafka.errors import CorruptRecordError
from kafka.protocol.consumer import IsolationLevel
from kafka.record import MemoryRecords, MemoryRecordsBuilder
from kafka.record.util import calc_crc32c

from worker.errors import StreamError
from worker.kafka import heads
from worker.kafka.batches import MOST_RECORDS, RecordBatch, walk
from worker.kafka.codecs import decompressed
from worker.kafka.damage import Damage, DamagedBatch, damaged
from worker.kafka.heads import HEADER, Header, first_offset, is_current

_CODEC, _APPEND_TIME, _TRANSACTIONAL, _CONTROL = 0x07, 0x08, 0x10, 0x20
_CRC_FROM = 21                          # what it does not cover comes first
_ABORT = 0


def attach(consumer: KafkaConsumer, damage: Damage | None = None) -> bool:
    """Whether the consumer's poll now gives RecordBatch objects instead of records.

    damage: says which damaged batches are passed over. None: none is; poll raises DamagedBatch then.
    """
    try:
        _try_out()
        fetcher = consumer._fetcher
        if fetcher.PartitionRecords is not Fetcher.PartitionRecords:
            return False
        assignment = consumer._subscription.assignment

        def end_of(tp: TopicPartition) -> int | None:
            return assignment[tp].highwater if tp in assignment else None

        fetcher.PartitionRecords = functools.partial(WholeBatches, damage=damage, end_of=end_of)
    except Exception:                   # whatever it is: this kafka-python is not the one that was built for
        return False
    return True


class WholeBatches(Fetcher.PartitionRecords):  # type: ignore[misc]
    """One partition's part of one fetch response."""

    def __init__(
        self, fetch_offset: int, tp: TopicPartition, records: MemoryRecords, damage: Damage | None = None,
        end_of: Callable[[TopicPartition], int | None] = lambda _: None, **known: Any,
    ) -> None:
        """end_of: the offset that readers may read up to, where it is known."""
        super().__init__(fetch_offset, tp, records, **known)
        self._damage, self._end_of = damage, end_of
        self._next_inline_exception: Exception | None = None
        self.next_fetch_offset = fetch_offset
        self.record_iterator: Iterator[RecordBatch] | None = self._batches(memoryview(records._buffer))

    def take(self, n: int | None = None) -> Taken:
        """Whole batches, until there are n records or more."""
        error: Exception | None = self._next_inline_exception
        if error is not None:
            self.drain()                # to be fetched again, and to say so again: an iterator that threw is over
            raise error
        taken = Taken()
        try:
            for batch in self.record_iterator or ():
                taken.add(batch)
                if n is not None and len(taken) >= n:
                    break
        except Exception as error:
            if not len(taken):
                self.drain()
                raise
            self._next_inline_exception = error         # the batches before it come first
        return taken

    def _batches(self, buffer: memoryview) -> Iterator[RecordBatch]:
        at, asked = 0, self.next_fetch_offset
        while (raw := heads.next_batch(buffer, at)) is not None:
            first, at = at == 0, at + len(raw)
            header, next_base = heads.header(raw), heads.next_base(buffer, at)
            misplaced = self._misplaced(raw, header, next_base, asked)
            if first and not misplaced and (gone := self._gone(first_offset(raw))) is not None:
                self.next_fetch_offset = gone.next_offset
                yield gone
            try:
                if misplaced:
                    raise CorruptRecordError(misplaced)
                batch = self._read(raw, header)
            except CorruptRecordError as error:
                batch = self._passed_over(raw, bool(misplaced), next_base, str(error))
            # The offset asked for may lie behind a response's first batches, and never leads back.
            if batch is not None and batch.next_offset > self.next_fetch_offset:
                self.next_fetch_offset = batch.next_offset
                yield batch
        self.drain()

    def _misplaced(self, raw: memoryview, header: Header | None, next_base: int | None, asked: int) -> str:
        """Why it cannot be where it says, if so. No checksum covers the first offset: what it says must lead neither
        past records that wait nor back to where we have been. Of two that contradict each other, the one that goes on
        where we are is right.
        """
        base = last = first_offset(raw)
        if header is not None:
            last = max(header.last_offset, base)
        here, end = self.next_fetch_offset, self._end_of(self.topic_partition)
        if here > asked and base < here and is_current(raw):       # in older formats it may be another's
            return "its first offset leads back to what comes before it"
        next_lies_within = next_base is not None and here <= next_base <= last
        # The end is as the broker knew it a moment before it read: what goes on where we are may be newer.
        if (next_lies_within and base != here) or (end is not None and last >= end and base > here):
            return "its first offset lies beyond what comes after it"
        return ""

    def _gone(self, base: int) -> RecordBatch | None:
        """What was damaged here when it was fetched last, where the broker now goes on behind it. It looks for an
        offset by first offsets: a batch whose own leads back is found only on the way to another.
        """
        tp, here = self.topic_partition, self.next_fetch_offset
        if self._damage is None or base <= here or not self._damage.left(tp, here):
            return None
        return damaged(tp, here, base, 0, base - here, "damaged, and not given again by the broker")

    def _read(self, raw: memoryview, header: Header | None) -> RecordBatch | None:
        """None where it holds no records for us. Raises CorruptRecordError."""
        if header is None and not is_current(raw):
            return self._of_messages(raw)
        if header is None or (self.check_crcs and calc_crc32c(raw[_CRC_FROM:]) != header.crc):
            raise CorruptRecordError("it fails its CRC")
        self.leader_epoch = header.leader_epoch
        if not self._is_data(header, raw):
            self.next_fetch_offset = max(header.last_offset + 1, self.next_fetch_offset)
            return None
        batch = self._opened(header, raw)
        self.bytes_read += len(raw)
        self.records_read += header.records
        return batch

    def _passed_over(self, raw: memoryview, misplaced: bool, next_base: int | None, why: str) -> RecordBatch:
        """Raises DamagedBatch as long as it is to be fetched again. What its head says may be damage, too: it counts
        where the next batch, or its number of records, agrees. Else the position moves by one offset, and the broker
        gives this batch once more where it holds that offset, too.
        """
        tp = self.topic_partition
        first = self.next_fetch_offset if misplaced else max(first_offset(raw), self.next_fetch_offset)
        if self._damage is None or not self._damage.passes(tp, first):
            raise DamagedBatch(tp, first, why)
        header = Header._make(HEADER.unpack_from(raw.tobytes().ljust(HEADER.size, b"\0")))
        if misplaced:
            header = header._replace(base_offset=first)
        after, records = first + 1, 0
        if next_base is not None and first < next_base <= first + MOST_RECORDS:
            after = next_base
        elif first <= header.last_offset < header.base_offset + header.records <= first + MOST_RECORDS:
            after = header.last_offset + 1
        if 0 < header.records <= after - header.base_offset:
            records = min(header.records, after - first)
        if header.attributes & _CONTROL:
            self.aborted_producer_ids.discard(header.producer_id)   # it was the end of a transaction
        return damaged(tp, first, after, len(raw), records or after - first, why)

    def _is_data(self, header: Header, raw: memoryview) -> bool:
        """Whether it holds records for us: not a marker of a transaction, nor part of one that was aborted."""
        control = bool(header.attributes & _CONTROL)
        if self.isolation_level == IsolationLevel.READ_COMMITTED and header.producer_id > -1:
            self._consume_aborted_transactions_up_to(header.last_offset)
            if control and self._is_abort(header, raw):
                self.aborted_producer_ids.discard(header.producer_id)
            elif header.attributes & _TRANSACTIONAL and header.producer_id in self.aborted_producer_ids:
                return False
        return not control

    def _is_abort(self, header: Header, raw: memoryview) -> bool:
        try:
            markers = walk(self._opened(header, raw)._replace(from_offset=-1))
            return bool(markers) and struct.unpack(">hh", markers[0].key or b"")[1] == _ABORT
        except (StreamError, struct.error) as error:
            raise CorruptRecordError(f"the end of a transaction cannot be read: {error}") from error

    def _opened(self, header: Header, raw: memoryview) -> RecordBatch:
        tp, codec = self.topic_partition, header.attributes & _CODEC
        return RecordBatch(
            partition=tp.partition,
            base_offset=header.base_offset,
            first_timestamp=header.first_timestamp,
            append_timestamp=header.max_timestamp if header.attributes & _APPEND_TIME else None,
            records=header.records,
            from_offset=self.next_fetch_offset,
            data=bytes(raw[HEADER.size :]) if codec == 0 else decompressed(codec, raw[HEADER.size :]),
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
            raise CorruptRecordError(f"its messages cannot be read: {error}") from error
        if not messages or not sound:
            raise CorruptRecordError("a message of it fails its CRC")
        for message in messages:
            builder.skip(message.offset - messages[0].offset - builder.next_offset())
            stamp = -1 if message.timestamp is None else message.timestamp
            builder.append(stamp, message.key, message.value, [])
        builder.close()
        written = memoryview(builder.records()._buffer)
        opened = self._opened(Header._make(HEADER.unpack_from(written)), written)
        self.bytes_read += len(raw)
        self.records_read += opened.records
        return opened._replace(base_offset=messages[0].offset, next_offset=messages[-1].offset + 1)


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
