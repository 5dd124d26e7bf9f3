"""All that is remembered of entities, and what it makes of their next readings: scores, faults of sensors, incidents.

One row of States holds what detector, quality monitor and incidents keep of an entity, so that all of it is
restored, forgotten and handed on together. No input or output.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from worker.detection import windows
from worker.detection.detector import Detector, Scores
from worker.entities import Entities
from worker.faults.faults import Finding
from worker.faults.quality import Quality, QualityMonitor
from worker.faults.quality import fields as quality_fields
from worker.incidents.incidents import Incident, Incidents
from worker.records import I32, Batch
from worker.settings import Settings
from worker.state.restore import Restored
from worker.state.state import States
from worker.state.visits import Visits

MAX_ENTITIES = 1_000_000
CARRIED = ("quality_", "incident_")     # columns that mean the same to every version of the same features


class Seen(NamedTuple):
    """What a batch has to say."""

    scores: Scores
    findings: list[Finding]
    incidents: list[Incident]


class Watch:
    def __init__(
        self,
        settings: Settings,
        topic: str,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings, self._topic, self._clock, self._wall_clock = settings, topic, clock, wall_clock
        self.entities = Entities()
        self.states = States(())
        self._seen = np.zeros(0)        # when a reading of the entity last came, by code

    def serve(self, detector: Detector) -> None:
        """Takes a version, the first or a newer one. What the chart and the alarm of the one before remember is not
        this one's; the entities' last readings, their sensors' faults and incidents are.
        """
        manifest, before = detector.manifest, self.states
        self._detector = detector
        quality = manifest.quality or Quality.undemanding(len(manifest.features))
        self._monitor = QualityMonitor(self._asked(quality, manifest.features))
        self._incidents = Incidents(
            self._settings.incidents, manifest.features, self._settings.output.critical_score
        )
        self.states = States(
            (*detector.fields, *quality_fields(len(manifest.features)), *self._incidents.fields())
        )
        kept = [name for name in before.dtype.names or () if name in windows.COLUMNS or name.startswith(CARRIED)]
        self.states.reserve(self.entities.capacity)
        self.states.carry(before, self.entities.codes(), kept)
        for partition in set(self.entities.partitions):
            self._monitor.resume(self.states, partition, self._codes(partition))

    @property
    def model_sha256(self) -> str:
        return self._detector.manifest.sha256

    def process(self, batch: Batch) -> Seen:
        """The next readings."""
        self._reserve()
        self._seen[batch.entity_B] = self._clock()
        visits = Visits.of(batch.entity_B)
        scores = self._detector.score(batch, self.states, visits)
        for observer in self._detector.observers:
            observer.take(batch, scores)
        findings = self._monitor.update(self.states, batch, visits)
        incidents: list[Incident] = []
        if self._settings.incidents.enabled:
            incidents = self._incidents.update(self.states, self.entities, self._topic, batch, scores)
        return Seen(scores, findings, incidents)

    def quiet(self, partition: int, idle_seconds: float) -> tuple[list[Finding], list[Incident]]:
        """Who has fallen silent; to be asked about once a second, while nothing is read again.

        idle_seconds: since the partition last had a reading, where it is read to its end.
        """
        self._reserve()
        codes = self._codes(partition)
        findings = self._monitor.silent(self.states, partition, codes, round(idle_seconds * 1000))
        now_ms = round(self._wall_clock() * 1000)       # kept in the rows, so of a clock that outlives the process
        incidents: list[Incident] = []
        if self._settings.incidents.enabled:
            wide = codes.astype(np.int64)
            incidents = self._incidents.quiet(self.states, self.entities, self._topic, wide, now_ms)
        return findings, incidents

    def restore(self, partition: int, restored: Restored) -> None:
        """Takes over the rows of a partition that was just assigned. Those of another version keep what is not its."""
        codes = {name: self.entities.code(partition, name) for name in restored.rows}
        self._reserve()
        self._seen[list(codes.values())] = self._clock()
        others = []
        sha256 = self._detector.manifest.sha256[:16]
        for name, row in restored.rows.items():
            if row.data is None:
                self.states.reset([codes[name]])
                continue
            self.states.load(codes[name], row.data)
            if row.model != sha256:
                others.append(codes[name])
        self.states.reset(others, [c.name for c in self._detector.fields if c.name not in windows.COLUMNS])
        self._monitor.resume(self.states, partition, self._codes(partition))

    def release(self, partition: int) -> None:
        """Another worker's now."""
        self._reset(self.entities.release_partition(partition))

    def leavers(self) -> I32:
        """Entities that sent nothing for so long that they are forgotten; the longest silent ones, too many or not."""
        codes = np.array(self.entities.codes(), np.int32)
        self._reserve()
        idle = self._clock() - self._seen[codes]
        leaving = idle > self._settings.state.entity_ttl_seconds
        if len(codes) > MAX_ENTITIES:   # names made at random, one for each reading or so
            leaving |= idle >= np.median(idle)
        return codes[leaving]

    def forget(self, codes: I32) -> list[Incident]:
        """Entities leave; what is open of them closes."""
        told = self._incidents.close(self.states, self.entities, self._topic, codes.astype(np.int64))
        self._reset(codes)
        self.entities.release(codes.tolist())
        return told if self._settings.incidents.enabled else []

    def _reset(self, codes: I32) -> None:
        self.states.reset(codes)
        for observer in self._detector.observers:
            observer.reset(codes)

    def _asked(self, quality: Quality, features: tuple[str, ...]) -> Quality:
        """What training learnt, with what the operator says."""
        asked = self._settings.quality
        quality = quality.with_limits(features, asked.limits)
        if asked.silent_after_seconds is not None:
            quality = quality.with_silence(asked.silent_after_seconds)
        return quality.only(asked.kinds)

    def _codes(self, partition: int) -> I32:
        codes: Iterable[int] = self.entities.of_partition(partition).values()
        return np.fromiter(codes, np.int32)

    def _reserve(self) -> None:
        capacity = self.entities.capacity
        self.states.reserve(capacity)
        if capacity > len(self._seen):
            grown = np.full(2 * capacity, self._clock())
            grown[: len(self._seen)] = self._seen
            self._seen = grown
