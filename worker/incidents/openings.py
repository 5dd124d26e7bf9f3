"""Which incidents belong together: those that open shortly after or before the first of their group.

A group is not kept anywhere: each entity's columns say which group its last incident belongs to, and since when it is.
"""

from __future__ import annotations

import sys
from bisect import bisect_left, bisect_right, insort

import numpy as np

from worker.incidents.course import PREFIX, UNKNOWN, Opening
from worker.records import I64
from worker.state.state import States


class Openings:
    """The groups of all tracked entities that openings at these times could join."""

    def __init__(self, states: States, timestamp_ms_B: I64, window_ms: int) -> None:
        self._states, self._timestamp_ms_B, self._window_ms = states, timestamp_ms_B, window_ms
        self._of: dict[int, Opening] | None = None      # looked up only when there is an opening
        self._sorted: list[Opening] = []

    def join(self, code: int, opening: Opening) -> Opening:
        """The group of an entity's new incident: the latest one near enough, or a new one."""
        if self._of is None:
            self._of = self._near()
            self._sorted = sorted(self._of.values())
        before = self._of.pop(code, None)
        if before is not None:
            del self._sorted[bisect_left(self._sorted, before)]
        group = self._latest(opening.at_ms) or opening
        self._of[code] = group
        insort(self._sorted, group)
        return group

    def _near(self) -> dict[int, Opening]:
        states, window_ms = self._states, self._window_ms
        at_ms_S = states[PREFIX + "group_ms"]
        since_ms, until_ms = self._timestamp_ms_B.min() - window_ms, self._timestamp_ms_B.max() + window_ms
        known_S = states[PREFIX + "opened_offset"] != UNKNOWN
        near = np.flatnonzero(known_S & (at_ms_S >= since_ms) & (at_ms_S <= until_ms))
        columns = (states[PREFIX + name][near].tolist() for name in ("group_ms", "group_partition", "group_offset"))
        return dict(zip(near.tolist(), map(Opening, *columns), strict=True))

    def _latest(self, at_ms: int) -> Opening | None:
        if not self._window_ms:
            return None
        end = bisect_right(self._sorted, Opening(at_ms + self._window_ms, sys.maxsize, sys.maxsize))
        latest = self._sorted[end - 1] if end else None
        return latest if latest is not None and latest.at_ms >= at_ms - self._window_ms else None
