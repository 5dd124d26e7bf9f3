"""Two kinds of machines, two recipes; and the textbook's, which remembers nothing.

Machinery has noisy sensors around a working point, and its faults are shifts that last: what counts is a small lasting
deviation with its sign. Servers rest and burst, and their faults are bursts at the wrong time: what counts is the size
of the newest deviation. Which of them a history is shows in its tails, and no label is needed for that.
The numbers are measured: docs/detection.md, with the command that made them.

Legend: N rows learnt from, H rows held out, F features.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from training.fitting.objective import ObjectiveSettings
from worker.detection.alarm import AlarmSettings
from worker.detection.chart import ChartSettings
from worker.records import F32

Name = Literal["machinery", "servers", "pointwise"]

HEAVY_KURTOSIS = 6.0                    # a normal distribution has 3, an exponential one 9


class Profile(NamedTuple):
    """What one recipe sets where the settings say nothing."""

    window: int
    scaling: Literal["unit", "standard"]
    output: Literal["sigmoid", "linear"]
    objective: ObjectiveSettings
    min_spread: float                   # smallest residual scale, in scaled units
    chart: ChartSettings | None
    alarm: AlarmSettings | None


PROFILES: dict[Name, Profile] = {
    "machinery": Profile(
        window=10,
        scaling="standard",
        output="linear",
        objective=ObjectiveSettings(),
        min_spread=0.1,
        chart=ChartSettings(
            fast_weight=0.1, slow_share=10.0, mean_weight=0.05, slow_weight=0.05,
            baseline_weight=0.01, gate_by="mean", accept_after=500, spikes=True,
        ),
        alarm=AlarmSettings(),
    ),
    "servers": Profile(
        window=20,
        scaling="standard",
        output="linear",
        objective=ObjectiveSettings(),
        min_spread=0.05,
        chart=ChartSettings(fast_weight=0.3, baseline_weight=0.003, spikes=True),
        alarm=AlarmSettings(),
    ),
    "pointwise": Profile(
        window=1,
        scaling="unit",
        output="sigmoid",
        objective=ObjectiveSettings(kl_weight=0.1, feature_weights="inverse-variance"),
        min_spread=0.01,
        chart=None,
        alarm=None,
    ),
}


def recognised(train_NF: F32, held_HF: F32) -> Name:
    """The profile that fits the tails of held-out readings."""
    return "servers" if kurtosis(train_NF, held_HF) >= HEAVY_KURTOSIS else "machinery"


def kurtosis(train_NF: F32, held_HF: F32) -> float:
    """Of held-out readings about the mean of those learnt from; the mean over features that move."""
    deviation_HF = held_HF.astype(np.float64) - np.nanmean(train_NF.astype(np.float64), axis=0)
    square_HF = deviation_HF**2
    variance_F = np.nanmean(square_HF, axis=0)
    moving_F = np.nanstd(held_HF.astype(np.float64), axis=0) > 1e-9 * np.sqrt(np.maximum(variance_F, 1e-300))
    if not moving_F.any():
        return 0.0
    fourth_F = np.nanmean(square_HF[:, moving_F] ** 2, axis=0)
    return float(np.mean(fourth_F / variance_F[moving_F] ** 2))
