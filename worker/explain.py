"""One event, once more: its record and what came before it, through the version that told it, to the same score or not.

Legend: B readings of the entity, the last of them the one in question; F features.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple
from uuid import UUID

import msgspec
import numpy as np

from worker.codec.readings import ReadingDecoder, ReadingSchema
from worker.detection.detector import Detector, Scores
from worker.entities import Entities
from worker.errors import InputError, SettingsError
from worker.kafka import topics
from worker.places import MOST_ROWS, WHOLE
from worker.records import Batch, Event, Origin
from worker.settings import Settings

CLOSE = 1e-6                            # of the score: another processor adds in another order
Verdict = Literal["equal", "close", "different", "nothing to compare"]


class Found(NamedTuple):
    """What Kafka holds of it."""

    origin: Origin
    event: Event | None                 # None where the output topic has none (any more)


@dataclass(frozen=True)
class Explanation:
    found: Found
    entity: str
    features: tuple[str, ...]
    version: str
    batch: Batch                        # the entity's readings up to the one in question
    scores: Scores
    whole: bool                         # whether the partition was read from its very beginning

    @property
    def score(self) -> float:
        return float(self.scores.anomaly_score_B[-1])

    @property
    def verdict(self) -> Verdict:
        event = self.found.event
        if event is None or event.kind == "silent":
            return "nothing to compare"
        if event.anomaly_score == self.score:
            return "equal"
        return "close" if math.isclose(event.anomaly_score, self.score, rel_tol=CLOSE) else "different"

    @property
    def why(self) -> str:
        """What may be behind a difference."""
        if self.verdict != "different":
            return ""
        reasons = [
            "the version came to serve later than the first of these readings, and its chart and alarm began then",
            "ZMU_MODEL__TARGET_RATE, …__ALERTS_PER_DAY or …__WARM_UP were others",
        ]
        if not self.whole:
            reasons.insert(0, "what is remembered reaches further back: give a larger --history")
        return "; or ".join(reasons)


def wanted(settings: Settings, text: str) -> Found:
    """An event_id, or topic/partition/offset (and /row), → where the reading lies, and its event.

    Raises SettingsError for what is neither, InputError where the output topic has no such event.
    """
    try:
        identity, origin = UUID(text), None
    except ValueError:
        origin = _origin(text)
        identity = origin.event_id()
    event = _event(settings, identity)
    if origin is not None:
        return Found(origin, event)
    if event is None:
        raise InputError(
            f"topic {settings.output.topic!r} holds no event {text}; has it expired? Where its reading lies is enough: "
            "zmu-worker explain TOPIC/PARTITION/OFFSET (and /ROW, of an Arrow record)"
        )
    return Found(event.source, event)


def explain(settings: Settings, found: Found, detector: Detector, history: int) -> Explanation:
    """history: records of the partition that are read before the one in question, at most.

    Raises InputError where the record is not there, or is no reading.
    """
    origin = found.origin
    entities = Entities()
    decoder = ReadingDecoder(ReadingSchema.of(detector.manifest.features, settings.input), entities)
    parts: list[Batch] = []
    with topics.opened(settings, origin.topic) as topic:
        first, end = topic.spans().get(origin.partition, (0, 0))
        if not first <= origin.offset < end:
            raise InputError(
                f"{origin.topic}/{origin.partition} holds offsets {first} to {end}: {origin.offset} is not there (any "
                "more)"
            )
        start = max(first, origin.offset - history)
        whole = start == first == 0
        for records in topic.records({origin.partition: (start, origin.offset + 1)}):
            batch, refused = decoder.decode(records)
            for refusal in refused:
                if refusal.record.offset == origin.offset and (not refusal.rows or origin.row in refusal.rows):
                    raise InputError(f"the record is no reading: {refusal.code}: {refusal.message}")
            parts.append(batch)
            # A record may hold many readings: what is kept is bounded by their number.
            while sum(map(len, parts[1:])) > history + MOST_ROWS:
                del parts[0]
                whole = False
    upto = _upto(Batch.joined(parts), origin) if parts else None
    if upto is None:
        raise InputError(f"{origin.topic}/{origin.partition} has no record at offset {origin.offset}")
    batch = upto.take(upto.entity_B == upto.entity_B[-1])
    return Explanation(
        found, entities.names[int(batch.entity_B[-1])], detector.manifest.features, detector.manifest.version, batch,
        detector.score_history(batch), whole,
    )


def _origin(text: str) -> Origin:
    topic, *place = text.split("/")         # which no topic's name has
    if len(place) not in (2, 3) or not all(part.isdecimal() for part in place):
        raise SettingsError(f"{text!r} is neither an event_id nor topic/partition/offset, with /row of an Arrow record")
    return Origin(topic, *map(int, place))


def _event(settings: Settings, identity: UUID) -> Event | None:
    """The last event of that id; reads the output topic whole, but decodes what holds the id only."""
    name = settings.output.topic
    if not topics.exists(settings, name):
        return None
    needle, found = str(identity).encode(), None
    with topics.opened(settings, name) as topic:
        for records in topic.records(topic.spans()):
            for record in records:
                if needle in (record.value or b""):
                    found = _decoded(record.value, lambda event: event.event_id == identity) or found
    return found


def _decoded(value: bytes | None, fits: Callable[[Event], bool]) -> Event | None:
    try:
        event = msgspec.json.decode(value or b"", type=Event)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return event if fits(event) else None


def _upto(batch: Batch, origin: Origin) -> Batch | None:
    """The readings up to the one in question, it the last; None where its record is none.

    Raises InputError where the record has other rows.
    """
    here_B = batch.offset_B == origin.offset
    at = np.flatnonzero(here_B & (batch.rows_B == (WHOLE if origin.row is None else origin.row)))
    if len(at):
        return batch.take(slice(0, int(at[-1]) + 1))
    if not here_B.any():
        return None
    place, last = f"{origin.topic}/{origin.partition}/{origin.offset}", int(batch.rows_B[here_B].max())
    if last == WHOLE:
        raise InputError(f"{place} is one reading and has no rows: leave out /{origin.row}")
    raise InputError(f"{place} is an Arrow record of many readings: name a row of it, {place}/0 to {place}/{last}")
