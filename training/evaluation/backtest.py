"""What a version would have said of readings gone by: the worker's own code over a range of the topic, or files.

Its memory is empty at the start of the range, as a worker's is that keeps no state. Nothing is produced or committed.
"""

from __future__ import annotations

import datetime
import heapq
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from training.history.history import History
from training.settings import Settings
from worker.detection.detector import AT_ONCE, Detector
from worker.events import EventBuilder
from worker.kafka import topics
from worker.records import Event, rfc3339
from worker.watch import Watch

HIGHEST = 20                            # events that are named
UNDATED = "undated"

Day = str
Place = tuple[int, int, int | None]     # partition, offset and row


@dataclass
class Tally:
    """What is counted of one entity on one day."""

    anomalies: int = 0                  # readings in alarm
    incidents: int = 0                  # that opened
    faults: int = 0                     # of sensors


@dataclass
class Overlap:
    """Against the events that the worker really told of these readings."""

    both: int
    only_now: int
    only_then: int


@dataclass
class Backtest:
    name: str
    version: str
    sha256: str
    where: str
    readings: int = 0
    first_ms: int | None = None
    last_ms: int | None = None
    days: dict[str, dict[Day, Tally]] = field(default_factory=dict)     # by entity
    shares: dict[str, float] = field(default_factory=dict)              # by feature, of the anomalies' scores
    severities: Counter[str] = field(default_factory=Counter)
    highest: list[Event] = field(default_factory=list)                  # of each entity and day, the highest first
    left_out: dict[str, int] = field(default_factory=dict)              # records that are no readings, by reason
    overlap: Overlap | None = None      # None where there is no topic of events

    def total(self, what: str) -> int:
        return sum(getattr(tally, what) for days in self.days.values() for tally in days.values())


def run(
    history: History, detector: Detector, settings: Settings, go_on: Callable[[int], None] = lambda _: None
) -> Backtest:
    """history: has the version's features."""
    manifest, batch = detector.manifest, history.batch
    topic = history.ranges[0].topic if history.ranges else settings.input.topic
    watch = Watch(settings, topic)
    watch.entities = history.entities
    watch.serve(detector)
    builder = EventBuilder(manifest, settings.output.model_copy(update={"contributions": len(manifest.features)}), int)
    found = Backtest(
        manifest.name, manifest.version, manifest.sha256, history.where, len(history),
        left_out=dict(history.left_out or {}),
    )
    stamped = batch.timestamp_ms_B[batch.timestamp_ms_B >= 0]
    if len(stamped):
        found.first_ms, found.last_ms = int(stamped.min()), int(stamped.max())
    said: set[Place] = set()
    peaks: dict[tuple[str, Day], Event] = {}
    for start in range(0, len(batch), AT_ONCE):
        part = batch.take(slice(start, start + AT_ONCE))
        seen = watch.process(part)
        for event in builder.events(topic, part, seen.scores, history.entities):
            said.add((event.source.partition, event.source.offset, event.source.row))
            _count(found, event)
            at = event.entity, _day(event.timestamp)
            if at not in peaks or event.anomaly_score > peaks[at].anomaly_score:
                peaks[at] = event
        for fault in builder.faults(topic, seen.findings, part, seen.scores, history.entities):
            _tally(found, fault.entity, fault.timestamp).faults += 1
        for incident in seen.incidents:
            if incident.state == "open":
                _tally(found, incident.entity, incident.opened_at).incidents += 1
        go_on(len(part))
    found.highest = heapq.nlargest(HIGHEST, peaks.values(), key=lambda event: event.anomaly_score)
    if history.ranges:
        found.overlap = _overlap(history, said, settings)
    return found


def _count(found: Backtest, event: Event) -> None:
    _tally(found, event.entity, event.timestamp).anomalies += 1
    found.severities[event.severity] += 1
    for part in event.contributions:
        found.shares[part.feature] = found.shares.get(part.feature, 0.0) + part.share


def _tally(found: Backtest, entity: str, timestamp: str) -> Tally:
    return found.days.setdefault(entity, {}).setdefault(_day(timestamp), Tally())


def _day(timestamp: str) -> Day:
    day = timestamp[:10]
    return UNDATED if day < "1970-01-02" else day


def _overlap(history: History, now: set[Place], settings: Settings) -> Overlap | None:
    """Reads the topic of events whole. Events are told apart by the reading that they are about."""
    if not topics.exists(settings, settings.output.topic):
        return None
    spans = {r.partition: (r.start, r.end) for r in history.ranges}
    then: set[Place] = set()
    decoder = msgspec.json.Decoder(Event)
    with topics.opened(settings, settings.output.topic) as topic:
        for records in topic.records(topic.spans()):
            for record in records:
                try:
                    event = decoder.decode(record.value or b"")
                except (msgspec.DecodeError, UnicodeDecodeError):
                    continue
                start, end = spans.get(event.source.partition, (0, 0))
                ours = event.kind == "anomaly" and event.source.topic == history.ranges[0].topic
                if ours and start <= event.source.offset < end:
                    then.add((event.source.partition, event.source.offset, event.source.row))
    return Overlap(len(now & then), len(now - then), len(then - now))


def days_of(found: Backtest) -> list[Day]:
    """Every day of the range, those without an alert as well."""
    named = {day for days in found.days.values() for day in days}
    if found.first_ms is not None and found.last_ms is not None:
        first, last = (datetime.date.fromisoformat(rfc3339(ms)[:10]) for ms in (found.first_ms, found.last_ms))
        if (last - first).days < 3660:
            named |= {str(first + datetime.timedelta(days=i)) for i in range((last - first).days + 1)}
    return sorted(named)
