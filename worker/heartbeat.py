"""Whether the loop still turns. Liveness is this, never the broker's reachability: a restart mends no broker."""

from __future__ import annotations

import time
from collections.abc import Callable


class Heartbeat:
    def __init__(self, limit_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit_seconds, self._clock = limit_seconds, clock
        self._last = clock()

    def beat(self) -> None:
        self._last = self._clock()

    @property
    def age_seconds(self) -> float:
        return self._clock() - self._last

    @property
    def alive(self) -> bool:
        return self.age_seconds < self._limit_seconds
