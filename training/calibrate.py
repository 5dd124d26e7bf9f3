"""From held-out readings to the numbers that make scores comparable: residual scales, threshold, p-values.

All of it through the worker's own Detector, so that training and serving scores are the same numbers.

Legend: H held-out rows, F features, K support points.
"""

from __future__ import annotations

import math

import numpy as np
import scipy.stats

from worker.artifact import Artifact
from worker.calibration import Calibration, Tail
from worker.detector import Detector
from worker.records import F32, F64

MAD_TO_STD = 1.4826                     # of a normal distribution
CENTRAL = 0.99                          # share of residuals that their root mean square is taken of
SUPPORT = 1024
UPPER = 256                             # the highest scores are all kept; below them, quantiles do

TAIL_SHARES = (0.02, 0.05, 0.1)         # of the scores, that a tail is fitted to: the smallest with enough in it
ENOUGH = 50                             # exceedances; fewer leave the shape anybody's guess
SHAPE_BOUND = 0.5                       # beyond it a tail has no variance, or ends abruptly


def residual_scale(detector: Detector, x_HF: F32, min_spread: float) -> F64:
    """By feature, in scaled units: how far held-out readings are from what the model expects.

    The larger of 1.4826·MAD about 0 and the root mean square of the central 99 %: the first alone is 0 for a feature
    that seldom moves, the second alone follows a few faults. At least min_spread, so that nothing blows up.
    """
    _, residual_HF = detector.residuals(x_HF)
    size_HF = np.abs(residual_HF)
    absent_F = np.isnan(size_HF).all(0)
    size_HF[:, absent_F] = 0.0
    by_median_F = MAD_TO_STD * np.nanmedian(size_HF, axis=0)
    most_F = np.nanquantile(size_HF, CENTRAL, axis=0)
    central_HF = np.where(size_HF <= most_F, size_HF, np.nan)
    by_square_F = np.sqrt(np.nanmean(central_HF**2, axis=0))
    return np.asarray(np.maximum(np.maximum(by_median_F, by_square_F), min_spread))


def calibrate(detector: Detector, x_HF: F32, target_rate: float) -> Calibration:
    """Threshold and p-values from the raw scores of held-out normal readings."""
    return calibration_of(detector.score(x_HF).raw_B, target_rate, least=1 / x_HF.shape[1])


def calibration_of(raw_H: F64, target_rate: float, least: float = 0.0) -> Calibration:
    """Peaks over threshold for the tail (Siffer et al. 2017), the empirical distribution for the rest.

    With too few scores for a fit, the conformal quantile: the order statistic ⌈(n+1)(1−rate)⌉, which is the largest
    score where the rate asks for more than n readings can tell. `least` bounds the threshold from below: one feature
    a single residual scale off is no anomaly.
    """
    ascending_H = np.sort(np.asarray(raw_H, np.float64))
    n = len(ascending_H)
    tail = fit_tail(ascending_H)
    if tail is not None and target_rate <= tail.rate:
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


def with_calibration(artifact: Artifact, x_HF: F32, target_rate: float, min_spread: float) -> Artifact:
    """The artifact with its residual scales, and then its threshold, taken from held-out readings."""
    plain = artifact.manifest.model_copy(update={"residual_scale": (1.0,) * len(artifact.manifest.features)})
    scale_F = residual_scale(Detector(Artifact(plain, artifact.model)), x_HF, min_spread)
    scaled = plain.model_copy(update={"residual_scale": tuple(scale_F.tolist())})
    calibration = calibrate(Detector(Artifact(scaled, artifact.model)), x_HF, target_rate)
    return Artifact(scaled.model_copy(update={"calibration": calibration}), artifact.model)


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
