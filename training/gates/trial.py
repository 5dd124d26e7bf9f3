"""Faults made on purpose in copies of held-out readings: which of them does a version notice?

Without labels, a small error on normal readings does not say which of two models detects better. This does, on the
user's own data. Stretches of held-out readings are copied, and each copy is given one fault in one sensor. The detector
comes to it as in service, with the memory of the readings before. A fault counts as noticed where there is an alarm
with it and none without it, so that neither a deaf detector nor one that always alarms can win.

Legend: F features, S stretches, N readings of a stretch, T trials: one fault in a copy of one stretch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from training.gates.injections import FAULTS, Case
from worker.detection.detector import AT_ONCE, Detector, Scores
from worker.records import F32, F64, I32, I64, Batch, Bools
from worker.state.state import States
from worker.state.visits import runs

STRETCHES = 40                          # each with every fault: a share of all has a standard error of 0.03 at most
ROWS = 40                               # a fault that is not noticed within so many readings counts as missed
LEAST_ROWS = 5                          # where an entity's readings are few; fewer tell nothing
RUN_UP = 500                            # readings before, to warm the memory: the charts' baselines look back so far


class Seen(NamedTuple):
    """What a detector made of a trial. Shares from 0 to 1."""

    trials: int
    detected: float                     # of all faults
    detected_by: dict[str, float]       # … of each kind, by the fault's name
    named: float | None                 # of those noticed, the right sensor blamed most; None where none is noticed
    false_alarms: float                 # of stretches: an alarm as they are

    def figures(self) -> dict[str, float]:
        named = {} if self.named is None else {"named": self.named}
        by_fault = {f"detected.{name}": share for name, share in self.detected_by.items()}
        return {"detected": self.detected, "false_alarms": self.false_alarms, **named, **by_fault}


class Outcomes(NamedTuple):
    noticed_T: Bools
    right_T: Bools                      # whether the sensor at fault was blamed most, where it was noticed
    loud_S: Bools                       # an alarm in the stretch as it is: no fault is noticed there


@dataclass(frozen=True)
class Trial:
    """The same for every detector.

    In each batch come the first readings of all stretches, then the second ones, and so on: entities that go on side by
    side take as many steps as one.
    """

    run_up: Batch                       # entity codes: stretches
    clean: Batch                        # entity codes: stretches
    faulty: Batch                       # entity codes: trials
    stretch_T: I32
    fault_T: I32                        # place in FAULTS
    sensor_T: I32

    def __len__(self) -> int:
        return len(self.stretch_T)

    def of(self, detector: Detector) -> Seen:
        noticed_T, right_T, loud_S = self.outcomes(detector)
        return Seen(
            trials=len(self),
            detected=float(noticed_T.mean()),
            detected_by={
                FAULTS[i].name: float(noticed_T[self.fault_T == i].mean()) for i in np.unique(self.fault_T).tolist()
            },
            named=float(right_T[noticed_T].mean()) if noticed_T.any() else None,
            false_alarms=float(loud_S.mean()),
        )

    def outcomes(self, detector: Detector) -> Outcomes:
        stretches = int(self.clean.entity_B.max()) + 1
        states = detector.states()
        states.reserve(stretches)
        for _ in _scored(detector, self.run_up, states):
            pass
        forked = self._forked(detector, states)
        clean_B = np.concatenate([s.anomalous_B for s in _scored(detector, self.clean, states)])
        loud_S = np.any(clean_B.reshape(-1, stretches), axis=0)
        # Scores are wide: no more of them is kept than is needed.
        kept = [(s.anomalous_B, s.feature_score_BF.argmax(1)) for s in _scored(detector, self.faulty, forked)]
        alarm_NT, blamed_NT = (np.concatenate(part).reshape(-1, len(self)) for part in zip(*kept, strict=True))
        noticed_T = np.any(alarm_NT, axis=0) & ~loud_S[self.stretch_T]
        right_T = blamed_NT[alarm_NT.argmax(0), np.arange(len(self))] == self.sensor_T
        return Outcomes(noticed_T, right_T, loud_S)

    def _forked(self, detector: Detector, states: States) -> States:
        """Memory for each trial, as it is where its stretch begins."""
        forked = detector.states()
        forked.reserve(len(self))
        if detector.fields:
            for trial, stretch in enumerate(self.stretch_T.tolist()):
                forked.load(trial, states.dump(stretch))
        return forked


class _Stretches(NamedTuple):
    first_S: I64                        # rows of the held-out readings
    begin_S: I64                        # of the stretch's entity: its first row …
    count_S: I64                        # … and how many it has
    rows: int


def prepared(held: Batch, spread_F: F64, window: int, seed: int) -> Trial | None:
    """Draws faults for held-out readings, which are in order by entity. spread_F: of each sensor, in its own units.

    None where no entity has enough readings in a row, or no sensor moves.
    """
    stretches = _stretches(held, window)
    if stretches is None:
        return None
    draw = np.random.default_rng(seed)
    moving_F = np.fmax.reduce(held.x_BF) > np.fmin.reduce(held.x_BF)
    copies: list[F32] = []
    drawn: list[tuple[int, int, int]] = []
    for stretch in range(len(stretches.first_S)):
        for fault in range(len(FAULTS)):
            found = _injected(held.x_BF, stretches, stretch, fault, moving_F, spread_F, draw)
            if found is not None:
                sensor, faulty_NF = found
                copies.append(faulty_NF)
                drawn.append((stretch, fault, sensor))
    if not drawn:
        return None
    stretch_T, fault_T, sensor_T = np.asarray(drawn, np.int32).T
    span_NS = stretches.first_S + np.arange(stretches.rows)[:, None]
    return Trial(
        run_up=_run_up(held, stretches),
        clean=_side_by_side(held, span_NS),
        faulty=replace(
            _side_by_side(held, span_NS[:, stretch_T]), x_BF=np.stack(copies, 1).reshape(-1, held.x_BF.shape[1])
        ),
        stretch_T=stretch_T, fault_T=fault_T, sensor_T=sensor_T,
    )


def _stretches(held: Batch, window: int) -> _Stretches | None:
    """Spread evenly over all the rows where one may begin."""
    begin_E = runs(held.entity_B)
    count_E = np.diff(begin_E, append=len(held))
    rows = min(ROWS, (int(count_E.max(initial=0)) - window) // 2)
    if rows < LEAST_ROWS:
        return None
    long_E = count_E >= window + 2 * rows           # there is a window before it, and another time to take values of
    begin_E, count_E = begin_E[long_E], count_E[long_E]
    possible_E = count_E - window - rows + 1
    end_E = np.cumsum(possible_E)
    chosen_S = np.unique(np.linspace(0, end_E[-1] - 1, STRETCHES).round().astype(np.int64))
    entity_S = np.searchsorted(end_E, chosen_S, side="right")
    rank_S = chosen_S - (end_E - possible_E)[entity_S]
    return _Stretches(begin_E[entity_S] + window + rank_S, begin_E[entity_S], count_E[entity_S], rows)


def _injected(
    x_HF: F32, stretches: _Stretches, stretch: int, fault: int, moving_F: F64, spread_F: F64, draw: np.random.Generator
) -> tuple[int, F32] | None:
    """A sensor, and the stretch with the fault in it; None where the fault would change no sensor."""
    first, begin, count, rows = (
        int(stretches.first_S[stretch]), int(stretches.begin_S[stretch]), int(stretches.count_S[stretch]),
        stretches.rows,
    )
    normal_NF = x_HF[first : first + rows]
    away = int(draw.integers(rows, count - rows + 1))
    elsewhere_NF = x_HF[begin + (first - begin + away + np.arange(rows)) % count]
    sign, at = float(draw.choice((-1.0, 1.0))), int(draw.integers(rows))
    there_F = np.isnan(normal_NF).mean(0) <= 0.5
    for sensor in draw.permutation(np.flatnonzero(moving_F & there_F)).tolist():
        case = Case(normal_NF[:, sensor], elsewhere_NF[:, sensor], float(spread_F[sensor]), sign, at)
        faulty_N = FAULTS[fault].inject(case)
        if not np.array_equal(faulty_N, case.normal_N, equal_nan=True):
            faulty_NF = normal_NF.copy()
            faulty_NF[:, sensor] = faulty_N
            return sensor, faulty_NF
    return None


def _run_up(held: Batch, stretches: _Stretches) -> Batch:
    length_S = np.minimum(stretches.first_S - stretches.begin_S, RUN_UP)
    stretch_B = np.repeat(np.arange(len(length_S)), length_S)
    left_B = np.concatenate([np.arange(length, 0, -1) for length in length_S.tolist()])
    order_B = np.lexsort((stretch_B, -left_B))
    rows_B = (stretches.first_S[stretch_B] - left_B)[order_B]
    return replace(held.take(rows_B), entity_B=stretch_B[order_B].astype(np.int32))


def _side_by_side(held: Batch, row_NC: I64) -> Batch:
    """Each column as an entity of its own."""
    rows, columns = row_NC.shape
    return replace(held.take(row_NC.ravel()), entity_B=np.tile(np.arange(columns, dtype=np.int32), rows))


def _scored(detector: Detector, batch: Batch, states: States) -> Iterator[Scores]:
    for start in range(0, len(batch), AT_ONCE):
        yield detector.score(batch.take(slice(start, start + AT_ONCE)), states)
