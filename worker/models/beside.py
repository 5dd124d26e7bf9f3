"""A version that scores what another serves, and must not harm it: what fails here is given up, and told once.

Legend: B readings.
"""

from __future__ import annotations

from collections.abc import Iterable

from worker.detection.detector import Detector, Scores
from worker.metrics import Metrics
from worker.records import I32, Batch


class Beside:
    """A detector with a memory of its own, which begins when it does."""

    def __init__(self, stage: str, detector: Detector, metrics: Metrics) -> None:
        """stage: by which its time and its failure are told."""
        self._stage, self._metrics = stage, metrics
        self._detector: Detector | None = detector
        self._states = detector.states()

    def score(self, batch: Batch) -> Scores | None:
        """None where there is nothing to score, or it has been given up."""
        if self._detector is None or not len(batch):
            return None
        try:
            with self._metrics.stage(self._stage):
                self._states.reserve(int(batch.entity_B.max()) + 1)
                return self._detector.score(batch, self._states)
        except Exception as error:      # of whatever kind: events must not stop for its sake
            self._detector = None
            self._metrics.survived(self._stage, error)
            return None

    def reset(self, codes: I32 | Iterable[int]) -> None:
        """Entities that were forgotten: their codes will be others'."""
        self._states.reset(codes)
