"""Is what comes in still like what was learnt? Two statistics for each feature, over the newest readings.

    PSI     population stability index, Σ (p − q) ln(p / q) over ten bins of equal share and what lies beyond them
            (Siddiqi 2006); below 0.1 is no change, above 0.25 a large one, by custom
    KS      Kolmogorov and Smirnov's largest distance between the two distributions, at the reference's quantiles

The reference is part of a version: quantiles of the readings that it has learnt from. Memory is fixed: counts of bins,
in panes that are forgotten one after the other. All entities count together.

Legend: B readings, F features, K edges, C bins between and beyond them, P panes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from worker.detection.detector import Scores
from worker.models.reference import DECILES, PER_DECILE, Reference, counted
from worker.records import F32, F64, I32, Batch

LEAST_SHARE = 1e-3                      # of a bin, so that an empty one does not weigh without bound
PANES = 12
LEAST_READINGS = 1000                   # fewer say nothing
AT_MOST = 256                           # of a batch are counted: a statistic needs no more, and the loop has no time


class Statistics(NamedTuple):
    """NaN where too little has come."""

    psi_F: F64
    ks_F: F64


class Drift:
    """Counts what comes beside a reference: an observer of a served detector. Any thread may ask for `statistics`."""

    def __init__(self, reference: Reference, window: int, least: int) -> None:
        """window: readings that are looked back at; least: fewer than these say nothing."""
        self._edge_FK = np.array(reference.edges)
        self._share_FC = np.array(reference.shares)
        self._per_pane, self._least = max(window // PANES, 1), least
        self._pane_PFC: NDArray[np.int64] = np.zeros((PANES, *self._share_FC.shape), np.int64)
        self._at, self._in_pane = 0, 0
        self._taken, self._known = 0, (-1, Statistics(np.empty(0), np.empty(0)))

    def take(self, batch: Batch, scores: Scores) -> None:
        self.count(batch.x_BF, scores.settled_B)

    def reset(self, codes: I32 | Iterable[int]) -> None:
        """What entities have sent stays counted."""

    def count(self, x_BF: F32, raw_B: F64) -> None:
        """The next readings and their raw scores; NaN where there is none."""
        step = max(-(-len(x_BF) // AT_MOST), 1)
        some_BF = np.column_stack([x_BF[::step].astype(np.float64), raw_B[::step]])
        if not len(some_BF):
            return
        if self._in_pane >= self._per_pane:
            self._at, self._in_pane = (self._at + 1) % PANES, 0
            self._pane_PFC[self._at] = 0
        for f, column in enumerate(some_BF.T):
            self._pane_PFC[self._at, f] += counted(column[~np.isnan(column)], self._edge_FK[f])
        self._in_pane += len(some_BF)
        self._taken += len(some_BF)

    def statistics(self) -> Statistics:
        """Of each feature, and last of the score. Made once for all that ask before something new has come."""
        taken = self._taken
        if self._known[0] != taken:
            self._known = taken, self._made()
        return self._known[1]

    def _made(self) -> Statistics:
        count_FC = self._pane_PFC.sum(0)
        total_F = count_FC.sum(1)
        live_FC = count_FC / np.maximum(total_F, 1)[:, None]
        few_F = total_F < self._least
        ks_F = np.abs(np.cumsum(live_FC - self._share_FC, axis=1)).max(1)
        p_FC, q_FC = (np.maximum(_by_decile(share_FC), LEAST_SHARE) for share_FC in (live_FC, self._share_FC))
        psi_F = ((p_FC - q_FC) * np.log(p_FC / q_FC)).sum(1)
        return Statistics(np.where(few_F, np.nan, psi_F), np.where(few_F, np.nan, ks_F))


def _by_decile(share_FC: F64) -> F64:
    """Below the reference, its ten tenths, and above it."""
    inner = share_FC[:, 1:-1].reshape(len(share_FC), DECILES, PER_DECILE).sum(2)
    return np.column_stack([share_FC[:, 0], inner, share_FC[:, -1]])
