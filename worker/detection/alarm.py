"""Raw scores against a threshold that keeps its promise: when an alarm begins and ends, entity by entity.

A threshold from training is right on the day of training. Here it is followed up: while alarms come more often than
was asked it rises, otherwise it falls (adaptive conformal inference, Gibbs & Candès 2021, on the logarithm), within
bounds, and it stands still in a long alarm, so that a lasting fault cannot teach itself to be normal.

An alarm begins above the threshold. It ends when the score has fallen to a share of its peak, or half the way from the
threshold to 1, which is what normal readings score: a smoothed score falls slowly, and its tail is not part of the
fault. After it, a new alarm needs a score that was below the threshold, or that rises again.

Legend: B rows of a batch, E entities of it.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from worker import compiled
from worker.records import F64, I32, Bools
from worker.state.state import Column, States
from worker.state.visits import Visits

_FACTOR, _ON, _SPENT, _PEAK, _TROUGH, _ROWS = (
    "threshold_factor", "alarm_on", "alarm_spent", "alarm_peak", "alarm_trough", "alarm_rows"
)
_COLUMNS = (_FACTOR, _ON, _SPENT, _PEAK, _TROUGH, _ROWS)
_MOST_ROWS = 2**31 - 1                  # that alarm_rows can hold
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
            self._in_python(memory, visits, raw_B, judged_B, score_B, factor_B)
        for name, column in zip(_COLUMNS, memory, strict=True):
            states[name][code_E] = column
        return Alarms(score_B, factor_B)

    def _in_python(
        self, memory: _Memory, visits: Visits, raw_B: F64, judged_B: Bools, score_B: F64, factor_B: F64
    ) -> None:
        """score_B and factor_B are filled; the memory moves on. An entity at a time, as the core does it: columns of
        numpy would be as short as the batch has entities, and cost more for a dozen than this for each.
        """
        columns: tuple[Any, ...] = memory
        settings, up, down = self._settings, self._up, self._down
        clear_share, again_factor, freeze_after = settings.clear_share, settings.again_factor, settings.freeze_after
        raws, judged, order = raw_B.tolist(), judged_B.tolist(), visits.order_B.tolist()
        scores, factors = [0.0] * len(raws), [1.0] * len(raws)
        segments = zip(visits.start_E.tolist(), visits.count_E.tolist(), strict=True)
        for entity, (start, count) in enumerate(segments):
            factor, on, spent, peak, trough, rows = (column[entity].item() for column in columns)
            for row in order[start : start + count]:
                factors[row] = factor
                if not judged[row]:
                    continue
                raw, threshold = raws[row], self._threshold * factor
                peak, trough = max(peak, raw), min(trough, raw)
                if on:
                    ends = raw <= clear_share * peak or raw <= math.sqrt(max(threshold, 1.0))
                    on, spent = not ends, ends
                    trough = raw if ends else trough
                else:
                    spent = spent and threshold < raw <= again_factor * trough
                    on = raw > threshold and not spent
                    peak = raw if on else peak
                rows = min(rows + 1, _MOST_ROWS) if on else 0
                if rows <= freeze_after:
                    factor = min(max(factor * (up if on else down), settings.least), settings.most)
                scores[row] = max(raw / threshold, 1 + BARELY) if on else min(raw / threshold, 1.0)
            for column, value in zip(columns, (factor, on, spent, peak, trough, rows), strict=True):
                column[entity] = value
        score_B[:], factor_B[:] = scores, factors


class _Memory(NamedTuple):
    """The columns of the batch's entities, in the order of Visits.code_E."""

    factor_E: F64
    on_E: Bools
    spent_E: Bools
    peak_E: F64
    trough_E: F64
    rows_E: I32
