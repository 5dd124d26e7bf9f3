"""What a training learns from: readings as columns, from files or from a bounded range of the input topic."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from training import ranks
from training.history import extent, features, shards
from training.history.extent import Extent
from training.history.shards import Shard
from training.history.spool import Spool
from training.progress import Progress
from training.settings import Settings
from worker.codec.readings import ReadingDecoder, ReadingSchema
from worker.entities import Entities
from worker.errors import TrainingError
from worker.kafka import topics
from worker.models.artifact import OffsetRange
from worker.recordings import files
from worker.records import I64, Batch, Record, Refusal


@dataclass(frozen=True)
class History:
    """Readings in order of arrival by partition or file, and what became of the rest. A topic's columns lie on disk."""

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

    def only(self, row_N: I64, left_out: Mapping[str, int]) -> History:
        """These readings, in memory; of the others the number by reason."""
        counted = Counter(self.left_out or {})
        counted.update(left_out)
        return replace(self, batch=self.batch.take(row_N), left_out=counted)


def from_files(paths: Sequence[Path], settings: Settings) -> History:
    """Every file whole, each as a partition. Raises InputError.

    Features: ZMU_INPUT__FEATURES, or the first file's numeric columns, without those ignored and the labels.
    """
    label = settings.training.label
    given = settings.input.model_copy(update={"ignore": (*settings.input.ignore, *((label,) if label else ()))})
    names = settings.input.features or features.of_file(paths[0], given)
    schema, entities = ReadingSchema.of(names, settings.input), Entities()
    batches, left_out = [], Counter[str]()
    for number, path in enumerate(paths):
        batch, refused = files.read(path, schema, entities)
        batches.append(replace(batch, partition_B=np.full(len(batch), number, np.int32)))
        left_out.update(refusal.code for refusal in refused)
    return History(
        names, files.concatenated(batches, len(names)), entities, files=tuple(map(str, paths)), left_out=left_out
    )


def from_topic(
    settings: Settings, progress: Progress, now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    asked: Callable[[Extent], None] = lambda _: None,
) -> History:
    """The range that the settings ask for, up to what is there now. No consumer group: no offset is committed.

    asked: is told the range before it is read, and may object.
    Raises BrokerError, and TrainingError where the range holds no reading.
    """
    with topics.opened(settings, settings.input.topic) as topic:
        found = shards.agreed(extent.asked_for(_Offsets(topic), settings.training, now_ms()))
        if not found.records:
            raise TrainingError(_empty(settings, found))
        asked(found)
        progress.say(f"reading {found.records:,} records of topic {topic.name}")
        mine = Extent({partition: found.spans[partition] for partition in ranks.share(sorted(found.spans))})
        with (
            contextlib.closing(_Reader(settings)) as reader,
            progress.bar("reading", mine.records) as bar,
        ):
            for records in topic.records(mine.spans):
                reader.take(records)
                bar.advance(len(records))
            return reader.history(topic.name, found)


class _Offsets:
    """The topic's offsets, as the extent asks for them."""

    def __init__(self, topic: topics.Topic) -> None:
        self._topic = topic

    def begin(self) -> Extent:
        return Extent(self._topic.spans())

    def at(self, timestamp_ms: int) -> Mapping[int, int | None]:
        return self._topic.at(timestamp_ms)


class _Reader:
    """Records → columns. The first ones are kept until they have shown which features there are."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._entities = Entities()
        self._names = settings.input.features
        self._decoder: ReadingDecoder | None = None
        self._held: list[Record] = []
        self._spool: Spool | None = None
        self._left_out = Counter[str]()
        self._first: Refusal | None = None

    def take(self, records: list[Record]) -> None:
        self._held += records
        if self._decoder is not None or len(self._held) >= features.SAMPLE:
            self._decode()

    def close(self) -> None:
        if self._spool is not None:
            self._spool.close()

    def history(self, topic: str, found: Extent) -> History:
        self._decode()
        assert self._names is not None
        assert self._spool is not None
        shard = Shard(self._spool.batch(), self._entities, self._left_out)
        batch, entities, left_out = shards.together(shard)
        ranges = tuple(
            OffsetRange(topic=topic, partition=p, start=start, end=end)
            for p, (start, end) in found.spans.items()
            if end > start
        )
        history = History(self._names, batch, entities, ranges, left_out=left_out)
        if not len(batch):
            why = f"; offset {self._first.record.offset}: {self._first.message}" if self._first else ""
            raise TrainingError(f"{history.where} holds {found.records} records, none of them a reading{why}")
        return history

    def _decode(self) -> None:
        if self._decoder is None:
            if self._names is None:
                found = shards.first_known(features.of_records((r.value for r in self._held), self._settings.input))
                self._names = features.require(found, f"topic {self._settings.input.topic!r}")
            self._decoder = ReadingDecoder(ReadingSchema.of(self._names, self._settings.input), self._entities)
            self._spool = Spool(len(self._names))
        batch, refused = self._decoder.decode(self._held)
        self._held = []
        assert self._spool is not None
        self._spool.append(batch)
        for refusal in refused:
            self._left_out[refusal.code] += refusal.readings
        if refused and self._first is None:
            self._first = refused[0]


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

