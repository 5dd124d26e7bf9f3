"""After a new version has come to serve: does it alarm so much more than the one before that it should not?

The one before goes on scoring the same readings, unheard, until the new one is trusted. A fault of the plant is told by
both versions, whenever it begins; only what the new one alone is loud about counts against it.

Legend: B readings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from worker.detection.detector import Detector, Scores
from worker.metrics import Metrics
from worker.models.beside import Beside
from worker.records import I32, Batch

BLOCK = 1000                            # readings that are judged together
LOUDER = 3.0                            # times as often in alarm as the version before


class Rate:
    """An observer of a served version: its share of alarms in the newest readings."""

    def __init__(self) -> None:
        self._readings = self._alarms = 0.0

    def take(self, batch: Batch, scores: Scores) -> None:
        self._readings += len(batch)
        self._alarms += int(scores.anomalous_B.sum())
        if self._readings > 20 * BLOCK:
            self._readings, self._alarms = self._readings / 2, self._alarms / 2

    def reset(self, codes: I32 | Iterable[int]) -> None:    # noqa: ARG002 – it does not tell entities apart
        return None

    @property
    def value(self) -> float:
        """From 0 to 1; 0 where nothing has come."""
        return self._alarms / self._readings if self._readings else 0.0


class Before:
    """The version before, with a memory of its own. Where it cannot judge, the share of alarms that it had stands in:
    until an entity's window is full, and for good after it has failed.
    """

    def __init__(self, detector: Detector, share: float, metrics: Metrics) -> None:
        """share: of its readings in alarm while it served."""
        self._share, self._beside = share, Beside("guard", detector, metrics)

    def alarms(self, batch: Batch) -> float:
        """How many of the next readings it has in alarm."""
        scores = self._beside.score(batch)
        if scores is None:
            return self._share * len(batch)
        unjudged_B = scores.warming_B & ~scores.anomalous_B
        return float(scores.anomalous_B.sum() + self._share * unjudged_B.sum())

    def reset(self, codes: I32 | Iterable[int]) -> None:
        self._beside.reset(codes)


class Guard:
    """An observer of a version that has just come to serve. It judges block after block, until it has seen enough; then
    it lets go of the version before.
    """

    def __init__(self, most: float, before: Before, readings: int, trip: Callable[[float], None]) -> None:
        """most: share of alarms that it may have; readings: after which it is trusted; trip: is told the share."""
        self._most, self._left = most, readings
        self._at_work: tuple[Before, Callable[[float], None]] | None = before, trip
        self._readings, self._alarms, self._alarms_before = 0, 0, 0.0

    @property
    def finished(self) -> bool:
        return self._at_work is None

    def take(self, batch: Batch, scores: Scores) -> None:
        if self._at_work is None:
            return
        before, trip = self._at_work
        self._left -= len(batch)
        self._readings += len(batch)
        self._alarms += int(scores.anomalous_B.sum())
        self._alarms_before += before.alarms(batch)
        tripped, share = False, 0.0
        if self._readings >= BLOCK:
            share, share_before = self._alarms / self._readings, self._alarms_before / self._readings
            self._readings, self._alarms, self._alarms_before = 0, 0, 0.0
            tripped = share > max(self._most, LOUDER * share_before)
        if tripped or self._left <= 0:
            self._at_work = None
        if tripped:
            trip(share)

    def reset(self, codes: I32 | Iterable[int]) -> None:
        """Entities that were forgotten: their codes will be others'."""
        if self._at_work is not None:
            self._at_work[0].reset(codes)
