"""Consecutive anomalies of an entity become one incident: opened, updated, closed. The rules: hysteresis.py.

Pure arithmetic on the columns of States: no input or output, no clock. The same readings in the same order give the
same incidents, whatever the batches they come in.

Legend: E entities, B readings of a batch, N busy ones of them, A anomalous ones, F features, K features that are named.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal
from uuid import UUID

import msgspec
import numpy as np
from msgspec import Meta

from worker.detection.detector import Scores
from worker.entities import Entities
from worker.incidents.course import PREFIX, TOP_FEATURES, UNKNOWN, Course, Courses, fields, renumber
from worker.incidents.hysteresis import Hysteresis, Reading, State
from worker.incidents.openings import Openings
from worker.records import F32, F64, I32, I64, Batch, Bools, Origin, Severity, rfc3339
from worker.settings import IncidentSettings
from worker.state.state import Column, States


class PeakFeature(msgspec.Struct, frozen=True):
    """One feature's part in the highest score."""

    feature: str
    share: Annotated[float, Meta(ge=0, le=1, description="Of the whole score; over all features shares sum to 1.")]


class Incident(msgspec.Struct, frozen=True, kw_only=True):
    """An incident as known at one moment. Fields are added within a schema version, never renamed or dropped."""

    schema_version: Literal[1] = 1
    state: State
    incident_id: Annotated[UUID, Meta(description="uuid5 of the place of the reading that opened it: equal on replay.")]
    entity: str
    opened_at: Annotated[str, Meta(description="Reading time, as all here: RFC 3339, UTC, milliseconds.")]
    updated_at: Annotated[str, Meta(description="Of the last anomaly; in a `close`, the same as closed_at.")]
    closed_at: Annotated[str | None, Meta(description="End of the quiet gap after the last anomaly.")] = None
    severity: Annotated[Severity, Meta(description="By the peak score and by the length.")]
    peak_score: Annotated[float, Meta(ge=0, description="Highest anomaly_score so far.")]
    readings: Annotated[int, Meta(ge=1, description="Anomalous ones so far.")]
    first_event_id: Annotated[UUID, Meta(description="Of the event of its first anomaly.")]
    last_event_id: Annotated[UUID, Meta(description="Of the event of its last anomaly.")]
    features: Annotated[tuple[PeakFeature, ...], Meta(description="Of the highest score; the largest first.")]
    group_id: Annotated[UUID, Meta(description="incident_id of the first of those that opened together.")]
    reopened: Annotated[int, Meta(ge=0, description="How often it opened again while it cooled down.")] = 0
    source: Annotated[Origin, Meta(description="The reading that opened it.")]


class Incidents:
    """Incidents of one model version's scores. All that must last is in the states, in the columns `fields` names."""

    def __init__(self, settings: IncidentSettings, features: Sequence[str], critical_score: float) -> None:
        self._rules = Hysteresis(settings, critical_score)
        self._features = tuple(features)
        self._open_after, self._open_within = settings.open_after, settings.open_within
        self._close_after_ms = round(settings.close_after_seconds * 1000)
        self._group_window_ms = round(settings.group_window_seconds * 1000)

    def fields(self) -> tuple[Column, ...]:
        return fields(self._open_after)

    def update(self, states: States, entities: Entities, topic: str, batch: Batch, scores: Scores) -> list[Incident]:
        """What the batch's readings change, in their order."""
        states.reserve(entities.capacity)
        anomalous_B = scores.anomalous_B
        busy_B = self._busy(states, batch, anomalous_B)
        self._pass_over(states, batch.entity_B[~busy_B])
        if not busy_B.any():
            return []
        told = []
        courses = Courses(states, np.unique(batch.entity_B[busy_B]))
        openings = Openings(states, batch.timestamp_ms_B, self._group_window_ms)
        for reading in _readings(batch, scores, np.flatnonzero(busy_B)):
            course = courses[reading.entity]
            for state in self._rules.step(course, reading, openings.join):
                told.append(self._incident(state, course, reading.entity, entities, topic))
        courses.write()
        return told

    def quiet(
        self, states: States, entities: Entities, topic: str, code_E: I64, stream_time_ms: int
    ) -> list[Incident]:
        """Tells the end of incidents whose entities stopped sending.

        code_E: of one partition. stream_time_ms: of that partition, by any clock that its readings drive. To be called
        every second or so: the gap is measured from the first call after an anomaly. It touches nothing else that
        `update` goes by, but counts what it returns as told: not to be called in a silent replay.
        """
        states.reserve(entities.capacity)
        column = {name: states[PREFIX + name] for name in ("open", "presumed_closed", "silent_since_ms")}
        code_E = code_E[column["open"][code_E]]
        code_E = code_E[~column["presumed_closed"][code_E]]
        since_ms_E = column["silent_since_ms"][code_E]
        new_E = (since_ms_E == UNKNOWN) | (since_ms_E > stream_time_ms)
        since_ms_E[new_E] = stream_time_ms
        column["silent_since_ms"][code_E] = since_ms_E
        silent_E = code_E[stream_time_ms - since_ms_E >= self._close_after_ms]
        column["presumed_closed"][silent_E] = True
        courses = Courses(states, silent_E)
        return [self._incident("close", courses[code], code, entities, topic) for code in silent_E.tolist()]

    def close(self, states: States, entities: Entities, topic: str, code_E: I64) -> list[Incident]:
        """Closes what is open of these entities: they are about to be forgotten."""
        states.reserve(entities.capacity)
        code_E = code_E[states[PREFIX + "open"][code_E]]
        told = []
        courses = Courses(states, code_E)
        for code in code_E.tolist():
            if not courses[code].presumed_closed:
                told.append(self._incident("close", courses[code], code, entities, topic))
            self._rules.close(courses[code])
        courses.write()
        return told

    def renumber(self, states: States, code_E: I64, features: Sequence[str]) -> None:
        """After the states of a model of other features were carried over, in whose order they number them."""
        renumber(states, code_E, features, self._features)

    def _busy(self, states: States, batch: Batch, anomalous_B: Bools) -> Bools:
        """Readings of entities that have an open incident, or an anomaly in the batch."""
        loud_B: Bools = anomalous_B | states[PREFIX + "open"][batch.entity_B]
        if not loud_B.any():
            return loud_B
        loud_by_code: Bools = np.zeros(batch.entity_B.max() + 1, np.bool_)
        loud_by_code[batch.entity_B[loud_B]] = True
        return loud_by_code[batch.entity_B]

    def _pass_over(self, states: States, normal_B: I32) -> None:
        """Normal readings, given by entity, of those that are not busy: earlier anomalies recede."""
        recent = states[PREFIX + "recent"]
        fading = normal_B[recent[normal_B] != 0]
        if len(fading):
            codes, count = np.unique(fading, return_counts=True)
            shifted = recent[codes] << np.minimum(count, self._open_within).astype(np.uint64)
            recent[codes] = shifted & np.uint64((1 << self._open_within) - 1)

    def _incident(self, state: State, course: Course, code: int, entities: Entities, topic: str) -> Incident:
        partition = entities.partitions[code]
        closed_at = rfc3339(self._rules.closed_ms(course)) if state == "close" else None
        return Incident(
            state=state,
            incident_id=_incident_id(topic, partition, course.opened_offset),
            entity=entities.names[code],
            opened_at=rfc3339(course.opened_ms),
            updated_at=closed_at or rfc3339(course.last_ms),
            closed_at=closed_at,
            severity=self._rules.severity(course),
            peak_score=course.peak_score,
            readings=course.readings,
            first_event_id=Origin.at(topic, partition, course.first_offset).event_id(),
            last_event_id=Origin.at(topic, partition, course.last_offset).event_id(),
            features=tuple(
                PeakFeature(self._features[f], float(str(np.float32(share))))
                for f, share in zip(course.peak_feature, course.peak_share, strict=True)
                if share
            ),
            group_id=_incident_id(topic, course.group_partition, course.group_offset),
            reopened=course.reopened,
            source=Origin.at(topic, partition, course.opened_offset),
        )


def _incident_id(topic: str, partition: int, place: int) -> UUID:
    return Origin.at(topic, partition, place).event_id("incident")


def _readings(batch: Batch, scores: Scores, row_N: I64) -> Iterator[Reading]:
    anomalous_N = scores.anomalous_B[row_N]
    feature_AK, share_AK = _largest(scores.feature_score_BF[row_N[anomalous_N]])
    parts = iter(zip(feature_AK.tolist(), share_AK.tolist(), strict=True))
    columns = (batch.entity_B, batch.partition_B, batch.place_B, batch.timestamp_ms_B, scores.anomaly_score_B)
    values = (column[row_N].tolist() for column in columns)
    for *known, anomalous in zip(*values, anomalous_N.tolist(), strict=True):
        yield Reading._make((*known, anomalous, *(next(parts) if anomalous else ([], []))))


def _largest(part_AF: F64) -> tuple[I64, F32]:
    """Each anomaly's largest features and their shares; shares of 0 fill up where there are fewer features."""
    part_AF = np.ascontiguousarray(part_AF)             # sums of the same order, so of the same bits, in any batch
    total_A1 = part_AF.sum(1, keepdims=True)
    share_AF = np.divide(part_AF, total_A1, out=np.zeros_like(part_AF), where=total_A1 > 0)
    feature_AK = np.zeros((len(part_AF), TOP_FEATURES), np.int64)
    share_AK = np.zeros((len(part_AF), TOP_FEATURES), np.float32)
    named = min(TOP_FEATURES, part_AF.shape[1])
    feature_AK[:, :named] = np.argsort(-share_AF, axis=1, kind="stable")[:, :named]
    share_AK[:, :named] = np.take_along_axis(share_AF, feature_AK[:, :named], 1)
    return feature_AK, share_AK
