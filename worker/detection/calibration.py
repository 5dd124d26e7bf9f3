"""From a raw score to a probability: how often a normal reading scores at least this high.

Fitted by training/fitting/calibrate.py on held-out normal readings, through the worker's own detector. The bulk is the
empirical distribution; beyond its start the tail is a generalised Pareto distribution (peaks over threshold:
Pickands 1975; Siffer et al. 2017), so that rates rarer than one in the number of held-out readings mean something.
"""

from __future__ import annotations

from typing import Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from worker.records import F64

SMALLEST_P = 1e-12
SMALLEST_THRESHOLD = float(np.finfo(np.float32).tiny)


class Tail(BaseModel):
    """P(score > start + e) = rate · (1 + shape·e/scale)^(−1/shape); exponential where shape is 0."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    start: float = Field(ge=0)
    rate: float = Field(gt=0, le=1, description="Share of held-out scores above `start`.")
    scale: float = Field(gt=0)
    shape: float = Field(ge=-1, le=1)

    def p_value(self, score_B: F64) -> F64:
        over_B = np.maximum(score_B - self.start, 0.0) / self.scale
        if abs(self.shape) < 1e-9:
            return np.asarray(self.rate * np.exp(-over_B))
        base_B = np.maximum(1.0 + self.shape * over_B, 0.0)
        with np.errstate(divide="ignore", over="ignore"):
            return np.asarray(self.rate * np.power(base_B, -1.0 / self.shape))

    def score(self, p: float) -> float:
        """The score that normal readings exceed at the rate p; inverse of p_value for p ≤ rate."""
        if abs(self.shape) < 1e-9:
            return self.start - self.scale * float(np.log(p / self.rate))
        return self.start + self.scale / self.shape * (float((p / self.rate) ** -self.shape) - 1.0)


class Calibration(BaseModel):
    """The distribution of normal scores, and the score above which a reading is anomalous."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    threshold: float = Field(gt=0, description="The raw score at which anomaly_score is 1.")
    target_rate: float = Field(gt=0, lt=1, description="Share of normal readings that was asked to exceed it.")
    count: int = Field(ge=1, description="Held-out readings behind it.")
    scores: tuple[float, ...] = Field(min_length=2, max_length=4096, description="Ascending support points …")
    p_values: tuple[float, ...] = Field(min_length=2, max_length=4096, description="… and P(score ≥ point).")
    tail: Tail | None = Field(None, description="None where the held-out readings were too few for a fit.")
    alarm_rows: float = Field(1.0, ge=1, description="Readings that an alarm among the held-out ones lasted; the mean.")
    fixed: bool = Field(False, description="Whether there were too few to answer for any rate but one threshold.")

    @model_validator(mode="after")
    def ordered(self) -> Self:
        if len(self.scores) != len(self.p_values):
            raise ValueError("scores and p_values differ in length")
        if any(a > b for a, b in zip(self.scores, self.scores[1:], strict=False)):
            raise ValueError("scores do not ascend")
        if any(a < b for a, b in zip(self.p_values, self.p_values[1:], strict=False)):
            raise ValueError("p_values do not descend")
        if self.p_values[0] > 1 or self.p_values[-1] <= 0:
            raise ValueError("p_values leave (0, 1]")
        return self

    def threshold_for(self, rate: float) -> float:
        """The raw score that normal readings exceed at this rate, as far as the held-out ones can tell."""
        if self.fixed or rate == self.target_rate:
            return self.threshold
        # The threshold may lie above its quantile, as an alarm lasts; then that of another rate does as well.
        return max(self.threshold * self._quantile(rate) / self._quantile(self.target_rate), SMALLEST_THRESHOLD)

    def _quantile(self, rate: float) -> float:
        """The raw score that held-out readings exceed at this rate."""
        if self.tail is not None and rate <= self.tail.rate:
            return max(self.tail.score(rate), SMALLEST_THRESHOLD)
        least = max(rate, self.p_values[-1])
        return max(float(np.interp(-least, -np.asarray(self.p_values), self.scores)), SMALLEST_THRESHOLD)

    def p_value(self, score_B: F64) -> F64:
        """Raw scores → share of normal readings that score at least as high, in (0, 1]."""
        p_B = np.interp(score_B, self.scores, self.p_values)
        if self.tail is not None:
            p_B = np.where(score_B > self.tail.start, self.tail.p_value(score_B), p_B)
        return np.asarray(np.clip(p_B, SMALLEST_P, 1.0))
