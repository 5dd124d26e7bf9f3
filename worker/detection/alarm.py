"""Raw scores against a threshold that keeps its promise: when an alarm begins and ends, entity by entity.

A threshold from training is right on the day of training. Here it is followed up: while alarms come more often than
was asked it rises, otherwise it falls (adaptive conformal inference, Gibbs & Candès 2021, on the logarithm), within
bounds, and it stands still in a long alarm, so that a lasting fault cannot teach itself to be normal.

An alarm begins above the threshold. It ends when the score has fallen to a share of its peak, or half the way from the
threshold to 1, which is what normal readings score: a smoothed score falls slowly, and its tail is not part of the
fault. After it, a new alarm needs a score that was below the threshold, or that rises again.

Legend: B rows of a batch, E entities of it, R rows of one round (see worker/state/visits.py).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from worker import compiled
from worker.records import F64, Bools
from worker.state.state import Column, States
from worker.state.visits import Visits

_FACTOR, _ON, _SPENT, _PEAK, _TROUGH, _ROWS = (
    "threshold_factor", "alarm_on", "alarm_spent", "alarm_peak", "alarm_trough", "alarm_rows"
)
_COLUMNS = (_FACTOR, _ON, _SPENT, _PEAK, _TROUGH, _ROWS)
BARELY = 1e-7                           # over 1: the score of a row within an alarm whose own score is lower


class AlarmSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    clear_share: float = Field(
        0.5, gt=0, lt=1, description="An alarm ends when its score has fallen to this share of its peak."
    )
    again_factor: float = Field(
        2.0, gt=1, description="After an alarm, a rise by this factor from the lowest score since is a new one."
    )
    rate: float = Field(
        0.005, ge=0, le=1, description="How fast the threshold follows the realised rate of alarms. 0: it is fixed."
    )
    least: float = Field(0.5, gt=0, le=1, description="Smallest threshold, as a factor of training's.")
    most: float = Field(math.e, ge=1, description="Largest threshold, as a factor of training's.")
    freeze_after: int = Field(30, ge=0, description="Rows of one alarm after which the threshold stands still.")


class Alarms(NamedTuple):
    anomaly_score_B: F64
    factor_B: F64                       # what the threshold was multiplied by


class Alarm:
    def __init__(self, settings: AlarmSettings, threshold: float, target_rate: float) -> None:
        """threshold: of training, in raw scores; target_rate: share of rows that may be in alarm."""
        self._settings, self._threshold = settings, threshold
        self._down = math.exp(-settings.rate * target_rate)
        self._up = math.exp(settings.rate * (1 - target_rate))
        core = compiled.core()
        self._compiled = core and core.Alarm(
            threshold=threshold,
            up=self._up,
            down=self._down,
            clear_share=settings.clear_share,
            again_factor=settings.again_factor,
            least=settings.least,
            most=settings.most,
            freeze_after=settings.freeze_after,
            barely=BARELY,
        )

    @staticmethod
    def fields() -> tuple[Column, ...]:
        return (
            Column(_FACTOR, "<f8", (), 1.0),
            Column(_ON, "?"),
            Column(_SPENT, "?"),
            Column(_PEAK, "<f8"),
            Column(_TROUGH, "<f8"),
            Column(_ROWS, "<i4"),
        )

    def update(self, states: States, visits: Visits, raw_B: F64, judged_B: Bools) -> Alarms:
        """Rows that are not judged change nothing and score 0."""
        code_E = visits.code_E
        memory = _Memory(*(states[name][code_E] for name in _COLUMNS))
        score_B = np.zeros_like(raw_B)
        factor_B = np.ones_like(raw_B)
        if self._compiled is not None:
            plain = tuple(column.view(np.uint8) if column.dtype == np.bool_ else column for column in memory)
            given = np.ascontiguousarray(raw_B), judged_B.view(np.uint8)
            self._compiled.update(visits.places, *given, score_B, factor_B, plain)
        else:
            self._rounds(memory, visits, raw_B, judged_B, score_B, factor_B)
        for name, column in zip(_COLUMNS, memory, strict=True):
            states[name][code_E] = column
        return Alarms(score_B, factor_B)

    def _rounds(
        self, memory: _Memory, visits: Visits, raw_B: F64, judged_B: Bools, score_B: F64, factor_B: F64
    ) -> None:
        """score_B and factor_B are filled; the memory moves on."""
        for row_R in visits.rounds():
            judged_R = judged_B[row_R]
            known = memory.first(len(row_R))
            changed, score_R = self._round(known, raw_B[row_R])
            factor_B[row_R] = known.factor_E
            score_B[row_R] = np.where(judged_R, score_R, 0.0)
            for column, value in zip(known, changed, strict=True):
                column[:] = np.where(judged_R, value, column)

    def _round(self, known: _Memory, raw_R: F64) -> tuple[_Memory, F64]:
        settings = self._settings
        threshold_R = self._threshold * known.factor_E
        over_R = raw_R > threshold_R

        peak_R = np.maximum(known.peak_E, raw_R)
        cleared_R = (raw_R <= settings.clear_share * peak_R) | (raw_R <= np.sqrt(np.maximum(threshold_R, 1.0)))
        ends_R = known.on_E & cleared_R

        trough_R = np.minimum(known.trough_E, raw_R)
        spent_R = known.spent_E & over_R & (raw_R <= settings.again_factor * trough_R)
        begins_R = ~known.on_E & ~spent_R & over_R

        on_R = (known.on_E & ~ends_R) | begins_R
        rows_R = np.where(on_R, known.rows_E + 1, 0)
        moved_R = np.clip(known.factor_E * np.where(on_R, self._up, self._down), settings.least, settings.most)
        changed = _Memory(
            factor_E=np.where(rows_R > settings.freeze_after, known.factor_E, moved_R),
            on_E=on_R,
            spent_E=ends_R | (spent_R & ~known.on_E),
            peak_E=np.where(begins_R, raw_R, peak_R),
            trough_E=np.where(ends_R, raw_R, trough_R),
            rows_E=rows_R,
        )
        score_R = raw_R / threshold_R
        return changed, np.where(on_R, np.maximum(score_R, 1 + BARELY), np.minimum(score_R, 1.0))


class _Memory(NamedTuple):
    """The columns of the batch's entities, in the order of Visits.code_E."""

    factor_E: F64
    on_E: Bools
    spent_E: Bools
    peak_E: F64
    trough_E: F64
    rows_E: F64

    def first(self, rows: int) -> _Memory:
        return _Memory._make(column[:rows] for column in self)
