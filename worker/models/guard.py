"""After a new version has come to serve: does it alarm so much more than the one before that it should not?

A fault of the plant is told by both versions; only what the new one alone is loud about counts against it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from worker.detection.detector import Scores
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


class Guard:
    """An observer of a version that has just come to serve. It judges block after block, until it has seen enough."""

    def __init__(self, most: float, before: Rate, readings: int, trip: Callable[[float], None]) -> None:
        """most: share of alarms that it may have; readings: after which it is trusted; trip: is told the share."""
        self._most, self._before, self._left, self._trip = most, before.value, readings, trip
        self._readings = self._alarms = 0

    def take(self, batch: Batch, scores: Scores) -> None:
        if self._left <= 0:
            return
        self._left -= len(batch)
        self._readings += len(batch)
        self._alarms += int(scores.anomalous_B.sum())
        if self._readings < BLOCK:
            return
        share = self._alarms / self._readings
        self._readings = self._alarms = 0
        if share > max(self._most, LOUDER * self._before):
            self._left = 0
            self._trip(share)

    def reset(self, codes: I32 | Iterable[int]) -> None:    # noqa: ARG002 – it does not tell entities apart
        return None
