"""The last W readings of each entity, kept in the sensors' own units: a new model can go on with them.

Legend: B readings of the batch, E entities in it, W readings of a window, F features, K rows of the stack.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from worker import compiled
from worker.records import F32, I64, Batch, Bools
from worker.state.state import Column, States
from worker.state.visits import Visits

HISTORY, FILLED, LAST_MS = "history", "filled", "last_timestamp_ms"
COLUMNS = (HISTORY, FILLED, LAST_MS)


class Windows(NamedTuple):
    """Windows as rows of one stack, oldest first. Row 0 of the stack is all missing: there was no such reading."""

    stack_KF: F32
    index_BW: I64
    full_B: Bools                       # whether all W readings are there


def fields(window: int, features: int) -> tuple[Column, ...]:
    return (
        Column(HISTORY, "<f4", (window - 1, features), float("nan")),
        Column(FILLED, "<i4"),
        Column(LAST_MS, "<i8", (), -1),
    )


def alone(x_BF: F32) -> Windows:
    """Each reading by itself: windows of one, without memory."""
    return Windows(x_BF, np.arange(len(x_BF))[:, None], np.ones(len(x_BF), bool))


def gather(states: States, batch: Batch, visits: Visits, window: int, gap_ms: int | None) -> Windows:
    """The window that ends with each reading; the readings are then remembered.

    Readings further apart than gap_ms do not share a window: what came before tells nothing of the state after.
    """
    core = compiled.core()
    if core is not None:
        return _in_core(core, states, batch, visits, window, gap_ms)
    code_E, start_E, count_E = visits.code_E, visits.start_E, visits.count_E
    order_B, features = visits.order_B, batch.x_BF.shape[1]
    past = window - 1
    run_B = _runs(states, batch, visits, gap_ms)

    # The stack: a row that is missing, then for each entity its history and its readings.
    rank_B = visits.rank_B()
    place_E = np.empty(len(code_E), np.int64)
    in_order_E = np.argsort(start_E)
    place_E[in_order_E] = 1 + start_E[in_order_E] + past * np.arange(len(code_E))
    stack_KF = np.full((1 + len(order_B) + past * len(code_E), features), np.nan, np.float32)
    if past:
        stack_KF[place_E[:, None] + np.arange(past)] = states[HISTORY][code_E]
    newest_B = np.repeat(place_E[in_order_E] + past, count_E[in_order_E]) + rank_B
    stack_KF[newest_B] = batch.x_BF[order_B]

    back_W = np.arange(-past, 1)
    index_BW = np.empty((len(order_B), window), np.int64)
    index_BW[order_B] = np.where(-back_W < run_B[:, None], newest_B[:, None] + back_W, 0)
    full_B = np.empty(len(order_B), bool)
    full_B[order_B] = run_B >= window

    last_E = start_E + count_E - 1                  # places in order_B
    if past:
        states[HISTORY][code_E] = stack_KF[newest_B[last_E][:, None] + np.arange(1 - past, 1)]
    states[FILLED][code_E] = np.minimum(run_B[last_E], past)
    states[LAST_MS][code_E] = batch.timestamp_ms_B[order_B[last_E]]
    return Windows(stack_KF, index_BW, full_B)


def _in_core(
    core: Any, states: States, batch: Batch, visits: Visits, window: int, gap_ms: int | None
) -> Windows:
    code_E, (rows, features) = visits.code_E, batch.x_BF.shape
    memory = tuple(states[name][code_E] for name in COLUMNS)
    stack_KF = np.empty((1 + rows + (window - 1) * len(code_E), features), np.float32)
    index_BW, full_B = np.empty((rows, window), np.int64), np.empty(rows, bool)
    given = np.ascontiguousarray(batch.x_BF), np.ascontiguousarray(batch.timestamp_ms_B)
    core.gather(visits.places, window, gap_ms, *given, memory, (stack_KF, index_BW, full_B.view(np.uint8)))
    for name, column in zip(COLUMNS, memory, strict=True):
        states[name][code_E] = column
    return Windows(stack_KF, index_BW, full_B)


def _runs(states: States, batch: Batch, visits: Visits, gap_ms: int | None) -> I64:
    """By place in order_B: readings without a gap between them up to this one, itself included."""
    rank_B = visits.rank_B()
    filled_B = np.zeros(len(rank_B), np.int64)
    filled_B[visits.start_E] = states[FILLED][visits.code_E]
    start_B = np.arange(len(rank_B)) - rank_B
    run_B: I64 = rank_B + 1 + filled_B[start_B]
    if gap_ms is None:
        return run_B
    stamp_B = batch.timestamp_ms_B[visits.order_B]
    before_B = np.r_[stamp_B[:1], stamp_B[:-1]]
    before_B[visits.start_E] = states[LAST_MS][visits.code_E]
    gap_B = (before_B >= 0) & (stamp_B - before_B > gap_ms)
    since_B = np.where(gap_B, np.arange(len(rank_B)), -1)
    np.maximum.accumulate(since_B, out=since_B)
    return np.where(since_B >= start_B, np.arange(len(rank_B)) - since_B + 1, run_B)
