"""Scores → anomaly events: what a subscriber reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from worker import compiled
from worker.detection.detector import Scores
from worker.entities import Entities
from worker.faults.faults import Finding
from worker.models.artifact import Manifest
from worker.places import WHOLE
from worker.records import F32, F64, Batch, Contribution, Event, ModelRef, Origin, Severity, rfc3339
from worker.settings import OutputSettings


class EventBuilder:
    """Events of one model version."""

    def __init__(self, manifest: Manifest, settings: OutputSettings, now_ms: Callable[[], int]) -> None:
        self._model = ModelRef(manifest.name, manifest.version, manifest.sha256)
        self._features = manifest.features
        self._known = frozenset(manifest.entities) if manifest.entities_complete else None
        self._settings = settings
        self._now_ms = now_ms

    def events(self, topic: str, batch: Batch, scores: Scores, entities: Entities) -> Iterator[Event]:
        """One for each anomalous reading, in order of arrival."""
        detected_at = rfc3339(self._now_ms())
        which = np.flatnonzero(scores.anomalous_B)
        columns = (
            batch.entity_B, batch.partition_B, batch.offset_B, batch.rows_B, batch.timestamp_ms_B,
            scores.anomaly_score_B, scores.p_value_B, scores.warming_B, scores.imputed_B,
        )
        rows = zip(*(column[which].tolist() for column in columns), strict=True)
        contributions = self._largest(batch.x_BF[which], scores.expected_BF[which], scores.feature_score_BF[which])
        for (code, partition, offset, row, timestamp_ms, score, p_value, warming, imputed), largest in zip(
            rows, contributions, strict=True
        ):
            entity, source = entities.names[code], _origin(topic, partition, offset, row)
            yield Event(
                kind="anomaly",
                event_id=source.event_id(),
                entity=entity,
                timestamp=rfc3339(timestamp_ms),
                detected_at=detected_at,
                anomaly_score=score,
                p_value=p_value,
                severity=self.severity(score),
                contributions=largest,
                model=self._model,
                source=source,
                flags=self._flags(entity, warming, imputed),
            )

    def faults(
        self, topic: str, findings: Sequence[Finding], batch: Batch, scores: Scores, entities: Entities
    ) -> Iterator[Event]:
        """One for each fault of a sensor that begins, and each silence of an entity that is over and was not said."""
        for finding in findings:
            i = finding.row
            if finding.kind == "silent" or i is None:
                yield from self.silences(topic, [finding], entities)
                continue
            share = 1 / len(finding.features)
            named = finding.features[: self._settings.contributions]
            source = _origin(topic, finding.partition, int(batch.offset_B[i]), int(batch.rows_B[i]))
            yield self._fault(
                source, finding, entities.names[finding.entity],
                score=float(scores.anomaly_score_B[i]),
                p_value=float(scores.p_value_B[i]),
                contributions=tuple(self._contribution(batch, scores, i, f, share) for f in named),
            )

    def silences(self, topic: str, findings: Sequence[Finding], entities: Entities) -> Iterator[Event]:
        """One for each entity that fell silent, about its last reading."""
        for finding in findings:
            source = Origin.at(topic, finding.partition, finding.offset)
            yield self._fault(source, finding, entities.names[finding.entity], 0.0, 1.0, ())

    def _fault(
        self, source: Origin, finding: Finding, entity: str, score: float, p_value: float,
        contributions: tuple[Contribution, ...],
    ) -> Event:
        return Event(
            kind=finding.kind,
            event_id=source.event_id(finding.kind),
            entity=entity,
            timestamp=rfc3339(max(finding.timestamp_ms, 0)),
            detected_at=rfc3339(self._now_ms()),
            anomaly_score=score,
            p_value=p_value,
            severity="warning",
            contributions=contributions,
            model=self._model,
            source=source,
            flags=self._flags(entity),
        )

    def severity(self, anomaly_score: float) -> Severity:
        return "critical" if anomaly_score >= self._settings.critical_score else "warning"

    def _largest(self, x_AF: F32, expected_AF: F32, part_AF: F64) -> Iterator[tuple[Contribution, ...]]:
        """Of each anomalous reading: the features that made it, the largest first."""
        share_AF = part_AF / part_AF.sum(1, keepdims=True)
        feature_AK = np.argsort(-share_AF, axis=1, kind="stable")[:, : self._settings.contributions]
        share_AK = np.take_along_axis(share_AF, feature_AK, 1)
        actual_AK, expected_AK = (
            shortest(np.take_along_axis(column_AF, feature_AK, 1)).tolist() for column_AF in (x_AF, expected_AF)
        )
        for row in zip(feature_AK.tolist(), actual_AK, expected_AK, share_AK.tolist(), strict=True):
            yield tuple(
                Contribution(self._features[f], None if actual != actual else actual, expected, share)
                for f, actual, expected, share in zip(*row, strict=True)
            )

    def _contribution(self, batch: Batch, scores: Scores, i: int, f: int, share: float) -> Contribution:
        actual, expected = shortest(np.array([batch.x_BF[i, f], scores.expected_BF[i, f]])).tolist()
        return Contribution(self._features[f], None if actual != actual else actual, expected, share)

    def is_cold(self, entity: str) -> bool:
        """Whether training has not seen it."""
        return self._known is not None and entity not in self._known

    def _flags(self, entity: str, warming: bool = False, imputed: bool = False) -> tuple[str, ...]:
        said = {"cold_start": self.is_cold(entity), "warming_up": warming, "imputed": imputed}
        return tuple(flag for flag, holds in said.items() if holds)


def _origin(topic: str, partition: int, offset: int, row: int) -> Origin:
    return Origin(topic, partition, offset, None if row == WHOLE else row)


def shortest(numbers: F32) -> F64:
    """The doubles with the fewest digits that are these float32: 8.8739, not 8.873900413513184."""
    core = compiled.core()
    if core is None:
        return np.array([float(str(number)) for number in numbers.flat]).reshape(numbers.shape)
    doubles = np.empty(numbers.shape)
    core.shortest(np.ascontiguousarray(numbers), doubles)
    return doubles
