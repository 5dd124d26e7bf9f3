"""Drift stays low on what was learnt and rises on what was not; and what the worker serves of it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, Gauge
from pydantic import ValidationError

from tests.training import machine
from worker.metrics import Metrics
from worker.models.drift import AT_MOST, PANES, Drift, Statistics
from worker.models.drift_series import DriftSeries
from worker.models.reference import BINS, EDGES, Reference

WINDOW = 6000
SETPOINT = machine.SENSORS.index("setpoint")


def scores(n: int, seed: int) -> np.ndarray:
    return np.abs(np.random.default_rng(seed).normal(size=n))


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference.of(np.column_stack([machine.readings(5000), scores(5000, 9)]))


def after(reference: Reference, x_BF: np.ndarray, batch: int = 200, window: int = WINDOW) -> list[Statistics]:
    """Statistics at every half window."""
    drift, found = Drift(reference, window, 1000), []
    for i in range(0, len(x_BF), batch):
        part = x_BF[i : i + batch].astype(np.float32)
        drift.count(part, scores(len(part), i))
        if (i + batch) % (window // 2) == 0:
            found.append(drift.statistics())
    return found


def test_the_same_distribution_never_looks_like_another(reference: Reference) -> None:
    found = after(reference, machine.readings(120_000, seed=7))[1:]
    assert len(found) == 39
    psi_SF, ks_SF = np.array([s.psi_F for s in found]), np.array([s.ks_F for s in found])
    assert psi_SF.max() < 0.02          # 0.1 is called no change: 39 windows of 8 columns, no false trigger
    assert ks_SF.max() < 0.05


@pytest.mark.parametrize(("feature", "by"), [(0, 0.15), (3, 4.0), (5, 0.03), (SETPOINT, 0.1), (SETPOINT, -0.1)])
def test_a_shift_shows_in_its_feature_and_in_no_other(reference: Reference, feature: int, by: float) -> None:
    x_BF = machine.readings(2 * WINDOW, seed=8)
    x_BF[WINDOW:, feature] += by
    before, shifted = (after(reference, x_BF)[i] for i in (1, 3))
    assert before.psi_F.max() < 0.02
    assert shifted.psi_F[feature] > 0.25
    assert shifted.ks_F[feature] > 0.1
    others = np.arange(len(shifted.psi_F)) != feature
    assert shifted.psi_F[others].max() < 0.02


def test_a_wider_spread_at_the_same_mean(reference: Reference) -> None:
    x_BF = machine.readings(WINDOW, seed=8)
    x_BF[:, 3] = 70 + 2 * (x_BF[:, 3] - 70)
    (_, found) = after(reference, x_BF)
    assert found.psi_F[3] > 0.25


def test_the_window_forgets(reference: Reference) -> None:
    x_BF = machine.readings(4 * WINDOW, seed=8)
    x_BF[:WINDOW, 0] += 0.5
    found = [s.psi_F[0] for s in after(reference, x_BF)]
    assert found[1] > 1
    assert found[-1] < 0.02


def test_too_few_say_nothing_and_missing_ones_do_not_count(reference: Reference) -> None:
    drift = Drift(reference, WINDOW, 1000)
    x_BF = machine.readings(1200).astype(np.float32)
    x_BF[:600, 2] = np.nan
    for i in range(0, 800, 200):
        drift.count(x_BF[i : i + 200], scores(200, i))
    assert np.isnan(drift.statistics().psi_F).all()
    for i in range(800, 1200, 200):
        drift.count(x_BF[i : i + 200], scores(200, i))
    psi_F = drift.statistics().psi_F
    assert np.isnan(psi_F).tolist() == [False, False, True, *[False] * 5]
    assert drift.statistics() is drift.statistics()


def test_a_large_batch_is_thinned_out_and_memory_is_fixed(reference: Reference) -> None:
    drift = Drift(reference, WINDOW, 1000)
    for i in range(40):
        drift.count(machine.readings(5000, seed=i).astype(np.float32), scores(5000, i))
    assert drift._pane_PFC.shape == (PANES, 8, BINS)
    assert drift._pane_PFC.sum(axis=(0, 2)).max() <= WINDOW + AT_MOST * PANES
    assert drift.statistics().psi_F.max() < 0.02
    drift.count(np.empty((0, 7), np.float32), np.empty(0))


def test_a_reference_of_the_wrong_shape_is_refused(reference: Reference) -> None:
    good = reference.model_dump()
    for wrong in (
        good | {"edges": [[0.0] * (EDGES - 1)] * 8},
        good | {"shares": good["shares"][:-1]},
        good | {"edges": [list(range(EDGES, 0, -1))] * 8},
    ):
        with pytest.raises(ValidationError):
            Reference.model_validate(wrong)


def test_series_are_those_of_the_served_model(reference: Reference) -> None:
    metrics = Metrics()

    def sample(feature: str, name: str = "drift_statistic") -> float | None:
        return metrics.registry.get_sample_value(f"zmu_{name}", {"feature": feature})

    drift = Drift(reference, WINDOW, 1000)
    metrics.drifts(machine.SENSORS, drift)
    first = sample("load")
    assert first is not None
    assert math.isnan(first)
    x_BF = machine.readings(3000, seed=4)
    x_BF[:, 0] += 0.5
    for i in range(0, 3000, 250):
        drift.count(x_BF[i : i + 250].astype(np.float32), scores(250, i))
    assert (sample("load") or 0) > 1
    assert (sample("heat") or 1) < 0.05
    assert (sample("load", "drift_ks_statistic") or 0) > 0.3
    assert (metrics.registry.get_sample_value("zmu_score_drift_statistic") or 1) < 0.1
    metrics.drifts(("other",), None)
    assert sample("load") is None
    assert math.isnan(metrics.registry.get_sample_value("zmu_score_drift_statistic") or 0)


def test_no_more_series_than_are_bearable(reference: Reference) -> None:
    registry = CollectorRegistry()
    wide = Reference(edges=reference.edges[:1] * 400, shares=reference.shares[:1] * 400)
    DriftSeries(lambda name, text, labels=(): Gauge(name, text, labels, registry=registry))(
        [f"f{i}" for i in range(399)], Drift(wide, WINDOW, 1000)
    )
    assert sum(s.name == "drift_statistic" for metric in registry.collect() for s in metric.samples) == 256
