"""Sensors that are stuck, missing or out of range: what begins in a batch, for all its readings at once.

For each feature a row of state holds the last value, the lengths of two runs, and which episodes are under way.
Most features have no runs in a batch, so only readings of runs are gone through: P places (reading, feature), R runs.

Legend: B readings sorted by entity, E entities, F features.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from worker import compiled
from worker.faults.faults import Fault, Finding
from worker.records import I32, I64, Batch, Bools
from worker.state.state import Column, States
from worker.state.visits import Visits

MAX_RUN = 2**30                         # counting stops here
NEVER = 2**31 - 1

STUCK, MISSING, OUT = 1, 2, 4           # bits of quality_open: episodes under way


def fields(features: int) -> tuple[Column, ...]:
    return (
        Column("quality_last", "<f4", (features,), np.nan),          # the newest value that was not missing
        Column("quality_equal", "<i4", (features,)),                 # readings in a row that had it
        Column("quality_missing", "<i4", (features,)),               # readings in a row without a value
        Column("quality_open", "<i1", (features,)),                  # STUCK | MISSING | OUT
    )


class SensorFaults:
    """One model version's demands on its features; None: no demand."""

    def __init__(
        self,
        stuck_after: Sequence[int | None],
        missing_after: Sequence[int | None],
        low: Sequence[float | None],
        high: Sequence[float | None],
    ) -> None:
        self._stuck_after_F = np.array([NEVER if n is None else n for n in stuck_after], np.int32)
        self._missing_after_F = np.array([NEVER if n is None else n for n in missing_after], np.int32)
        self._constant_F = self._stuck_after_F == NEVER
        # As float32, like the readings: 0.1 does not pass a limit of 0.1.
        self._low_F = np.array([-np.inf if limit is None else limit for limit in low], np.float32)
        self._high_F = np.array([np.inf if limit is None else limit for limit in high], np.float32)
        self._limits = tuple(zip(low, high, strict=True))
        core = compiled.core()
        self._compiled = core and core.Sensors(
            stuck_after_F=self._stuck_after_F.tolist(),
            missing_after_F=self._missing_after_F.tolist(),
            low_F=self._low_F.tolist(),
            high_F=self._high_F.tolist(),
            never=NEVER,
            longest=MAX_RUN,
            stuck=STUCK,
            missing=MISSING,
            out=OUT,
        )

    def update(self, states: States, batch: Batch, visits: Visits) -> list[Finding]:
        """What begins in the batch; the rows of its entities move on."""
        if self._compiled is not None:
            return self._in_core(self._compiled, states, batch, visits)
        x_BF, code_E = batch.x_BF.take(visits.order_B, axis=0), visits.code_E
        last_EF, open_EF = states["quality_last"][code_E], states["quality_open"][code_E]

        missing_BF = np.isnan(x_BF)
        past = _Past(states["quality_missing"], open_EF, MISSING, self._missing_after_F)
        missing = _Runs.of(missing_BF, visits, past, breaker=0)
        held_BF = missing.filled(x_BF, last_EF)

        equal_BF = held_BF == visits.before(held_BF, last_EF)
        equal_BF &= ~self._constant_F
        equal_BF |= missing_BF          # a missing value does not break a run; it is not counted either
        past = _Past(states["quality_equal"], open_EF, STUCK, self._stuck_after_F)
        equal = _Runs.of(equal_BF, visits, past, breaker=1, uncounted_BF=missing_BF)

        was_out_EF = open_EF & OUT != 0
        out_BF = (x_BF < self._low_F) | (x_BF > self._high_F)
        out_held_BF = missing.filled(out_BF, was_out_EF)
        left_BF = out_BF & ~visits.before(out_held_BF, was_out_EF)

        states["quality_last"][code_E] = held_BF[visits.last_E]
        states["quality_open"][code_E] = np.where(out_held_BF[visits.last_E], np.int8(OUT), np.int8(0))
        missing.keep(states, "quality_missing", MISSING, self._missing_after_F)
        equal.keep(states, "quality_equal", STUCK, self._stuck_after_F)
        return [
            *self._findings("missing", missing.reached(self._missing_after_F), batch),
            *self._findings("stuck", equal.reached(self._stuck_after_F), batch),
            *self._findings("out_of_range", _places(left_BF, visits), batch),
        ]

    def _in_core(self, core: Any, states: States, batch: Batch, visits: Visits) -> list[Finding]:
        columns = ("quality_last", "quality_equal", "quality_missing", "quality_open")
        memory = tuple(states[name][visits.code_E] for name in columns)
        begun = core.update(visits.places, np.ascontiguousarray(batch.x_BF), memory)
        for name, column in zip(columns, memory, strict=True):
            states[name][visits.code_E] = column
        kinds: tuple[tuple[Fault, int], ...] = ("missing", MISSING), ("stuck", STUCK), ("out_of_range", OUT)
        return [
            finding
            for kind, bit in kinds if begun
            for finding in self._findings(kind, [(row, f) for found, row, f in begun if found == bit], batch)
        ]

    def _findings(
        self, kind: Fault, begun: Iterable[Sequence[int]], batch: Batch
    ) -> Iterator[Finding]:
        """One for each reading at which episodes begin, from (index in the batch, feature)."""
        by_row: defaultdict[int, list[int]] = defaultdict(list)
        for i, f in begun:
            by_row[i].append(f)
        for i, features in by_row.items():
            yield Finding(
                kind=kind,
                row=i,
                entity=int(batch.entity_B[i]),
                partition=int(batch.partition_B[i]),
                offset=int(batch.offset_B[i]),
                timestamp_ms=int(batch.timestamp_ms_B[i]),
                features=tuple(features),
                amounts=tuple(self._amount(kind, f, batch.x_BF[i, f]) for f in features),
            )

    def _amount(self, kind: Fault, f: int, value: np.float32) -> float:
        """Length of the run, or the limit that was passed."""
        if kind == "stuck":
            return float(self._stuck_after_F[f])
        if kind == "missing":
            return float(self._missing_after_F[f])
        low, high = self._limits[f]
        limit = low if value < self._low_F[f] else high
        assert limit is not None
        return limit


def _places(begins_BF: Bools, visits: Visits) -> list[tuple[int, int]]:
    """(Index in the batch, feature)"""
    row_N, f_N = np.nonzero(begins_BF)
    return list(zip(visits.order_B[row_N].tolist(), f_N.tolist(), strict=True))


class _Past(NamedTuple):
    """Runs as the rows of state have them."""

    run_SF: I32                         # by entity code
    open_EF: NDArray[np.int8]
    episode: int                        # its bit
    after_F: I32

    def of(self, code_R: I32, segment_R: I64, f_R: I64) -> I32:
        """Readings so far. What was said stays said, though another model version may have said it at another length:
        a run has reached its limit exactly where its episode is open.
        """
        run_R, after_R = self.run_SF[code_R, f_R], self.after_F[f_R]
        said_R = (self.open_EF[segment_R, f_R] & self.episode != 0) & (after_R != NEVER)
        return np.where(said_R, np.maximum(run_R, after_R), np.minimum(run_R, after_R - 1))


@dataclass(frozen=True, slots=True)
class _Runs:
    """Runs of readings of one feature and entity."""

    visits: Visits
    breaker: int                        # whether the reading before a run counts as its first
    row_P: I64
    f_P: I64
    count_P: I64                        # readings of the run up to here, those before the batch among them
    counted_P: Bools
    begin_R: I64                        # index among the P
    length_R: I64
    resumed_R: Bools                    # whether it may go on from before the batch

    @classmethod
    def of(
        cls, within_BF: Bools, visits: Visits, past: _Past, breaker: int, uncounted_BF: Bools | None = None
    ) -> Self:
        place_P = np.flatnonzero(within_BF.T)           # one feature after the other
        f_P, row_P = np.divmod(place_P, len(within_BF))
        begins_B, segment_B = visits.begins_B(), visits.segment_B()
        begins_P = begins_B[row_P]
        begins_P[:1] = True
        begins_P[1:] |= place_P[1:] != place_P[:-1] + 1
        begin_R = np.flatnonzero(begins_P)
        length_R = np.diff(begin_R, append=len(row_P))
        row_R, f_R = row_P[begin_R], f_P[begin_R]
        resumed_R = begins_B[row_R]
        segment_R = segment_B[row_R]
        past_R = np.where(resumed_R, past.of(visits.code_E[segment_R], segment_R, f_R), breaker)
        counted_P = np.ones(len(row_P), np.bool_) if uncounted_BF is None else ~uncounted_BF[row_P, f_P]
        number_P = np.cumsum(counted_P)
        before_R = number_P[begin_R] - counted_P[begin_R]
        count_P = np.minimum(number_P + np.repeat(past_R - before_R, length_R), MAX_RUN)
        return cls(visits, breaker, row_P, f_P, count_P, counted_P, begin_R, length_R, resumed_R)

    def filled(self, value_BF: NDArray[Any], initial_EF: NDArray[Any]) -> NDArray[Any]:
        """Readings of a run take the value of the one before it, or of before the batch."""
        if not len(self.row_P):
            return value_BF
        row_R, f_R = self.row_P[self.begin_R], self.f_P[self.begin_R]
        value_R = np.where(self.resumed_R, initial_EF[self.visits.segment_B()[row_R], f_R], value_BF[row_R - 1, f_R])
        filled_BF = value_BF.copy()
        filled_BF[self.row_P, self.f_P] = np.repeat(value_R, self.length_R)
        return filled_BF

    def reached(self, after_F: I32) -> list[tuple[int, int]]:
        """(Index in the batch, feature) where a run gets that long, which each does once."""
        which_P = (self.count_P == after_F[self.f_P]) & self.counted_P
        rows = self.visits.order_B[self.row_P[which_P]].tolist()
        return list(zip(rows, self.f_P[which_P].tolist(), strict=True))

    def keep(self, states: States, name: str, episode: int, after_F: I32) -> None:
        """Writes the runs at the entities' last rows, and which of them are episodes."""
        states[name][self.visits.code_E] = self.breaker
        segment_P = self.visits.segment_B()[self.row_P]
        last_P = np.flatnonzero(self.row_P == self.visits.last_E[segment_P])
        code_L, f_L, count_L = self.visits.code_E[segment_P[last_P]], self.f_P[last_P], self.count_P[last_P]
        states[name][code_L, f_L] = count_L
        long_L = count_L >= after_F[f_L]
        states["quality_open"][code_L[long_L], f_L[long_L]] |= np.int8(episode)
