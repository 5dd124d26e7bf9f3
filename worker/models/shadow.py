"""A second version that scores what the served one scores, and says nothing: how would it do?

It must not harm the one that serves: what fails here is given up, and told once.

Legend: B readings.
"""

from __future__ import annotations

from collections.abc import Iterable

from worker.detection.detector import Detector, Scores
from worker.metrics import Metrics
from worker.records import I32, Batch


class Shadow:
    """An observer of a served detector; with a memory of its own, which begins when it does."""

    def __init__(self, version: str, detector: Detector, metrics: Metrics) -> None:
        self.version = version
        self._detector, self._metrics = detector, metrics
        self._states = detector.states()
        self._given_up = False

    def take(self, batch: Batch, scores: Scores) -> None:
        """The same readings, as the served version has scored them."""
        if self._given_up or not len(batch):
            return
        try:
            with self._metrics.stage("shadow"):
                self._states.reserve(int(batch.entity_B.max()) + 1)
                ours = self._detector.score(batch, self._states)
        except Exception as error:      # of whatever kind: events must not stop for its sake
            self._given_up = True
            self._metrics.survived("shadow", error)
            return
        alike = int((ours.anomalous_B == scores.anomalous_B).sum())
        self._metrics.shadow(self.version, len(batch), int(ours.anomalous_B.sum()), alike)

    def reset(self, codes: I32 | Iterable[int]) -> None:
        """Entities that were forgotten: their codes will be others'."""
        self._states.reset(codes)
