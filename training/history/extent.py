"""Which offsets of a topic a training reads: by age, by start and end, by count, and never past what is there now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from training import durations
from training.settings import Place, TrainingSettings, epoch_ms
from worker.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Extent:
    """start ≤ offset < end by partition. Control records and compacted ones count as records here."""

    spans: dict[int, tuple[int, int]]
    whole: int = 0                      # records in the topic, for messages

    @property
    def records(self) -> int:
        return sum(end - start for start, end in self.spans.values())

    def after(self, starts: Mapping[int, int | None]) -> Extent:
        """Not before these; None: nothing of the partition. Partitions that are not named stay as they are."""
        spans = {}
        for partition, (start, end) in self.spans.items():
            at = starts.get(partition, start)
            spans[partition] = (end if at is None else min(max(start, at), end), end)
        return Extent(spans, self.whole)

    def before(self, ends: Mapping[int, int | None]) -> Extent:
        """Not from these on; None: no end."""
        spans = {}
        for partition, (start, end) in self.spans.items():
            at = ends.get(partition)
            spans[partition] = (start, end if at is None else max(min(end, at), start))
        return Extent(spans, self.whole)


class Offsets(Protocol):
    def begin(self) -> Extent:
        """All that is there now."""

    def at(self, timestamp_ms: int) -> Mapping[int, int | None]:
        """By partition, the first offset of that time or later; None where there is none."""


def asked_for(offsets: Offsets, settings: TrainingSettings, now_ms: int) -> Extent:
    """Raises SettingsError where start or end is neither a time nor offsets."""
    everything = offsets.begin()
    found = Extent(everything.spans, everything.records)
    if settings.start is not None:
        found = found.after(_offsets(offsets, settings.start, "START"))
    if settings.end is not None:
        found = found.before(_offsets(offsets, settings.end, "END"))
    if settings.max_age is not None:
        found = found.after(offsets.at(now_ms - round(durations.seconds(settings.max_age) * 1000)))
    return newest(offsets, found, settings.max_records, now_ms)


def newest(offsets: Offsets, found: Extent, records: int, now_ms: int) -> Extent:
    """The newest `records` of all partitions together, by Kafka's timestamps.

    A bisection over time finds the last millisecond from which on there are enough; of the records of that
    millisecond, the oldest of each partition make way. About 45 questions to the broker, however large the topic.
    """
    if found.records <= records:
        return found
    enough, few = 0, max(now_ms, 0) + 86_400_000        # clocks of producers may run ahead by a day
    wide, narrow = found, found.after(offsets.at(few))
    while few - enough > 1 and wide.records > records:
        middle = (enough + few) // 2
        tried = found.after(offsets.at(middle))
        if tried.records >= records:
            enough, wide = middle, tried
        else:
            few, narrow = middle, tried
    excess = wide.records - records
    spans = {}
    for partition, (start, end) in wide.spans.items():
        dropped = min(excess, max(narrow.spans[partition][0] - start, 0))
        excess -= dropped
        spans[partition] = (start + dropped, end)
    return Extent(spans, found.whole)


def _offsets(offsets: Offsets, place: Place, name: str) -> Mapping[int, int | None]:
    if not isinstance(place, str):
        return dict(place)
    try:
        moment_ms = epoch_ms(place)
    except ValueError:
        raise SettingsError(
            f"ZMU_TRAINING__{name} is {place!r}; it must be a time such as 2026-01-31T08:00:00Z, or offsets by "
            'partition such as {"0": 1000, "1": 900}'
        ) from None
    return offsets.at(moment_ms)
