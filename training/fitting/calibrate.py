"""From held-out readings to the numbers that make scores comparable: residual scales, threshold, p-values.

All of it through the worker's own Detector, so that training and serving scores are the same numbers.

Legend: H held-out rows, F features, K support points.
"""

from __future__ import annotations

import math

import numpy as np
import scipy.stats

from worker.detection.calibration import Calibration, Tail
from worker.detection.chart import MOST, Charted
from worker.detection.detector import AT_ONCE, Detector
from worker.models.artifact import Artifact
from worker.records import F64, Batch, Bools
from worker.state.state import States
from worker.state.visits import Visits

MAD_TO_STD = 1.4826                     # of a normal distribution
CENTRAL = 0.99                          # share of residuals that their root mean square is taken of
SUPPORT = 1024
UPPER = 256                             # the highest scores are all kept; below them, quantiles do

TAIL_SHARES = (0.02, 0.05, 0.1)         # of the scores, that a tail is fitted to: the smallest with enough in it
ENOUGH = 50                             # exceedances; fewer leave the shape anybody's guess
LASTING = 2.0                           # times the asked rate that may be in alarm
FEW_ALARMS = 5                          # readings in alarm that chance alone makes
RAISE = 1.1
FEW = 500                               # rows under which a chart's scores say little of their tail
FEW_MARGIN = 3.0
LEAST_LARGEST = 4.0                     # spreads; held-out readings are too few to have shown all that is normal
LEAST_MEAN = 0.5                        # of the spread that the mean deviation has where deviations are independent
SHAPE_BOUND = 0.5                       # beyond it a tail has no variance, or ends abruptly


def with_calibration(artifact: Artifact, held: Batch, target_rate: float, min_spread: float) -> Artifact:
    """The artifact with its scales, and then its threshold, taken from held-out readings in order by entity.

    One step after the other, as each is measured in units of the one before.
    """
    residual_HF, full_H = _residuals(artifact, held)
    judged_H = full_H & ~np.isnan(residual_HF).all(1)
    chart = artifact.manifest.chart
    scale_F = (robust_scale if chart is None else root_mean_square)(residual_HF[judged_H], min_spread)
    unit_HF = residual_HF / scale_F
    largest_F = np.abs(np.where(judged_H[:, None] & ~np.isnan(unit_HF), unit_HF, 0.0)).max(0).clip(LEAST_LARGEST, MOST)
    artifact = _with(artifact, residual_scale=tuple(scale_F.tolist()), largest_deviation=tuple(largest_F.tolist()))
    if chart is not None:
        mean_HF = _charted(artifact, held, unit_HF, judged_H).mean_BF
        if mean_HF is not None:
            mean_scale_F = root_mean_square(np.where(judged_H[:, None], mean_HF, np.nan), LEAST_MEAN * chart.mean_std)
            artifact = _with(artifact, mean_scale=tuple(mean_scale_F.tolist()))
    raw_H = _charted(artifact, held, unit_HF, judged_H).raw_B[judged_H]
    # One feature a single residual scale off is no anomaly; a chart's score is in such units itself.
    least = 1 / held.x_BF.shape[1] if chart is None else 1.0
    margin = 1.0 if chart is None else FEW_MARGIN
    artifact = _with(artifact, calibration=calibration_of(raw_H, target_rate, least, margin))
    return _with_alarms(artifact, held, target_rate)


def _with_alarms(artifact: Artifact, held: Batch, target_rate: float) -> Artifact:
    """An alarm lasts: its readings are more than those above the threshold. Raised until they are about as many as
    was asked for, and how long they last is noted.
    """
    while True:
        calibration = artifact.manifest.calibration
        anomalous_H = Detector(artifact).score_history(held).anomalous_B
        allowed = max(LASTING * target_rate, FEW_ALARMS / len(anomalous_H))
        if calibration.fixed or artifact.manifest.alarm is None or anomalous_H.mean() <= allowed:
            rows = alarm_rows(anomalous_H)
            return _with(artifact, calibration=calibration.model_copy(update={"alarm_rows": rows}))
        raised = calibration.model_copy(update={"threshold": RAISE * calibration.threshold})
        artifact = _with(artifact, calibration=raised)


def alarm_rows(anomalous_H: Bools) -> float:
    """How many readings an alarm lasts; 1 where there is none."""
    begun = int((anomalous_H & ~np.r_[False, anomalous_H[:-1]]).sum())
    return int(anomalous_H.sum()) / begun if begun else 1.0


def robust_scale(residual_HF: F64, min_spread: float) -> F64:
    """By feature, in scaled units: how far held-out readings are from what the model expects.

    The larger of 1.4826·MAD about 0 and the root mean square of the central 99 %: the first alone is 0 for a feature
    that seldom moves, the second alone follows a few faults. At least min_spread, so that nothing blows up.
    """
    size_HF = np.abs(residual_HF)
    absent_F = np.isnan(size_HF).all(0)
    size_HF[:, absent_F] = 0.0
    by_median_F = MAD_TO_STD * np.nanmedian(size_HF, axis=0)
    most_F = np.nanquantile(size_HF, CENTRAL, axis=0)
    central_HF = np.where(size_HF <= most_F, size_HF, np.nan)
    return np.asarray(np.maximum(np.maximum(by_median_F, root_mean_square(central_HF, 0.0)), min_spread))


def root_mean_square(residual_HF: F64, least: float) -> F64:
    """By feature, over what is there; at least `least`."""
    present_HF = ~np.isnan(residual_HF)
    square_F = (np.where(present_HF, residual_HF, 0.0) ** 2).sum(0) / np.maximum(present_HF.sum(0), 1)
    return np.asarray(np.maximum(np.sqrt(square_F), least))


def _residuals(artifact: Artifact, held: Batch) -> tuple[F64, Bools]:
    detector = Detector(artifact)
    states, ones_F = _room(detector, held), np.ones(held.x_BF.shape[1])
    parts = []
    for start in range(0, len(held), AT_ONCE):
        batch = held.take(slice(start, start + AT_ONCE))
        parts.append(detector.residuals(batch, states, Visits.of(batch.entity_B), ones_F))
    return np.concatenate([found.unit_BF for found, _ in parts]), np.concatenate([full_B for _, full_B in parts])


def _charted(artifact: Artifact, held: Batch, unit_HF: F64, judged_H: Bools) -> Charted:
    detector = Detector(artifact)
    return detector.charted(unit_HF, _room(detector, held), Visits.of(held.entity_B), judged_H)


def _room(detector: Detector, batch: Batch) -> States:
    states = detector.states()
    states.reserve(int(batch.entity_B.max(initial=-1)) + 1)
    return states


def _with(artifact: Artifact, **changes: object) -> Artifact:
    return Artifact(artifact.manifest.model_copy(update=changes), artifact.model)


def calibration_of(raw_H: F64, target_rate: float, least: float = 0.0, few_margin: float = 1.0) -> Calibration:
    """Peaks over threshold for the tail (Siffer et al. 2017), the empirical distribution for the rest.

    With too few scores for a fit, the conformal quantile: the order statistic ⌈(n+1)(1−rate)⌉, which is the largest
    score where the rate asks for more than n readings can tell. `few_margin` is for scores that are alike from one
    reading to the next: few of them tell little, and the threshold is then so many times the root of their 99th
    percentile, whatever the rate. `least` bounds the threshold from below.
    """
    ascending_H = np.sort(np.asarray(raw_H, np.float64))
    n = len(ascending_H)
    tail = fit_tail(ascending_H)
    fixed = few_margin > 1 and n < FEW
    if fixed:
        # A chart's scores are about 1. Of few rows the 99th percentile is half chance: it counts with its root.
        threshold = few_margin * math.sqrt(float(np.quantile(ascending_H, 0.99)))
    elif tail is not None and target_rate <= tail.rate:
        threshold = tail.score(target_rate)
    else:
        rank = min(math.ceil((n + 1) * (1 - target_rate)), n)
        threshold = float(ascending_H[rank - 1])
    point_K, p_K = support(ascending_H)
    return Calibration(
        threshold=max(threshold, least, float(np.finfo(np.float32).tiny)),
        target_rate=target_rate,
        count=n,
        scores=tuple(point_K.tolist()),
        p_values=tuple(p_K.tolist()),
        tail=tail,
        fixed=fixed,
    )


def fit_tail(ascending_H: F64) -> Tail | None:
    """A generalised Pareto distribution over the highest scores; None where they are too few or too alike."""
    for share in TAIL_SHARES:
        start = float(np.quantile(ascending_H, 1 - share, method="lower"))
        over = ascending_H[ascending_H > start] - start
        if len(over) >= ENOUGH:
            fitted = _pareto(over)
            return None if fitted is None else Tail(
                start=start, rate=len(over) / len(ascending_H), scale=fitted[1], shape=fitted[0]
            )
    return None


def support(ascending_H: F64) -> tuple[F64, F64]:
    """At most SUPPORT ascending scores with P(score ≥ point), counted as conformal prediction does: (k+1)/(n+1)."""
    n = len(ascending_H)
    unique_K, first_K = np.unique(ascending_H, return_index=True)
    p_K = (n - first_K + 1) / (n + 1)
    if len(unique_K) > SUPPORT:
        lower = np.unique(np.linspace(0, len(unique_K) - UPPER - 1, SUPPORT - UPPER).astype(np.int64))
        kept = np.r_[lower, np.arange(len(unique_K) - UPPER, len(unique_K))]
        unique_K, p_K = unique_K[kept], p_K[kept]
    # Above every score seen, the p-value is that of the highest rank: 1/(n+1).
    beyond = np.nextafter(unique_K[-1], np.inf)
    return np.r_[unique_K[-SUPPORT + 1 :], beyond], np.r_[p_K[-SUPPORT + 1 :], 1 / (n + 1)]


def _pareto(over: F64) -> tuple[float, float] | None:
    """Shape and scale by maximum likelihood, the shape within its bound."""
    unit = float(over.mean())                   # the fit is started near 1
    if not unit > 0:
        return None
    scaled = over / unit
    shape, _, scale = scipy.stats.genpareto.fit(scaled, floc=0)
    if abs(shape) > SHAPE_BOUND:
        bounded = math.copysign(SHAPE_BOUND, shape)
        shape, _, scale = scipy.stats.genpareto.fit(scaled, fc=bounded, floc=0)
    if not (math.isfinite(shape) and math.isfinite(scale) and scale > 0):
        return None
    return float(shape), float(scale) * unit
