"""From normal readings to what calls a sensor stuck or missing, and an entity silent.

Physical limits are not learnt: what lies outside the training range is for the model to judge, and what cannot be
only the operator knows.

Legend: N readings in time order by entity, F features, R runs, E entities.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from worker.faults.quality import MAX_SILENCE_SECONDS, Quality
from worker.faults.sensors import MAX_RUN
from worker.recordings.tables import NO_TIME
from worker.records import F32, F64, I32, I64, Batch, Bools
from worker.state.visits import runs

# Runs of chance have geometric tails: if the longest of n readings was L, one of 3·L has a chance of about n⁻³.
FACTOR = 3
# A sensor of fine resolution never repeats itself in training; ten in a row is no chance, and soon enough.
LEAST_STUCK = 10
# A value never missing in training may be lost with a message or two; five in a row is no hiccup.
LEAST_MISSING = 5
# A state, a step or a switch has few values, and holds one for as long as it likes.
FEW_VALUES = 10
# A run longer than this share of what an entity sent is how the feature is, not how long chance makes it.
LONG_SHARE = 0.05
# Of fewer readings than this one cannot say what is usual of an entity.
JUDGED_READINGS = 100
# So many entities may have had the fault while they were learnt from.
FAULTY_SHARE = 0.05

LEAST_SILENT_SECONDS = 60.0             # shorter pauses are restarts and networks
INTERVALS = 20                          # of the long ones that are usual
USUAL = 0.99                            # share of an entity's intervals that are no pauses
JUDGED_INTERVALS = 20


def learn(batch: Batch, features: Sequence[str]) -> Quality:
    """What normal readings allow, each entity's in order of time. Wants all there are: rare runs are what decides."""
    order_N = np.argsort(batch.entity_B, kind="stable")
    entity_N, x_NF = batch.entity_B[order_N], batch.x_BF[order_N]
    stuck_after, missing_after = [], []
    for f in range(len(features)):
        x_N = x_NF[:, f]
        missing_N = np.isnan(x_N)
        stuck_after.append(_stuck_after(x_N[~missing_N], entity_N[~missing_N]))
        missing_after.append(_after(missing_N, entity_N, missing_N, LEAST_MISSING))
    none = (None,) * len(features)
    return Quality(
        stuck_after=tuple(stuck_after),
        missing_after=tuple(missing_after),
        low=none,
        high=none,
        silent_after_seconds=_silent_after_seconds(batch.timestamp_ms_B[order_N], entity_N),
    )


def _stuck_after(x_N: F32, entity_N: I32) -> int | None:
    if len(np.unique(x_N)) <= FEW_VALUES:
        return None
    return _after(x_N, entity_N, np.ones(len(x_N), np.bool_), LEAST_STUCK)


def _after(value_N: F32 | Bools, entity_N: I32, counted_N: Bools, least: int) -> int | None:
    """A safe multiple of the longest run of one value; None where long runs are usual. Runs that are not counted
    (of values that are there, where missing ones are looked for) have no length.
    """
    if not len(value_N):
        return None
    begins_N = np.r_[True, (value_N[1:] != value_N[:-1]) | (entity_N[1:] != entity_N[:-1])]
    begin_R = np.flatnonzero(begins_N)
    length_R = np.diff(begin_R, append=len(value_N)) * counted_N[begin_R]
    first_E = runs(entity_N)
    readings_E = np.diff(first_E, append=len(entity_N))
    longest_E = np.maximum.reduceat(length_R, np.searchsorted(begin_R, first_E))
    judged_E = readings_E >= JUDGED_READINGS
    long_E = judged_E & (longest_E > LONG_SHARE * readings_E)
    if not judged_E.any() or long_E.sum() > FAULTY_SHARE * judged_E.sum():
        return None
    return min(max(least, FACTOR * int(longest_E[~long_E].max())), MAX_RUN - 1)


def _silent_after_seconds(timestamp_ms_N: I64, entity_N: I32) -> float | None:
    """A multiple of the usual interval of the entity that sends most rarely: one limit serves all, and must not call
    it silent. None where readings carry no time, or too few do.
    """
    timed_N = timestamp_ms_N != NO_TIME
    timestamp_ms_N, entity_N = timestamp_ms_N[timed_N], entity_N[timed_N]
    interval_ms_I: I64 = np.diff(timestamp_ms_N)
    kept_I = (entity_N[1:] == entity_N[:-1]) & (interval_ms_I > 0)
    entity_I, interval_ms_I = entity_N[1:][kept_I], interval_ms_I[kept_I]
    order_I = np.lexsort((interval_ms_I, entity_I))
    _, first_E, count_E = np.unique(entity_I[order_I], return_index=True, return_counts=True)
    judged_E = count_E >= JUDGED_INTERVALS
    if not judged_E.any():
        return None
    usual_E = first_E + np.ceil(USUAL * count_E).astype(np.int64) - 1
    usual_ms_E: F64 = interval_ms_I[order_I][usual_E[judged_E]]
    seconds = INTERVALS * float(usual_ms_E.max()) / 1000
    return min(max(LEAST_SILENT_SECONDS, seconds), MAX_SILENCE_SECONDS)
