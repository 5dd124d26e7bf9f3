"""Topics read from one offset to another and no further: no consumer group, no commit, nothing created."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import OffsetOutOfRangeError

from worker.errors import BrokerError
from worker.kafka import brokers
from worker.kafka.brokers import client_options, explained
from worker.kafka.needs import require_topic
from worker.kafka.rights import Right
from worker.records import Record
from worker.settings import Settings

AT_ONCE = 4096
_POLL_MS = 500

Spans = dict[int, tuple[int, int]]
"""start ≤ offset < end by partition."""


class Topic:
    """One topic as it is now. Made by `opened`."""

    def __init__(self, consumer: KafkaConsumer, name: str, patience_ms: int) -> None:
        self.name = name
        self._consumer, self._patience_ms = consumer, patience_ms
        self._tps = [TopicPartition(name, p) for p in sorted(consumer.partitions_for_topic(name))]

    def spans(self) -> Spans:
        """All that is there now."""
        starts = self._consumer.beginning_offsets(self._tps)
        ends = self._consumer.end_offsets(self._tps)
        return {tp.partition: (int(starts[tp]), int(ends[tp])) for tp in self._tps}

    def at(self, timestamp_ms: int) -> dict[int, int | None]:
        """By partition, the first offset whose Kafka timestamp is that or later."""
        found = self._consumer.offsets_for_times(dict.fromkeys(self._tps, timestamp_ms))
        return {tp.partition: None if at is None else int(at.offset) for tp, at in found.items()}

    def records(self, spans: Mapping[int, tuple[int, int]]) -> Iterable[list[Record]]:
        """Records of the spans as they come. The end may be a control record, which only moves the position."""
        consumer = self._consumer
        ends = {TopicPartition(self.name, p): end for p, (start, end) in spans.items() if end > start}
        consumer.assign(list(ends))
        for tp in ends:
            consumer.seek(tp, spans[tp.partition][0])
        waited_ms, before = 0, -1
        while open_now := [tp for tp, end in ends.items() if consumer.position(tp) < end]:
            try:
                polled = consumer.poll(timeout_ms=_POLL_MS)
            except OffsetOutOfRangeError as error:
                for tp in error.args[0]:
                    consumer.seek(tp, consumer.beginning_offsets([tp])[tp])
                continue
            done = [tp for tp in ends if tp not in open_now]
            if done:
                consumer.pause(*done)
            records = [r for tp, some in polled.items() for r in some if r.offset < ends[tp]]
            yield records
            at = sum(consumer.position(tp) for tp in ends)
            waited_ms = 0 if records or at != before else waited_ms + _POLL_MS
            before = at
            if waited_ms > self._patience_ms:
                raise BrokerError(
                    f"topic {self.name!r}: nothing came for {waited_ms / 1000:.0f} s, {len(open_now)} partitions "
                    "unread; see whether all brokers are up, and ZMU_KAFKA__REQUEST_TIMEOUT_MS"
                )


def newest(settings: Settings, name: str, most: int) -> list[Record]:
    """The newest records, by partition and offset; none where there is no such topic. Raises BrokerError."""
    if not exists(settings, name):
        return []
    with opened(settings, name) as topic:
        spans = topic.spans()
        each = most // max(len(spans), 1)
        last = {p: (max(start, end - each), end) for p, (start, end) in spans.items()}
        records = [record for some in topic.records(last) for record in some]
    return sorted(records, key=lambda r: (r.partition, r.offset))


@contextlib.contextmanager
def opened(settings: Settings, name: str) -> Iterator[Topic]:
    """Raises BrokerError where there is no such topic, no right to read it, or no broker."""
    require_topic(settings.kafka, Right("Read", "topic", name))
    with _consumer(settings) as consumer, explained(settings.kafka):
        yield Topic(consumer, name, settings.kafka.request_timeout_ms)


def exists(settings: Settings, name: str) -> bool:
    with _consumer(settings) as consumer, explained(settings.kafka):
        return name in consumer.topics()


@contextlib.contextmanager
def _consumer(settings: Settings) -> Iterator[KafkaConsumer]:
    kafka = settings.kafka
    with explained(kafka):
        consumer = brokers.opened(
            KafkaConsumer,
            **client_options(kafka),
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",           # what retention deletes while we read is counted, not passed over
            allow_auto_create_topics=False,
            isolation_level=settings.input.isolation_level,
            max_poll_records=AT_ONCE,
            metrics_enabled=False,
        )
    try:
        yield consumer
    finally:
        consumer.close(autocommit=False, timeout_ms=5_000)
