"""Is what comes in still like what was learnt? Two statistics for each feature, over the newest readings.

    PSI     population stability index, Σ (p − q) ln(p / q) over ten bins of equal share and what lies beyond them
            (Siddiqi 2006); below 0.1 is no change, above 0.25 a large one, by custom
    KS      Kolmogorov and Smirnov's largest distance between the two distributions, at the reference's quantiles

The reference is part of a version: quantiles of the readings that it has learnt from. Memory is fixed: counts of bins,
in panes that are forgotten one after the other. All entities count together.

Legend: B readings, F features, K edges, C bins between and beyond them, P panes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from worker.records import F32, F64, I32, Batch

if TYPE_CHECKING:
    from worker.detection.detector import Scores

DECILES, PER_DECILE = 10, 4
EDGES = DECILES * PER_DECILE + 1
BINS = EDGES + 1
LEAST_SHARE = 1e-3                      # of a bin, so that an empty one does not weigh without bound
PANES = 12
AT_MOST = 256                           # of a batch are counted: a statistic needs no more, and the loop has no time
MAX_FEATURES = 4096


class Reference(BaseModel):
    """What a version has learnt from: of each feature, and last of the raw score, quantiles and shares between them."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    edges: tuple[tuple[float, ...], ...] = Field(max_length=MAX_FEATURES + 1)
    shares: tuple[tuple[float, ...], ...] = Field(max_length=MAX_FEATURES + 1)

    @model_validator(mode="after")
    def fits(self) -> Self:
        if {len(row) for row in self.edges} != {EDGES} or {len(row) for row in self.shares} != {BINS}:
            raise ValueError(f"each feature needs {EDGES} edges and {BINS} shares")
        if len(self.edges) != len(self.shares):
            raise ValueError("edges and shares differ in length")
        if any(a > b for row in self.edges for a, b in itertools.pairwise(row)):
            raise ValueError("edges do not ascend")
        return self

    @classmethod
    def of(cls, x_BF: F32 | F64) -> Self:
        """Of readings, NaN where missing; each column has at least one value."""
        edges, shares = [], []
        for column in x_BF.T:
            x_B = column[~np.isnan(column)].astype(np.float64)
            edge_K = np.quantile(x_B, np.linspace(0, 1, EDGES), method="inverted_cdf")
            edge_K[-1] = np.nextafter(edge_K[-1], np.inf)       # the largest lies within
            edges.append(tuple(edge_K.tolist()))
            shares.append(tuple((_counted(x_B, edge_K) / len(x_B)).tolist()))
        return cls(edges=tuple(edges), shares=tuple(shares))


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
        self.count(batch.x_BF, scores.raw_B)

    def reset(self, codes: I32 | Iterable[int]) -> None:
        """What entities have sent stays counted."""

    def count(self, x_BF: F32, raw_B: F64) -> None:
        """The next readings and their raw scores."""
        step = max(-(-len(x_BF) // AT_MOST), 1)
        some_BF = np.column_stack([x_BF[::step].astype(np.float64), raw_B[::step]])
        if not len(some_BF):
            return
        if self._in_pane >= self._per_pane:
            self._at, self._in_pane = (self._at + 1) % PANES, 0
            self._pane_PFC[self._at] = 0
        for f, column in enumerate(some_BF.T):
            self._pane_PFC[self._at, f] += _counted(column[~np.isnan(column)], self._edge_FK[f])
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


def _counted(x_B: F64, edge_K: F64) -> NDArray[np.int64]:
    return np.bincount(np.searchsorted(edge_K, x_B, side="right"), minlength=BINS)


def _by_decile(share_FC: F64) -> F64:
    """Below the reference, its ten tenths, and above it."""
    inner = share_FC[:, 1:-1].reshape(len(share_FC), DECILES, PER_DECILE).sum(2)
    return np.column_stack([share_FC[:, 0], inner, share_FC[:, -1]])
