"""A second version that scores what the served one scores, and says nothing: how would it do?

Legend: B readings.
"""

from __future__ import annotations

from collections.abc import Iterable

from worker.detection.detector import Detector, Scores
from worker.metrics import Metrics
from worker.models.beside import Beside
from worker.models.shadow_time import Stretch
from worker.records import I32, Batch


class Shadow:
    """An observer of a served detector."""

    def __init__(self, version: str, detector: Detector, metrics: Metrics) -> None:
        self.version, self.stretch = version, Stretch(version)
        self._beside, self._metrics = Beside("shadow", detector, metrics), metrics

    def take(self, batch: Batch, scores: Scores) -> None:
        """The same readings, as the served version has scored them."""
        ours = self._beside.score(batch)
        if ours is not None:
            alarms, alike = int(ours.anomalous_B.sum()), int((ours.anomalous_B == scores.anomalous_B).sum())
            self.stretch.count(len(batch), alarms, alike)
            self._metrics.shadow(self.version, len(batch), alarms, alike)

    def reset(self, codes: I32 | Iterable[int]) -> None:
        self._beside.reset(codes)
