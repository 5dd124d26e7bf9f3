"""Entities whose scores a test makes up, and the incidents that come of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from worker.detection.detector import Scores
from worker.entities import Entities
from worker.incidents.incidents import Incident, Incidents
from worker.records import I64, Batch, rfc3339
from worker.settings import IncidentSettings
from worker.state.state import States

FEATURES = ("flow", "pressure", "temperature", "current", "speed", "level", "vibration")
START_MS = 1_764_000_000_000
PARTITIONS = 2
LIKELY = IncidentSettings(
    open_after=3, open_within=5, close_after_seconds=60, cool_down_seconds=100,
    update_seconds=20, critical_after_seconds=600, group_window_seconds=30,
)


class Row(NamedTuple):
    entity: str
    second: float
    score: float
    parts: tuple[float, ...] = (1, 6, 3, 0, 0, 0, 0)
    partition: int = 0


class Plant:
    """Entities, their states, and the readings that have come so far."""

    def __init__(self, changed: dict[str, Any] | None = None, features: Sequence[str] = FEATURES) -> None:
        self.changed = changed or {}
        self.incidents = Incidents(LIKELY.model_copy(update=self.changed), features, critical_score=5.0)
        self.entities, self.states = Entities(), States(self.incidents.fields())
        self.offsets: dict[int, int] = {}

    def feed(self, rows: Sequence[Row]) -> list[Incident]:
        offsets = []
        for row in rows:
            offsets.append(self.offsets.get(row.partition, 0))
            self.offsets[row.partition] = offsets[-1] + 1
        batch = Batch(
            x_BF=np.zeros((len(rows), len(FEATURES)), np.float32),
            entity_B=np.array([self.entities.code(row.partition, row.entity) for row in rows], np.int32),
            timestamp_ms_B=np.array([START_MS + round(1000 * row.second) for row in rows], np.int64),
            partition_B=np.array([row.partition for row in rows], np.int32),
            offset_B=np.array(offsets, np.int64),
        )
        given = {
            "anomaly_score_B": np.array([row.score for row in rows], np.float64),
            "feature_score_BF": np.array([row.parts for row in rows], np.float64).reshape(len(rows), len(FEATURES)),
        }
        rest = {field.name: np.zeros(len(rows)) for field in dataclasses.fields(Scores)}
        return self.incidents.update(self.states, self.entities, "readings", batch, Scores(**(rest | given)))

    def quiet(self, partition: int, second: float) -> list[Incident]:
        stream_time_ms = START_MS + round(1000 * second)
        return self.incidents.quiet(self.states, self.entities, "readings", self.codes(partition), stream_time_ms)

    def codes(self, partition: int) -> I64:
        return np.array(sorted(self.entities.of_partition(partition).values()), np.int64)

    def rows(self) -> dict[tuple[int, str], bytes]:
        """Every entity's row, as it would go to a snapshot."""
        return {
            (partition, name): self.states.dump(code)
            for partition in range(PARTITIONS)
            for name, code in self.entities.of_partition(partition).items()
        }

    def restarted(self) -> Plant:
        """Another process, whose codes are others, goes on with the rows of this one."""
        other = Plant(self.changed)
        other.offsets = dict(self.offsets)
        for (partition, name), row in reversed(self.rows().items()):
            other.states.load(other.entities.code(partition, name), row)
        return other



def run(entity: str, start: float, scores: Iterable[float], **more: Any) -> list[Row]:
    """A reading each second."""
    return [Row(entity, start + i, score, **more) for i, score in enumerate(scores)]


def at(second: float) -> str:
    return rfc3339(START_MS + round(1000 * second))


def said(told: Iterable[Incident]) -> list[str]:
    return [incident.state for incident in told]
