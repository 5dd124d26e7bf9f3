"""Readings → what is learnt from and what is held out, and the scaling between sensors' units and the model's.

Legend: B readings, N training rows, H held-out rows, F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from training.fitting import profiles
from training.fitting.profiles import PROFILES, Profile
from training.history.history import History
from training.settings import TrainingSettings
from worker.detection.scaling import Scaling
from worker.errors import TrainingError
from worker.records import F32, F64, I64, Batch
from worker.state.visits import runs

QUANTILES = (0.005, 0.995)              # what lies outside may be a fault, and must not set the scale
MARGIN = 0.1                            # of the range, at either end of [0, 1]: a sigmoid never reaches 0 or 1
RESOLUTION = 1e-6                       # of its size: a range below it is float32's rounding
USUAL_GAP = 10                          # intervals without a reading after which a window begins anew


@dataclass(frozen=True)
class Dataset:
    """Two parts, each in time order by entity, in the sensors' own units."""

    train: Batch
    held: Batch
    profile: profiles.Name
    recipe: Profile                     # the profile's, with what the settings say otherwise
    scaling: Scaling
    period_seconds: float | None        # usual interval between two readings of an entity; None where none has a time
    gap_seconds: float | None
    mean_F: F64                         # of training, own units
    spread_F: F64                       # standard deviation in training, own units; a constant's is its span


def prepare(history: History, settings: TrainingSettings) -> Dataset:
    """Raises TrainingError where there is too little to learn from, or nothing that varies."""
    if len(history) < settings.min_records:
        left_out = sum((history.left_out or {}).values())
        raise TrainingError(
            f"{history.where} holds {len(history)} readings ({left_out} left out); at least {settings.min_records} "
            "are needed: widen the range (ZMU_TRAINING__MAX_AGE, __MAX_RECORDS), wait for more, or lower "
            "ZMU_TRAINING__MIN_RECORDS"
        )
    train_N, held_H = split(history.batch, settings.holdout)
    if not len(held_H):
        raise TrainingError(
            f"{history.where}: no entity has the {int(1 / settings.holdout) + 1} readings that it takes to hold one "
            "out; widen the range, raise ZMU_TRAINING__HOLDOUT, or see whether ZMU_INPUT__ENTITY_FIELD names a machine"
        )
    train, held = history.batch.take(train_N), history.batch.take(held_H)
    name = settings.profile
    if name == "auto":
        name = profiles.recognised(train.x_BF, held.x_BF)
    recipe = _recipe(PROFILES[name], settings)
    scaling = scaling_of(train.x_BF, recipe.scaling, history.features, history.where)
    spread_F = np.nanstd(train.x_BF.astype(np.float64), axis=0)
    span_F = np.asarray(scaling.span)
    mean_F = np.nanmean(train.x_BF.astype(np.float64), axis=0)
    period_seconds = usual_interval(train)
    usual_gap = None if period_seconds is None else USUAL_GAP * period_seconds
    return Dataset(
        train, held, name, recipe, scaling,
        period_seconds=period_seconds,
        gap_seconds=usual_gap if settings.gap_seconds is None else settings.gap_seconds or None,
        mean_F=mean_F,
        spread_F=np.where(spread_F > recipe.min_spread * span_F, spread_F, span_F),
    )


def _recipe(profile: Profile, settings: TrainingSettings) -> Profile:
    scaling = settings.scaling or profile.scaling
    said = settings.objective.model_fields_set
    objective = profile.objective.model_copy(update={name: getattr(settings.objective, name) for name in said})
    if scaling == "unit" and "feature_weights" not in said:
        objective = objective.model_copy(update={"feature_weights": "inverse-variance"})
    return profile._replace(
        window=settings.window or profile.window,
        scaling=scaling,
        output=settings.output or ("sigmoid" if scaling == "unit" else "linear"),
        objective=objective,
        min_spread=settings.min_spread or profile.min_spread,
    )


def usual_interval(batch: Batch) -> float | None:
    """Seconds between two readings of an entity, the median; readings must be in order by entity."""
    stamp_B, entity_B = batch.timestamp_ms_B, batch.entity_B
    apart_B = np.diff(stamp_B)[(entity_B[1:] == entity_B[:-1]) & (stamp_B[:-1] >= 0)]
    apart_B = apart_B[apart_B > 0]
    return float(np.median(apart_B)) / 1000 if len(apart_B) else None


def split(batch: Batch, holdout: float) -> tuple[I64, I64]:
    """Indices of the older and the newer share of each entity, in order of time; ties in order of arrival."""
    order_B = np.lexsort((np.arange(len(batch)), batch.timestamp_ms_B, batch.entity_B))
    entity_B = batch.entity_B[order_B]
    starts = runs(entity_B)
    counts = np.diff(starts, append=len(entity_B))
    rank_B = np.arange(len(entity_B)) - np.repeat(starts, counts)
    first_held_B = np.repeat(counts - np.floor(counts * holdout), counts)
    held_B = rank_B >= first_held_B
    return order_B[~held_B], order_B[held_B]


def scaling_of(
    x_NF: F32, how: Literal["unit", "standard"], features: Sequence[str], where: str = "the training data"
) -> Scaling:
    """Offsets and spans from the training rows. A constant gets a span of its own size, so nothing divides by 0."""
    absent = [features[f] for f in np.flatnonzero(np.isnan(x_NF).all(0)).tolist()]
    if absent:
        raise TrainingError(
            f"{where}: {', '.join(absent[:5])} has no value in any reading learnt from; leave it out with "
            "ZMU_INPUT__IGNORE, or name the features in ZMU_INPUT__FEATURES"
        )
    wide_NF = x_NF.astype(np.float64)
    median_F = np.nanmedian(wide_NF, axis=0)
    least_F, most_F = np.nanmin(wide_NF, axis=0), np.nanmax(wide_NF, axis=0)
    floor_F = RESOLUTION * np.maximum(np.abs(median_F), np.finfo(np.float32).tiny / RESOLUTION)
    constant_F = most_F - least_F <= floor_F
    if constant_F.all():
        raise TrainingError(
            f"{where}: every feature is constant ({', '.join(features[:5])}), so there is nothing to learn; train on "
            "a range in which the machine runs"
        )
    own_F = np.where(median_F == 0, 1.0, np.abs(median_F))
    if how == "unit":
        low_F, high_F = np.nanquantile(wide_NF, QUANTILES, axis=0)
        rare_F = high_F - low_F <= floor_F              # so rarely other than usual that quantiles do not see it
        low_F, high_F = np.where(rare_F, least_F, low_F), np.where(rare_F, most_F, high_F)
        range_F = np.where(constant_F, own_F, high_F - low_F)
        low_F = np.where(constant_F, median_F - range_F / 2, low_F)
        offset_F, span_F = low_F - MARGIN * range_F, range_F * (1 + 2 * MARGIN)
    else:
        std_F = np.nanstd(wide_NF, axis=0)
        offset_F, span_F = np.nanmean(wide_NF, axis=0), np.where(constant_F, own_F, std_F)
    return Scaling(offset=tuple(offset_F.tolist()), span=tuple(span_F.tolist()), median=tuple(median_F.tolist()))
