"""Whether the loop still turns, and gets on. Liveness is this, never the broker's reachability: a restart mends no
broker.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class Heartbeat:
    """limit_seconds: after so long without a turn, or without progress while readings wait, nothing will mend it."""

    def __init__(self, limit_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit_seconds, self._clock = limit_seconds, clock
        self._turned = self._progressed = clock()

    def beat(self) -> None:
        """What there was to do is done, or cannot be for a reason that readiness tells."""
        self._turned = self._progressed = self._clock()

    def turn(self) -> None:
        """The loop turns; nothing is known of its work."""
        self._turned = self._clock()

    @property
    def age_seconds(self) -> float:
        return self._clock() - self._turned

    @property
    def alive(self) -> bool:
        return self.age_seconds < self._limit_seconds

    @property
    def doubtful(self) -> bool:
        """Time to look whether there is anything to do."""
        return self._clock() - self._progressed > self._limit_seconds / 2

    @property
    def fault(self) -> str:
        """Why the process should end; empty where it should not."""
        if not self.alive:
            return f"the loop has not turned for {self.age_seconds:.0f} s"
        still_seconds = self._clock() - self._progressed
        if still_seconds >= self._limit_seconds:
            return f"readings wait, or the group does not take us in, and none was done for {still_seconds:.0f} s"
        return ""
