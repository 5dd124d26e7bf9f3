"""Scores: zero where the model is right, above 1 where it is not, the same bits whatever the batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests import factory
from tests.training.machine import batch
from worker.detection.calibration import Calibration, Tail
from worker.detection.detector import Detector
from worker.detection.scaling import Scaling
from worker.models.artifact import load


@pytest.fixture
def detector(tmp_path: Path) -> Detector:
    return Detector(load(factory.publish(tmp_path), "v1", torch.device("cpu")))


def rows(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (np.array([20, 3, 50]) + rng.normal(0, 2, (n, 3))).astype(np.float32)


def test_the_same_reading_gets_the_same_bits_in_any_batch(detector: Detector) -> None:
    x = rows(700)
    x[::7, 1] = np.nan
    together = detector.score_history(batch(x))
    for size in (1, 3, 256, 300):
        parts = [detector.score_history(batch(x[i : i + size])) for i in range(0, len(x), size)]
        np.testing.assert_array_equal(np.concatenate([p.anomaly_score_B for p in parts]), together.anomaly_score_B)
    order = np.random.default_rng(1).permutation(len(x))
    np.testing.assert_array_equal(detector.score_history(batch(x[order])).raw_B, together.raw_B[order])


def test_missing_features_are_left_out_of_the_score(detector: Detector) -> None:
    x = np.array([[20, 3, 50], [20, np.nan, 50], [np.nan] * 3], np.float32)
    scores = detector.score_history(batch(x))
    assert scores.imputed_B.tolist() == [False, True, True]
    assert scores.feature_score_BF[1, 1] == 0
    assert scores.raw_B[2] == 0
    assert not scores.anomalous_B.any()
    assert np.isfinite(scores.expected_BF).all()


def test_the_feature_that_is_off_has_the_largest_score(detector: Detector) -> None:
    for feature in range(3):
        x = np.array([[20, 3, 50]], np.float32)
        x[0, feature] += 30
        scores = detector.score_history(batch(x))
        assert scores.anomalous_B[0]
        assert scores.feature_score_BF[0].argmax() == feature
        assert scores.p_value_B[0] <= 0.01


def test_extreme_inputs_stay_finite(detector: Detector) -> None:
    x = np.array([[3.4e38, -3.4e38, 3.4e38], [1e30, 0, -1e30]], np.float32)
    scores = detector.score_history(batch(x))
    assert np.isfinite(scores.feature_score_BF).all()
    assert np.isfinite(scores.anomaly_score_B).all()
    assert np.isfinite(scores.expected_BF).all()
    assert scores.anomalous_B.all()


def test_an_empty_batch(detector: Detector) -> None:
    assert detector.score_history(batch(np.empty((0, 3), np.float32))).anomaly_score_B.shape == (0,)


def test_scaling_goes_there_and_back_and_never_clips() -> None:
    scaling = Scaling(offset=(10.0, 0.0), span=(5.0, 0.1), median=(12.0, 0.05))
    x = np.array([[10, 0], [1e6, -1e6]], np.float32)
    np.testing.assert_allclose(scaling.unscale(scaling.scale(x)), x, rtol=1e-6)
    assert scaling.scale(x)[1, 0] > 1e5
    np.testing.assert_allclose(scaling.fill_F, [0.4, 0.5], rtol=1e-6)


def test_the_largest_float_on_the_smallest_span_stays_finite() -> None:
    scaling = Scaling(offset=(0.0,), span=(1e-9,), median=(0.0,))
    scaled = scaling.scale(np.array([[3.4e38], [-3.4e38]], np.float32))
    assert np.isfinite(scaled).all()
    assert (np.sign(scaled[:, 0]) == [1, -1]).all()


@pytest.mark.parametrize("shape", [-0.3, 0.0, 0.4])
def test_a_tail_and_its_inverse_agree(shape: float) -> None:
    tail = Tail(start=2.0, rate=0.1, scale=1.5, shape=shape)
    for p in (0.09, 0.01, 1e-4):
        score = tail.score(p)
        assert score > 2
        np.testing.assert_allclose(tail.p_value(np.array([score])), p, rtol=1e-9)
    assert tail.p_value(np.array([2.0]))[0] == pytest.approx(0.1)


def test_p_values_fall_as_scores_rise_and_are_never_nothing() -> None:
    tail = Tail(start=4.0, rate=0.1, scale=1.0, shape=-0.5)
    calibration = Calibration(
        threshold=5, target_rate=0.01, count=50, scores=(0.0, 1.0, 4.0), p_values=(1.0, 0.5, 0.1), tail=tail
    )
    p = calibration.p_value(np.linspace(0, 20, 200))
    assert (np.diff(p) <= 0).all()
    assert p[0] == 1
    assert 0 < p[-1] <= 1e-9


@pytest.mark.parametrize(
    "broken",
    [
        {"scores": (0.0, 2.0, 1.0)},
        {"p_values": (1.0, 0.5, 0.6)},
        {"p_values": (1.0, 0.5)},
        {"threshold": 0.0},
        {"threshold": float("nan")},
        {"p_values": (1.0, 0.5, 0.0)},
    ],
)
def test_a_calibration_that_cannot_be_is_refused(broken: dict[str, object]) -> None:
    good: dict[str, object] = {
        "threshold": 1.0, "target_rate": 0.01, "count": 3, "scores": (0.0, 1.0, 2.0), "p_values": (1.0, 0.5, 0.1)
    }
    Calibration.model_validate(good)
    with pytest.raises(ValueError, match="validation error"):
        Calibration.model_validate(good | broken)
