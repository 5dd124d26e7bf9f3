"""What a training learns from: readings as columns, from files or from a bounded range of the input topic."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import OffsetOutOfRangeError

from training import extent, features
from training.extent import Extent
from training.progress import Progress
from training.settings import Settings
from worker import files
from worker.artifact import OffsetRange
from worker.brokers import client_options, explained, require_topics
from worker.codec.readings import ReadingDecoder, ReadingSchema
from worker.entities import Entities
from worker.errors import BrokerError, TrainingError
from worker.records import Batch, Bools, Record, Refusal

AT_ONCE = 4096
_POLL_MS = 500


@dataclass(frozen=True)
class History:
    """Readings in order of arrival by partition or file, and what became of the rest."""

    features: tuple[str, ...]
    batch: Batch
    entities: Entities
    ranges: tuple[OffsetRange, ...] = ()
    files: tuple[str, ...] = ()
    left_out: Counter[str] | None = None

    def __len__(self) -> int:
        return len(self.batch)

    @property
    def where(self) -> str:
        """For messages."""
        if self.files:
            return ", ".join(self.files)
        spans = ", ".join(f"{r.partition}: {r.start} to {r.end}" for r in self.ranges)
        return f"topic {self.ranges[0].topic!r} (offsets by partition {spans})"

    def without(self, out_B: Bools, reason: str) -> History:
        """Fewer readings, the reason counted."""
        left_out = Counter(self.left_out or {})
        left_out[reason] += int(out_B.sum())
        return replace(self, batch=self.batch.take(~out_B), left_out=left_out)


def from_files(paths: Sequence[Path], settings: Settings) -> History:
    """Every file whole. Features: ZMU_INPUT__FEATURES, or the first file's numeric columns. Raises InputError."""
    names = settings.input.features or features.of_file(paths[0], settings.input)
    schema, entities = _schema(settings, names), Entities()
    batches, left_out = [], Counter[str]()
    for path in paths:
        batch, refused = files.read(path, schema, entities)
        batches.append(batch)
        left_out.update(refusal.code for refusal in refused)
    return History(
        names, files.concatenated(batches, len(names)), entities, files=tuple(map(str, paths)), left_out=left_out
    )


def from_topic(settings: Settings, progress: Progress, now_ms: Callable[[], int]) -> History:
    """The range that the settings ask for, up to what is there now. No consumer group: no offset is committed.

    Raises BrokerError, and TrainingError where the range holds no reading.
    """
    topic, kafka = settings.input.topic, settings.kafka
    with explained(kafka):
        consumer = KafkaConsumer(
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
        require_topics(consumer, kafka, topic)
        with explained(kafka):
            found = extent.asked_for(_Offsets(consumer, topic), settings.training, now_ms())
            if not found.records:
                raise TrainingError(_empty(settings, found))
            progress.say(f"reading {found.records:,} records of topic {topic}")
            reader = _Reader(settings)
            with progress.bar("reading", found.records) as bar:
                for records in _read(consumer, topic, found, kafka.request_timeout_ms):
                    reader.take(records)
                    bar.advance(len(records))
            return reader.history(topic, found)
    finally:
        consumer.close(autocommit=False, timeout_ms=5_000)


class _Offsets:
    """The topic's offsets, as the extent asks for them."""

    def __init__(self, consumer: KafkaConsumer, topic: str) -> None:
        self._consumer = consumer
        self._tps = [TopicPartition(topic, p) for p in sorted(consumer.partitions_for_topic(topic))]

    def begin(self) -> Extent:
        starts = self._consumer.beginning_offsets(self._tps)
        ends = self._consumer.end_offsets(self._tps)
        return Extent({tp.partition: (int(starts[tp]), int(ends[tp])) for tp in self._tps})

    def at(self, timestamp_ms: int) -> dict[int, int | None]:
        """By partition, the first offset whose Kafka timestamp is that or later."""
        found = self._consumer.offsets_for_times(dict.fromkeys(self._tps, timestamp_ms))
        return {tp.partition: None if at is None else int(at.offset) for tp, at in found.items()}


def _read(consumer: KafkaConsumer, topic: str, found: Extent, patience_ms: int) -> Iterable[list[Record]]:
    """Records of the extent as they come. The end may be a control record, which only moves the position."""
    ends = {TopicPartition(topic, p): end for p, (start, end) in found.spans.items() if end > start}
    consumer.assign(list(ends))
    for tp in ends:
        consumer.seek(tp, found.spans[tp.partition][0])
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
        if waited_ms > patience_ms:
            raise BrokerError(
                f"topic {topic!r}: nothing came for {waited_ms / 1000:.0f} s, {len(open_now)} partitions unread; "
                "see whether all brokers are up, and ZMU_KAFKA__REQUEST_TIMEOUT_MS"
            )


class _Reader:
    """Records → columns. The first ones are kept until they have shown which features there are."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._entities = Entities()
        self._names = settings.input.features
        self._decoder: ReadingDecoder | None = None
        self._held: list[Record] = []
        self._batches: list[Batch] = []
        self._left_out = Counter[str]()
        self._first: Refusal | None = None

    def take(self, records: list[Record]) -> None:
        self._held += records
        if self._decoder is not None or len(self._held) >= features.SAMPLE:
            self._decode()

    def history(self, topic: str, found: Extent) -> History:
        self._decode()
        assert self._names is not None
        batch = files.concatenated(self._batches, len(self._names))
        ranges = tuple(
            OffsetRange(topic=topic, partition=p, start=start, end=end)
            for p, (start, end) in found.spans.items()
            if end > start
        )
        history = History(self._names, batch, self._entities, ranges, left_out=self._left_out)
        if not len(batch):
            why = f"; offset {self._first.record.offset}: {self._first.message}" if self._first else ""
            raise TrainingError(f"{history.where} holds {found.records} records, none of them a reading{why}")
        return history

    def _decode(self) -> None:
        if self._decoder is None:
            if self._names is None:
                found = features.of_records((r.value for r in self._held), self._settings.input)
                self._names = features.require(found, f"topic {self._settings.input.topic!r}")
            self._decoder = ReadingDecoder(_schema(self._settings, self._names), self._entities)
        batch, refused = self._decoder.decode(self._held)
        self._held = []
        self._batches.append(batch)
        self._left_out.update(refusal.code for refusal in refused)
        if refused and self._first is None:
            self._first = refused[0]


def _schema(settings: Settings, names: tuple[str, ...]) -> ReadingSchema:
    given = settings.input
    return ReadingSchema(names, given.entity_field, given.timestamp_field, given.values_field, given.max_record_bytes)


def _empty(settings: Settings, found: Extent) -> str:
    asked = settings.training
    bounds = [f"{n} {v!r}" for n, v in (("max_age", asked.max_age), ("start", asked.start), ("end", asked.end)) if v]
    whole = f"; the topic holds {found.whole:,} records in all" if found.whole else "; the topic is empty"
    return (
        f"topic {settings.input.topic!r} at {settings.kafka.bootstrap_servers} has no records to learn from"
        + (f" within {', '.join(bounds)}" if bounds else "")
        + f"{whole}. At least {asked.min_records} readings are needed: "
        + ("widen ZMU_TRAINING__MAX_AGE, __START or __END" if found.whole else "produce some, or name another topic")
    )

