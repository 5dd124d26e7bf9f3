"""The control chart: what residuals come to over time, entity by entity.

A single residual is noise. The chart follows each feature's residual in two ways, as process control does:

    baseline    a slow mean b that follows drift, and stands still while the feature is out of control
    deviation   d = residual - b
    fast        an exponentially weighted mean of d²: something happened
    slow        an exponentially weighted mean of (e/σ_e)², where e is that of d itself, with its sign: something
                shifted, by less than the noise (the EWMA chart, Roberts 1959)

The raw score is the root of their weighted mean over the features that are there; or, where that is more, the largest
deviation in units of the largest that held-out readings knew. A mean over time and features hides one absurd reading
of one sensor, which an engineer would not forgive (a Shewhart chart beside the EWMA: Lucas & Saccucci 1990).

All of it is sums, products, quotients and roots, element by element: a row gets the same bits in any batch.

Legend: B rows of a batch, E entities of it, F features, R rows of one round (see worker/state/visits.py).
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from worker import compiled
from worker.records import F64, I32, Bools
from worker.state.state import Column, States
from worker.state.visits import Visits

MOST = 1e4                              # deviations that memory takes in: one absurd reading must not fill it for ever
_BASELINE, _MEAN, _FAST, _SLOW, _OUT = "baseline", "deviation_mean", "fast", "slow", "rows_out"


class ChartSettings(BaseModel):
    """How a chart remembers. A weight w is that of the newest row; 1/w is about the rows it looks back."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    fast_weight: float = Field(0.3, gt=0, le=1, description="Of the newest row in the mean of squares.")
    slow_share: float = Field(
        0.0, ge=0, description="Weight of lasting shifts beside that of large deviations, which has 1. 0: none."
    )
    mean_weight: float = Field(0.1, gt=0, le=1, description="Of the newest row in the mean deviation.")
    slow_weight: float = Field(1.0, gt=0, le=1, description="Of the newest row in the mean of squared means.")
    baseline_weight: float = Field(
        0.003, ge=0, le=1, description="Of the newest row in the baseline that follows drift. 0: no baseline."
    )
    gate: float = Field(
        4.0, gt=0, description="Deviations, in units of their spread, from which the baseline stands still."
    )
    gate_by: Literal["deviation", "mean"] = Field(
        "deviation", description="What the gate looks at: the deviation itself, or its mean."
    )
    accept_after: int | None = Field(
        None, ge=1, description="Rows out of control after which a new level is taken for normal. null: never."
    )
    spikes: bool = Field(
        False, description="Whether one deviation that is large beside the largest held-out one counts by itself."
    )

    @property
    def mean_std(self) -> float:
        """Standard deviation of the mean deviation where deviations are independent and of spread 1."""
        return math.sqrt(self.mean_weight / (2 - self.mean_weight))


class Charted(NamedTuple):
    raw_B: F64                          # 0 where nothing was there to judge
    feature_BF: F64                     # each feature's part; raw² is its mean over what was there
    mean_BF: F64 | None = None          # the mean deviation, where it is followed


class Chart:
    def __init__(self, settings: ChartSettings, mean_scale_F: F64, largest_F: F64) -> None:
        """By feature, of normal readings; mean_scale_F: spread of the mean deviation; largest_F: largest deviation."""
        self._settings, self._mean_scale_F, self._largest_F = settings, mean_scale_F, largest_F
        self._follows_mean = settings.slow_share > 0 or settings.gate_by == "mean"
        core = compiled.core()
        self._compiled = core and core.Chart(
            fast_weight=settings.fast_weight,
            slow_share=settings.slow_share,
            mean_weight=settings.mean_weight,
            slow_weight=settings.slow_weight,
            baseline_weight=settings.baseline_weight,
            gate=settings.gate,
            gate_by_mean=settings.gate_by == "mean",
            accept_after=settings.accept_after,
            mean_scale_F=np.asarray(mean_scale_F).tolist(),
            largest_F=np.asarray(largest_F).tolist() if settings.spikes else None,
            most=MOST,
        )

    @staticmethod
    def fields(features: int) -> tuple[Column, ...]:
        f = (features,)
        return (
            Column(_BASELINE, "<f8", f),
            Column(_MEAN, "<f8", f),
            Column(_FAST, "<f8", f, 1.0),
            Column(_SLOW, "<f8", f, 1.0),
            Column(_OUT, "<i4", f),
        )

    def update(self, states: States, visits: Visits, residual_BF: F64, judged_B: Bools) -> Charted:
        """residual_BF in normal spreads, NaN where missing; rows that are not judged change nothing."""
        code_E = visits.code_E
        memory = _Memory(*(states[name][code_E] for name in (_BASELINE, _MEAN, _FAST, _SLOW, _OUT)))
        if self._compiled is not None:
            charted = self._in_core(self._compiled, memory, visits, residual_BF, judged_B)
        else:
            charted = self._in_python(memory, visits, residual_BF, judged_B)
        for name, column in zip((_BASELINE, _MEAN, _FAST, _SLOW, _OUT), memory, strict=True):
            states[name][code_E] = column
        return charted

    def _in_core(self, core: Any, memory: _Memory, visits: Visits, residual_BF: F64, judged_B: Bools) -> Charted:
        feature_BF = np.empty(residual_BF.shape)
        mean_BF = np.empty(residual_BF.shape) if self._follows_mean else None
        raw_B = np.empty(len(residual_BF))
        given = np.ascontiguousarray(residual_BF), judged_B.view(np.uint8)
        core.update(visits.places, *given, raw_B, feature_BF, mean_BF, tuple(memory))
        return Charted(raw_B, feature_BF, mean_BF)

    def _in_python(self, memory: _Memory, visits: Visits, residual_BF: F64, judged_B: Bools) -> Charted:
        present_BF = ~np.isnan(residual_BF) & judged_B[:, None]
        deviation_BF = np.clip(np.where(present_BF, residual_BF, 0.0), -MOST, MOST)
        mean_BF = np.zeros_like(residual_BF) if self._follows_mean else None
        feature_BF = self._rounds(memory, visits, deviation_BF, present_BF, mean_BF)
        count_B = np.maximum(present_BF.sum(1), 1)
        raw_B = np.sqrt(feature_BF.sum(1) / count_B)
        if self._settings.spikes:
            share_BF = np.where(present_BF, np.abs(deviation_BF) / self._largest_F, 0.0)
            spike_B = share_BF.max(1)
            above_B = spike_B > raw_B
            spread_BF = share_BF[above_B] ** 2
            feature_BF[above_B] = spread_BF * (spike_B**2 * count_B)[above_B, None] / spread_BF.sum(1, keepdims=True)
            raw_B = np.maximum(raw_B, spike_B)
        return Charted(raw_B, feature_BF, mean_BF)

    def _rounds(
        self, memory: _Memory, visits: Visits, deviation_BF: F64, present_BF: Bools, mean_BF: F64 | None
    ) -> F64:
        """feature_BF. Residuals in deviation_BF become deviations; mean_BF is filled; the memory moves on."""
        row_B, ends = visits.rounds()
        residual_BF, absent_BF = deviation_BF[row_B], ~present_BF[row_B]
        lacking = bool(absent_BF.any())
        found_BF = np.empty_like(residual_BF)
        at = 0
        for end in ends:
            known = memory.first(end - at)
            absent_RF = absent_BF[at:end] if lacking else None
            residual_BF[at:end], found_BF[at:end] = self._round(known, residual_BF[at:end], absent_RF)
            if mean_BF is not None:
                mean_BF[row_B[at:end]] = known.mean_EF
            at = end
        deviation_BF[row_B] = residual_BF
        found_BF[absent_BF] = 0.0
        feature_BF = np.empty_like(found_BF)
        feature_BF[row_B] = found_BF
        return feature_BF

    def _round(self, known: _Memory, residual_RF: F64, absent_RF: Bools | None) -> tuple[F64, F64]:
        """Moves the memory on by one row of each entity; returns deviations, and each feature's part in the score."""
        settings = self._settings
        baseline_RF, mean_RF, fast_RF, slow_RF, out_RF = known
        d_RF = residual_RF - baseline_RF
        size_RF = np.abs(d_RF if settings.gate_by == "deviation" else mean_RF / self._mean_scale_F)
        beyond_RF = size_RF > settings.gate
        rows_out_RF = np.where(beyond_RF, out_RF + 1, 0)
        still_RF = beyond_RF if settings.accept_after is None else beyond_RF & (rows_out_RF <= settings.accept_after)
        self._move(baseline_RF, np.where(still_RF, 0.0, settings.baseline_weight * d_RF), absent_RF)
        self._move(fast_RF, settings.fast_weight * (d_RF * d_RF - fast_RF), absent_RF)
        out_RF[:] = rows_out_RF if absent_RF is None else np.where(absent_RF, out_RF, rows_out_RF)
        if self._follows_mean:
            self._move(mean_RF, settings.mean_weight * (d_RF - mean_RF), absent_RF)
        if not settings.slow_share:
            return d_RF, fast_RF
        in_spreads_RF = mean_RF / self._mean_scale_F
        self._move(slow_RF, settings.slow_weight * (in_spreads_RF * in_spreads_RF - slow_RF), absent_RF)
        return d_RF, np.asarray((fast_RF + settings.slow_share * slow_RF) / (1 + settings.slow_share))

    @staticmethod
    def _move(column_RF: F64, by_RF: F64, absent_RF: Bools | None) -> None:
        if absent_RF is not None:
            by_RF[absent_RF] = 0.0
        column_RF += by_RF


class _Memory(NamedTuple):
    """The columns of the batch's entities, in the order of Visits.code_E."""

    baseline_EF: F64
    mean_EF: F64
    fast_EF: F64
    slow_EF: F64
    out_EF: I32

    def first(self, rows: int) -> _Memory:
        return _Memory._make(column[:rows] for column in self)
