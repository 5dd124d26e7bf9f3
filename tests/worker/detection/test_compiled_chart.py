"""Chart and alarm, compiled and in Python: the same scores and the same memory, to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.worker.twins import by, needs_core
from worker import compiled
from worker.detection.alarm import Alarm, AlarmSettings
from worker.detection.chart import Chart, ChartSettings
from worker.state.state import States
from worker.state.visits import Visits

ENTITIES, FEATURES, ROWS = 7, 3, 40
MANY_FEATURES = (1, 7, 8, 20, 129, 300)     # numpy adds up so many numbers each in its own order

charts = st.builds(
    ChartSettings,
    slow_share=st.sampled_from([0.0, 5.0]),
    slow_weight=st.sampled_from([0.3, 1.0]),
    baseline_weight=st.sampled_from([0.0, 0.1]),
    gate=st.sampled_from([1.0, 4.0]),
    gate_by=st.sampled_from(["deviation", "mean"]),
    accept_after=st.sampled_from([None, 3]),
    spikes=st.booleans(),
)
alarms = st.builds(AlarmSettings, rate=st.sampled_from([0.0, 0.05]), freeze_after=st.integers(0, 4))


def passed(
    how: Any, chart_by: ChartSettings, alarm_by: AlarmSettings, seed: int, features: int = FEATURES
) -> list[bytes]:
    """Everything that a few batches leave, scores and states."""
    chart = by(how, Chart, chart_by, np.full(features, 0.2), np.full(features, 3.0))
    alarm = by(how, Alarm, alarm_by, 1.2, 0.05)
    states = States((*Chart.fields(features), *Alarm.fields()))
    states.reserve(ENTITIES)
    rng, left = np.random.default_rng(seed), []
    for _ in range(4):
        visits = Visits.of(rng.integers(0, ENTITIES, ROWS).astype(np.int32))
        residual_BF = rng.normal(0, 1, (ROWS, features)) + 8.0 * (rng.random((ROWS, 1)) < 0.2)
        residual_BF[rng.random((ROWS, features)) < 0.1] = np.nan
        residual_BF[rng.random((ROWS, features)) < 0.02] = -1e30
        judged_B = rng.random(ROWS) < 0.9
        charted = chart.update(states, visits, residual_BF, judged_B)
        told = alarm.update(states, visits, charted.raw_B, judged_B)
        mean = b"" if charted.mean_BF is None else charted.mean_BF.tobytes()
        left += [charted.raw_B.tobytes(), charted.feature_BF.tobytes(), mean]
        left += [told.anomaly_score_B.tobytes(), told.factor_B.tobytes(), states.dump(0), states.dump(ENTITIES - 1)]
    return left


@needs_core
@settings(max_examples=60, deadline=None)
@given(charts, alarms, st.integers(0, 2**32))
def test_compiled_and_python_leave_the_same_bits(chart: ChartSettings, alarm: AlarmSettings, seed: int) -> None:
    assert passed("compiled", chart, alarm, seed) == passed("python", chart, alarm, seed)


@needs_core
@pytest.mark.parametrize("features", MANY_FEATURES)
def test_sums_over_any_number_of_features_are_numpys(features: int) -> None:
    core, python = (
        passed(how, ChartSettings(slow_share=5.0, spikes=True), AlarmSettings(), 1, features)
        for how in ("compiled", "python")
    )
    assert core == python


@needs_core
def test_the_core_refuses_what_does_not_fit() -> None:
    chart = compiled.core().Chart(  # type: ignore[union-attr]
        fast_weight=0.3, slow_share=0.0, mean_weight=0.1, slow_weight=1.0, baseline_weight=0.0, gate=4.0,
        gate_by_mean=False, accept_after=None, mean_scale_F=[1.0] * FEATURES, largest_F=None, most=1e4,
    )
    two, judged = np.zeros((2, FEATURES)), np.ones(2, np.uint8)
    memory = (*(np.zeros((1, FEATURES)) for _ in range(4)), np.zeros((1, FEATURES), np.int32))
    places = [np.array([0, 1]), np.array([0]), np.array([2])]
    chart.update(tuple(places), two, judged, np.zeros(2), two.copy(), None, memory)
    outside = ([np.array([0, 2]), *places[1:]], [places[0], np.array([1]), places[2]], [*places[:2], np.array([-1])])
    for wrong in outside:
        with pytest.raises(ValueError, match="outside"):
            chart.update(tuple(wrong), two, judged, np.zeros(2), two.copy(), None, memory)
    with pytest.raises(ValueError, match="belong"):
        chart.update(tuple(places), two[:1], judged, np.zeros(2), two.copy(), None, memory)
    sliced = np.zeros((2, 2 * FEATURES))[:, ::2]
    with pytest.raises(ValueError, match="contiguous"):
        chart.update(tuple(places), sliced, judged, np.zeros(2), two.copy(), None, memory)
