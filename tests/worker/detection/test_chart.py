"""The control chart and the alarm: held to their definitions, one reading after the other, in plain Python."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.detection.alarm import BARELY, Alarm, AlarmSettings
from worker.detection.chart import Chart, ChartSettings
from worker.records import F64
from worker.state.state import States
from worker.state.visits import Visits

FEATURES = 3
MACHINERY = ChartSettings(
    fast_weight=0.1, slow_share=10, mean_weight=0.05, slow_weight=0.1, baseline_weight=0.05, gate_by="mean",
    accept_after=20, spikes=True,
)
LARGEST = 5.0
SERVERS = ChartSettings()


def room(codes: int = 3) -> States:
    states = States((*Chart.fields(FEATURES), *Alarm.fields()))
    states.reserve(codes)
    return states


def run(
    chart: ChartSettings, alarm: AlarmSettings, residual_BF: F64, entity_B: np.ndarray, cuts: list[int]
) -> tuple[F64, F64, States]:
    """Raw scores and anomaly scores of a stream that comes in several batches."""
    states = room()
    judge, judged = Alarm(alarm, 1.5, 0.01), Chart(chart, np.full(FEATURES, chart.mean_std), np.full(FEATURES, LARGEST))
    raw, score = [], []
    for start, end in zip([0, *cuts], [*cuts, len(residual_BF)], strict=True):
        part = slice(start, end)
        visits = Visits.of(entity_B[part].astype(np.int32))
        there_B = ~np.isnan(residual_BF[part]).all(1)
        raw.append(judged.update(states, visits, residual_BF[part], there_B).raw_B)
        score.append(judge.update(states, visits, raw[-1], there_B).anomaly_score_B)
    return np.concatenate(raw), np.concatenate(score), states


@dataclass
class PlainChart:
    settings: ChartSettings
    b: list[float] = field(default_factory=lambda: [0.0] * FEATURES)
    e: list[float] = field(default_factory=lambda: [0.0] * FEATURES)
    fast: list[float] = field(default_factory=lambda: [1.0] * FEATURES)
    slow: list[float] = field(default_factory=lambda: [1.0] * FEATURES)
    out: list[int] = field(default_factory=lambda: [0] * FEATURES)

    def next(self, residuals: list[float]) -> float:
        s = self.settings
        parts, spike = [], 0.0
        for f, u in enumerate(residuals):
            if math.isnan(u):
                continue
            d = u - self.b[f]
            size = abs(d) if s.gate_by == "deviation" else abs(self.e[f]) / s.mean_std
            self.out[f] = self.out[f] + 1 if size > s.gate else 0
            if not self.out[f] or (s.accept_after is not None and self.out[f] > s.accept_after):
                self.b[f] += s.baseline_weight * d
            self.fast[f] += s.fast_weight * (d * d - self.fast[f])
            self.e[f] += s.mean_weight * (d - self.e[f])
            self.slow[f] += s.slow_weight * ((self.e[f] / s.mean_std) ** 2 - self.slow[f])
            spike = max(spike, abs(d) / LARGEST if s.spikes else 0.0)
            parts.append((self.fast[f] + s.slow_share * self.slow[f]) / (1 + s.slow_share))
        return max(math.sqrt(sum(parts) / len(parts)), spike) if parts else 0.0


@dataclass
class PlainAlarm:
    settings: AlarmSettings
    log_factor: float = 0.0
    on: bool = False
    armed: bool = True
    peak: float = 0.0
    trough: float = 0.0
    rows: int = 0

    def next(self, raw: float, threshold: float = 1.5, asked: float = 0.01) -> float:
        s = self.settings
        t = threshold * math.exp(self.log_factor)
        if self.on:
            self.peak = max(self.peak, raw)
            if raw <= max(s.clear_share * self.peak, math.sqrt(max(t, 1.0))):
                self.on, self.armed, self.trough = False, False, raw
        else:
            self.trough = min(self.trough, raw)
            self.armed = self.armed or raw <= t or raw > s.again_factor * self.trough
            if self.armed and raw > t:
                self.on, self.peak = True, raw
        self.rows = self.rows + 1 if self.on else 0
        if self.rows <= s.freeze_after:
            moved = self.log_factor + s.rate * (self.on - asked)
            self.log_factor = min(max(moved, math.log(s.least)), math.log(s.most))
        return max(raw / t, 1 + BARELY) if self.on else min(raw / t, 1.0)


@pytest.mark.parametrize("chart", [MACHINERY, SERVERS])
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_they_do_what_they_say_whatever_the_batches(chart: ChartSettings, data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 120))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    residual_BF = rng.normal(size=(n, FEATURES)) * data.draw(st.sampled_from([1.0, 3.0]))
    at = data.draw(st.integers(0, n))
    residual_BF[at : at + 40] += data.draw(st.sampled_from([0.0, 2.0, 8.0]))
    residual_BF[rng.random((n, FEATURES)) < 0.1] = np.nan
    entity_B = rng.integers(0, 3, n)
    cuts = sorted(data.draw(st.lists(st.integers(0, n), max_size=4)))
    alarm = AlarmSettings(rate=0.05, freeze_after=5)

    raw, score, states = run(chart, alarm, residual_BF, entity_B, cuts)
    once_raw, once_score, once_states = run(chart, alarm, residual_BF, entity_B, [])
    np.testing.assert_array_equal(raw, once_raw)
    np.testing.assert_array_equal(score, once_score)
    for name in states.dtype.names or ():
        np.testing.assert_array_equal(states[name], once_states[name])

    charts = [PlainChart(chart) for _ in range(3)]
    alarms = [PlainAlarm(alarm) for _ in range(3)]
    for i, code in enumerate(entity_B.tolist()):
        if np.isnan(residual_BF[i]).all():
            assert score[i] == raw[i] == 0
            continue
        assert raw[i] == pytest.approx(charts[code].next(residual_BF[i].tolist()), rel=1e-9)
        assert score[i] == pytest.approx(alarms[code].next(float(raw[i])), rel=1e-9)


def alone(chart: ChartSettings, residual_B: F64) -> tuple[F64, F64, States]:
    residual_BF = np.repeat(residual_B[:, None], FEATURES, 1)
    return run(chart, AlarmSettings(), residual_BF, np.zeros(len(residual_B)), [])


def test_drift_is_followed_and_a_fault_is_not() -> None:
    noise = np.random.default_rng(0).normal(0, 1, 6000)
    drift = np.linspace(0, 6, 6000)
    _, score, _ = alone(SERVERS, noise + drift)
    assert (score[1000:] > 1).mean() < 0.02             # 6 spreads away from where it began, and still normal
    fault = noise + np.where(np.arange(6000) > 2000, 8.0, 0.0)
    _, score, states = alone(SERVERS, fault)
    assert (score[2010:] > 1).all()                     # 4000 readings later it still says so
    assert abs(states["baseline"][0]).max() < 1


def test_a_new_level_is_accepted_where_that_is_set() -> None:
    noise = np.random.default_rng(0).normal(0, 1, 3000)
    shifted = noise + np.where(np.arange(3000) > 500, 8.0, 0.0)
    _, score, states = alone(MACHINERY.model_copy(update={"accept_after": 300}), shifted)
    assert (score[520:800] > 1).all()
    assert (score[-500:] <= 1).all()
    assert states["baseline"][0] == pytest.approx([8] * FEATURES, abs=1)


def test_small_lasting_shifts_show_in_machinery_before_they_show_in_servers() -> None:
    noise = np.random.default_rng(0).normal(0, 1, (3000, FEATURES))
    noise[2000:, 0] += 1.5
    lasting = MACHINERY.model_copy(update={"baseline_weight": 0.01})
    raws = [run(chart, AlarmSettings(), noise, np.zeros(3000), [])[0] for chart in (lasting, SERVERS)]
    gain = [raw[2040:2100].mean() / np.quantile(raw[500:2000], 0.99) for raw in raws]
    assert gain[0] > 1.2 > gain[1]


def test_one_absurd_reading_is_forgotten() -> None:
    quiet = np.random.default_rng(0).normal(0, 1, 400)
    quiet[100] = 1e30
    raw, score, _ = alone(SERVERS, quiet)
    quiet[100] = 0.0
    undisturbed, _, _ = alone(SERVERS, quiet)
    assert np.isfinite(raw).all()
    assert score[100] > 100
    np.testing.assert_allclose(raw[200:], undisturbed[200:], rtol=1e-4)


def test_a_threshold_that_is_off_finds_its_rate() -> None:
    rng = np.random.default_rng(0)
    raw = np.abs(rng.normal(0, 1.2, 60_000))            # far more than 1 % lie above 1.5
    states = room(1)
    judge = Alarm(AlarmSettings(), 1.5, 0.01)
    scores = judge.update(states, Visits.of(np.zeros(len(raw), np.int32)), raw, np.ones(len(raw), bool))
    realised = (scores.anomaly_score_B[20_000:] > 1).mean()
    assert (raw > 1.5).mean() > 0.2
    assert 0.005 < realised < 0.02


def test_a_lasting_fault_does_not_teach_itself_to_be_normal() -> None:
    raw = np.full(5000, 3.0)
    raw[:100] = 0.5
    states = room(1)
    judge = Alarm(AlarmSettings(), 1.5, 0.01)
    scores = judge.update(states, Visits.of(np.zeros(len(raw), np.int32)), raw, np.ones(len(raw), bool))
    assert (scores.anomaly_score_B[100:] > 1).all()
    assert states["threshold_factor"][0] < 1.3


def test_one_absurd_reading_of_one_sensor_is_not_averaged_away() -> None:
    residual_BF = np.random.default_rng(1).normal(size=(300, FEATURES))
    residual_BF[200, 1] = 12.0
    for chart, seen in ((MACHINERY, True), (MACHINERY.model_copy(update={"spikes": False}), False)):
        raw, score, _ = run(chart, AlarmSettings(), residual_BF, np.zeros(300, np.int64), [])
        assert (score[200] > 1) == seen
        if seen:
            assert raw[200] == pytest.approx(12 / LARGEST, rel=0.1)


def test_the_sensor_that_spiked_is_named() -> None:
    states, visits = room(), Visits.of(np.zeros(1, np.int32))
    chart = Chart(MACHINERY, np.full(FEATURES, MACHINERY.mean_std), np.full(FEATURES, LARGEST))
    charted = chart.update(states, visits, np.array([[0.5, -25.0, np.nan]]), np.ones(1, bool))
    assert charted.feature_BF.argmax() == 1
    assert charted.feature_BF[0, 1] > 0.99 * charted.feature_BF.sum()
    assert charted.feature_BF[0, 2] == 0
    assert charted.raw_B[0] ** 2 == pytest.approx(charted.feature_BF.sum() / 2)
