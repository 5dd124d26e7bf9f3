"""Readings → anomaly scores. Pure arithmetic: no input or output, no clock, no random numbers.

    window → scale → predict (z = mu) → residual in normal spreads → chart over time → threshold → anomaly score

Whatever has to be remembered of an entity lies in its States, which the caller keeps; a model without window, chart
and alarm remembers nothing.

Legend: B readings, F features, W readings of a window, D = W*F inputs of the model.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Protocol, Self

import numpy as np

from worker.detection import windows
from worker.detection.alarm import Alarm, Alarms
from worker.detection.chart import Chart, Charted
from worker.detection.residuals import Residuals, compare, mean_square
from worker.detection.scorer import Scorer, scorer_of
from worker.models.artifact import Artifact
from worker.records import F32, F64, I32, Batch, Bools
from worker.state.state import Column, States
from worker.state.visits import Visits

AT_ONCE = 4096                          # rows of a history scored at once; memory, not results, depends on it


@dataclass(frozen=True, slots=True)
class Scores:
    """What is known of each reading of a batch."""

    anomaly_score_B: F64            # ≥ 0; above 1 is anomalous
    p_value_B: F64                  # share of normal readings that score at least as high
    raw_B: F64                      # before the threshold divides it
    feature_score_BF: F64           # ≥ 0; 0 where the feature is missing
    expected_BF: F32                # what the model takes for normal, in the features' own units
    imputed_B: Bools                # whether a feature was missing
    warming_B: Bools                # whether the window was not full yet

    @property
    def anomalous_B(self) -> Bools:
        return self.anomaly_score_B > 1.0

    @property
    def settled_B(self) -> F64:
        """Raw scores, NaN until the window was full: before, they say how long an entity has been known."""
        return np.where(self.warming_B, np.nan, self.raw_B)

    @classmethod
    def joined(cls, parts: list[Self]) -> Self:
        return cls(**{f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)})


class Observer(Protocol):
    """Looks on while a detector serves."""

    def take(self, batch: Batch, scores: Scores) -> None:
        """The next readings, scored."""

    def reset(self, codes: I32 | Iterable[int]) -> None:
        """Entities that are no longer served; their codes will be others'."""


class Detector:
    """One model version at work. A reading after the same history gets the same bits, whatever batches they come in."""

    def __init__(self, artifact: Artifact, target_rate: float | None = None, withhold: bool = True) -> None:
        """target_rate: share of normal readings that may be in alarm; default: as trained.

        withhold: whether readings score 0 until their window is full; else what is missing in it is imputed.
        """
        self.manifest = manifest = artifact.manifest
        self._model = artifact.model
        self._spread_F = np.asarray(manifest.residual_scale, np.float64)
        self._gap_ms = None if manifest.gap_seconds is None else round(manifest.gap_seconds * 1000)
        self._withhold = withhold
        self.target_rate = rate = manifest.calibration.target_rate if target_rate is None else target_rate
        self.threshold = manifest.calibration.threshold_for(rate)
        by_feature = np.asarray(manifest.mean_scale), np.asarray(manifest.largest_deviation)
        self._chart = Chart(manifest.chart, *by_feature) if manifest.chart else None
        self._alarm = Alarm(manifest.alarm, self.threshold, rate) if manifest.alarm else None
        self.observers: tuple[Observer, ...] = ()       # told of every batch by who serves it

    @cached_property
    def _scorer(self) -> Scorer:
        """Made at first use: on a GPU it takes buffers there, and many a detector never scores."""
        shape = self.manifest.shape
        return scorer_of(self._model, shape.window, shape.features, newest=self.manifest.error_of == "newest")

    @property
    def weights_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self._model.state_dict().values())

    @property
    def fields(self) -> tuple[Column, ...]:
        """What is to be remembered of an entity."""
        n_features, window = len(self.manifest.features), self.manifest.shape.window
        if window == 1 and self._chart is None and self._alarm is None:
            return ()
        return (
            *windows.fields(window, n_features),
            *(Chart.fields(n_features) if self._chart else ()),
            *(Alarm.fields() if self._alarm else ()),
        )

    def states(self) -> States:
        """Of entities not seen yet."""
        return States(self.fields)

    def score(self, batch: Batch, states: States, visits: Visits | None = None) -> Scores:
        """The next readings, and states moved on by them; states must have room for every entity code.

        visits: the batch's, where they are known.
        """
        visits = visits or Visits.of(batch.entity_B)
        (unit_BF, expected_BF, imputed_B, empty_B), full_B = self.residuals(batch, states, visits, self._spread_F)
        judged_B = (full_B if self._withhold else np.ones_like(full_B)) & ~empty_B
        raw_B, feature_BF, _ = self.charted(unit_BF, states, visits, judged_B)
        anomaly_score_B, factor_B = self._alarms(raw_B, states, visits, judged_B)
        return Scores(
            anomaly_score_B=anomaly_score_B,
            p_value_B=np.where(judged_B, self.manifest.calibration.p_value(raw_B / factor_B), 1.0),
            raw_B=raw_B,
            feature_score_BF=feature_BF,
            expected_BF=expected_BF,
            imputed_B=imputed_B,
            warming_B=~full_B,
        )

    def score_history(self, batch: Batch) -> Scores:
        """Readings in order of arrival from their beginning: nothing is remembered from before, and nothing is kept."""
        states = self.states()
        states.reserve(int(batch.entity_B.max(initial=-1)) + 1)
        starts = range(0, max(len(batch), 1), AT_ONCE)
        return Scores.joined([self.score(batch.take(slice(start, start + AT_ONCE)), states) for start in starts])

    def residuals(self, batch: Batch, states: States, visits: Visits, spread_F: F64) -> tuple[Residuals, Bools]:
        """Of the newest readings, in these spreads; and whether their windows were full."""
        scaling, shape = self.manifest.scaling, self.manifest.shape
        if not self.fields:
            windowed = windows.alone(batch.x_BF)
        else:
            windowed = windows.gather(states, batch, visits, shape.window, self._gap_ms)
        output_BN = self._scorer.expected(scaling.filled(windowed.stack_KF), windowed.index_BW)
        output_BWF = output_BN.reshape(len(batch), output_BN.shape[1] // shape.features, shape.features)
        found = compare(scaling, spread_F, batch.x_BF, output_BWF[:, -1])
        if self.manifest.error_of == "window":
            residual_BWF = scaling.scale(windowed.stack_KF)[windowed.index_BW].astype(np.float64) - output_BWF
            present_BWF = ~np.isnan(residual_BWF)
            square_BF = np.where(present_BWF, residual_BWF, 0.0) ** 2
            over_window_BF = np.sqrt(square_BF.sum(1) / np.maximum(present_BWF.sum(1), 1)) / spread_F
            found = found._replace(unit_BF=np.where(np.isnan(found.unit_BF), np.nan, over_window_BF))
        return found, windowed.full_B

    def charted(self, unit_BF: F64, states: States, visits: Visits, judged_B: Bools) -> Charted:
        """Residuals in normal spreads → raw score, and each feature's part of it."""
        if self._chart is not None:
            return self._chart.update(states, visits, unit_BF, judged_B)
        return Charted(*mean_square(unit_BF, judged_B))

    def _alarms(self, raw_B: F64, states: States, visits: Visits, judged_B: Bools) -> Alarms:
        if self._alarm is not None:
            return self._alarm.update(states, visits, raw_B, judged_B)
        return Alarms(raw_B / self.threshold, np.ones_like(raw_B))
