"""How well scores and alarms answer to labelled events. Pure arithmetic on rows; no point adjustment.

Legend: N rows of a recording, V events, T thresholds, W buffer widths, M rows near an event, D distances from it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np

from worker.records import F64, I64, Bools

WINDOW = 100                            # largest buffer around an event, in rows, as the TSB-AD benchmark takes it
THRESHOLDS = 250


class Confusion(NamedTuple):
    """Rows by what was said of them and what they are. Rates are NaN where nothing could be right or wrong."""

    hits: int                           # anomalous, in alarm
    false_alarms: int
    misses: int
    passes: int                         # normal, no alarm

    @classmethod
    def of(cls, label_N: Bools, alarm_N: Bools) -> Self:
        sides = (label_N & alarm_N, ~label_N & alarm_N, label_N & ~alarm_N, ~label_N & ~alarm_N)
        return cls(*(int(side_N.sum()) for side_N in sides))

    @classmethod
    def pooled(cls, parts: list[Self]) -> Self:
        """Counts added up: a long recording weighs more than a short one."""
        return cls(*(sum(counts) for counts in zip(*parts, strict=True)))

    @property
    def f1(self) -> float:
        return _ratio(2 * self.hits, 2 * self.hits + self.false_alarms + self.misses)

    @property
    def false_alarm_rate(self) -> float:
        """Share of the normal rows that are in alarm."""
        return _ratio(self.false_alarms, self.false_alarms + self.passes)

    @property
    def missed_rate(self) -> float:
        """Share of the anomalous rows that are not."""
        return _ratio(self.misses, self.misses + self.hits)

    @property
    def always_on(self) -> Self:
        """What an alarm that never ends would get on the same rows."""
        return type(self)(self.hits + self.misses, self.false_alarms + self.passes, 0, 0)


@dataclass(frozen=True, slots=True)
class Events:
    """First and last row of each run of anomalous rows."""

    first_V: I64
    last_V: I64

    def __len__(self) -> int:
        return self.first_V.size

    @classmethod
    def of(cls, label_N: Bools) -> Self:
        step_N = np.diff(np.concatenate([[0], label_N.astype(np.int8), [0]]))
        return cls(np.flatnonzero(step_N == 1), np.flatnonzero(step_N == -1) - 1)

    def delays(self, alarm_N: Bools) -> list[int]:
        """Rows from the start of each event to the first alarm within it; events without one are left out."""
        at = np.flatnonzero(alarm_N)
        place_V = np.searchsorted(at, self.first_V)
        found_V = place_V < len(at)
        alarm_V = at[np.minimum(place_V, len(at) - 1)] if len(at) else np.zeros_like(place_V)
        found_V &= alarm_V <= self.last_V
        return [int(delay) for delay in (alarm_V - self.first_V)[found_V]]


def volume_under_pr(score_N: F64, label_N: Bools, window: int = WINDOW, thresholds: int = THRESHOLDS) -> float:
    """VUS-PR: volume under the surface of precision and recall over all thresholds and buffer widths.

    Paparrizos et al. 2022 (VLDB 15:11), sections 4 and 5. A buffer of width w softens each event's edges: a row at
    distance d ≤ w/2 from it is anomalous to the degree √(1 − d/w), at most 1 in all. At a threshold, with l the degree
    of a row, L its sum over alarms and H that of hard labels alone:

        precision = L / alarms
        recall    = min(L / ((P + P_w) / 2), 1) × share of buffered events that hold an alarm

    where P counts the anomalous rows and P_w adds the degrees that were reached in buffers: (P + P_w)/2 = P + (L−H)/2.
    Buffered events that overlap are one. Thresholds are the scores at equally spaced ranks. The area under precision
    over recall is averaged over w = 0 … window. Only the order of scores counts; none may be NaN. NaN where all rows
    or none are anomalous.
    """
    label_N = np.asarray(label_N, bool)
    positives = int(label_N.sum())
    if positives in (0, label_N.size):
        return math.nan
    ascending_N = np.sort(score_N)
    threshold_T = ascending_N[::-1][np.linspace(0, label_N.size - 1, thresholds).astype(np.int64)]
    alarms_T = label_N.size - np.searchsorted(ascending_N, threshold_T, side="left")
    reached_N = _first_reached(score_N, threshold_T)
    hard_T = np.cumsum(np.bincount(reached_N[label_N], minlength=thresholds)[:thresholds])

    events = Events.of(label_N)
    near_M, edges_DM = _edges(events, label_N, window // 2)
    reached_M = reached_N[near_M]
    area = 0.0
    touched_T = np.zeros(thresholds)
    for width in range(window + 1):
        reach = width // 2
        if width % 2 == 0:                              # an odd width reaches no further than the even one before it
            touched_T = _share_touched(score_N, events, reach, threshold_T)
        ramp_D = np.sqrt(1 - np.arange(1, reach + 1) / max(width, 1))
        degree_M = np.minimum(ramp_D @ edges_DM[:reach], 1.0)
        soft_T = np.cumsum(np.bincount(reached_M, degree_M, minlength=thresholds)[:thresholds])
        recall_T = np.minimum((hard_T + soft_T) / (positives + soft_T / 2), 1.0) * touched_T
        precision_T = (hard_T + soft_T) / alarms_T
        area += float(np.diff(recall_T, prepend=0.0) @ precision_T)
    return area / (window + 1)


def _first_reached(score_N: F64, threshold_T: F64) -> I64:
    """The first of descending thresholds that each row reaches; their number where it reaches none."""
    return np.searchsorted(-threshold_T, -score_N, side="left")


def _edges(events: Events, label_N: Bools, reach: int) -> tuple[I64, F64]:
    """Normal rows within reach of an event, and how many events end d rows before or begin d rows after each."""
    ends_N, begins_N = np.zeros((2, label_N.size + 2 * reach))
    ends_N[events.last_V + reach] = 1.0                 # both padded by `reach` on either side
    begins_N[events.first_V + reach] = 1.0
    near_N = np.zeros(label_N.size + 1)
    np.add.at(near_N, np.maximum(events.first_V - reach, 0), 1)
    np.add.at(near_N, np.minimum(events.last_V + reach + 1, label_N.size), -1)
    near_M = np.flatnonzero((np.cumsum(near_N)[:-1] > 0) & ~label_N)
    distance_D1 = np.arange(1, reach + 1)[:, None]
    at_M = near_M + reach
    return near_M, ends_N[at_M - distance_D1] + begins_N[at_M + distance_D1]


def _share_touched(score_N: F64, events: Events, reach: int, threshold_T: F64) -> F64:
    """By threshold, the share of events, each widened by reach and merged where they meet, that hold an alarm."""
    start_V = np.maximum(events.first_V - reach, 0)
    stop_V = np.minimum(events.last_V + reach + 1, score_N.size)
    apart_V = np.concatenate([[True], start_V[1:] >= stop_V[:-1]])
    first_V, stop_V = start_V[apart_V], stop_V[np.concatenate([apart_V[1:], [True]])]
    spans = np.column_stack([first_V, stop_V]).ravel()  # every other one lies between events
    peak_V = np.sort(np.maximum.reduceat(np.concatenate([score_N, [-np.inf]]), spans)[::2])
    return np.asarray((peak_V.size - np.searchsorted(peak_V, threshold_T, side="left")) / peak_V.size)


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
