"""Sensors that were stuck, missing or silent while the history was made: told, and not learnt as normal.

Legend: N readings, F features, R runs.
"""

from __future__ import annotations

import numpy as np

from training.fitting import quality
from training.history.history import History
from worker.faults.quality import Quality
from worker.models.artifact import Artifact
from worker.records import F32, I32, I64, Bools, rfc3339

MOST_NOTES = 20


def quality_of(history: History, champion: Artifact | None, readings: int) -> Quality:
    """The champion's rules, which a fault in these readings cannot have loosened; else what the newest of them show."""
    if champion is not None and champion.manifest.quality is not None:
        return champion.manifest.quality
    newest = slice(max(len(history) - readings, 0), None)
    return quality.learn(history.batch.take(newest), history.features)


def faults(history: History, rules: Quality) -> tuple[Bools, list[str]]:
    """Readings with a stuck sensor, and a line for each fault."""
    batch = history.batch
    out_N = np.zeros(len(batch), bool)
    notes: list[str] = []
    order_N = np.lexsort((np.arange(len(batch)), batch.timestamp_ms_B, batch.entity_B))
    entity_N = batch.entity_B[order_N]
    for f, feature in enumerate(history.features):
        x_N = np.asarray(batch.x_BF[:, f])[order_N]
        missing_N = np.isnan(x_N)
        there_N = np.flatnonzero(~missing_N)
        limits = (("stuck", rules.stuck_after[f], there_N), ("missing", rules.missing_after[f], np.arange(len(x_N))))
        for kind, after, place_N in limits:
            if after is None or not len(place_N):
                continue
            value_N = x_N[place_N] if kind == "stuck" else missing_N
            for first, length in _long_runs(value_N, entity_N[place_N], after):
                row_R = order_N[place_N[first : first + length]]
                if kind == "missing" and not missing_N[place_N[first]]:
                    continue
                out_N[row_R] |= kind == "stuck"
                name = history.entities.names[int(batch.entity_B[row_R[0]])]
                notes.append(f"{name}: {feature} was {kind} for {length:,} readings{_since(history, int(row_R[0]))}")
    notes += _silent(history, rules.silent_after_seconds, entity_N, batch.timestamp_ms_B[order_N])
    more = len(notes) - MOST_NOTES
    return out_N, notes[:MOST_NOTES] + ([f"and {more} more faults of sensors"] if more > 0 else [])


def _long_runs(value_N: F32 | Bools, entity_N: I32, after: int) -> list[tuple[int, int]]:
    begins_N = np.r_[True, (value_N[1:] != value_N[:-1]) | (entity_N[1:] != entity_N[:-1])]
    begin_R = np.flatnonzero(begins_N)
    length_R = np.diff(begin_R, append=len(value_N))
    long_R = np.flatnonzero(length_R >= after)
    return [(int(begin_R[r]), int(length_R[r])) for r in long_R]


def _silent(history: History, after_seconds: float | None, entity_N: I32, stamp_N: I64) -> list[str]:
    """Entities whose last reading lies further back than it may, seen from the newest of its partition."""
    if after_seconds is None or not len(entity_N):
        return []
    last_E = np.flatnonzero(np.r_[entity_N[1:] != entity_N[:-1], True])
    newest: dict[int, int] = {}
    for at in last_E.tolist():
        partition = history.entities.partitions[int(entity_N[at])]
        newest[partition] = max(newest.get(partition, -1), int(stamp_N[at]))
    found = []
    for at in last_E.tolist():
        code, stamp = int(entity_N[at]), int(stamp_N[at])
        silent_seconds = (newest[history.entities.partitions[code]] - stamp) / 1000
        if stamp >= 0 and silent_seconds > after_seconds:
            found.append(f"{history.entities.names[code]}: silent since {rfc3339(stamp)}")
    return found


def _since(history: History, row: int) -> str:
    stamp = int(history.batch.timestamp_ms_B[row])
    return f" from {rfc3339(stamp)} on" if stamp >= 0 else ""
