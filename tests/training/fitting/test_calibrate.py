from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.factory import FEATURES
from tests.training import machine
from training.fitting import calibrate, profiles
from worker.detection.calibration import Calibration
from worker.detection.detector import Detector
from worker.detection.model import Shape, build
from worker.detection.scaling import Scaling
from worker.models.artifact import Artifact, Manifest, TrainingRecord

RATE = 0.001


def chi_square(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).chisquare(4, n)


def zchart() -> Artifact:
    """Expects 0 of every feature: residuals are the readings."""
    manifest = Manifest(
        name="m", version="v", created_at="", kind="zchart", shape=Shape(features=3), features=FEATURES,
        scaling=Scaling(offset=(0,) * 3, span=(1,) * 3, median=(0,) * 3), residual_scale=(1,) * 3,
        calibration=Calibration(threshold=1, target_rate=0.1, count=1, scores=(0, 1), p_values=(1, 0.5)),
        training=TrainingRecord(rows=1, seed=0), sha256="0" * 64,
    )
    return Artifact(manifest, build("zchart", Shape(features=3)))


@pytest.mark.parametrize("n", [2000, 20_000])
def test_the_asked_rate_comes_true_on_readings_not_seen(n: int) -> None:
    calibration = calibrate.calibration_of(chi_square(n), RATE)
    assert calibration.tail is not None
    realised = (chi_square(1_000_000, seed=1) > calibration.threshold).mean()
    assert RATE / 2.5 < realised < RATE * 2.5


def test_p_values_are_the_share_of_normal_readings_that_score_as_high() -> None:
    calibration = calibrate.calibration_of(chi_square(20_000), RATE)
    fresh = np.sort(chi_square(200_000, seed=1))
    for share in (0.5, 0.1, 0.01, 0.001):
        score = fresh[int(len(fresh) * (1 - share))]
        assert calibration.p_value(np.array([score]))[0] == pytest.approx(share, rel=0.4)
    assert calibration.p_value(np.array([calibration.threshold]))[0] == pytest.approx(RATE, rel=0.01)


def test_few_scores_fall_back_to_an_order_statistic() -> None:
    scores = chi_square(80)
    calibration = calibrate.calibration_of(scores, RATE)
    assert calibration.tail is None
    assert calibration.threshold == scores.max()
    assert calibrate.calibration_of(scores, 0.1).threshold == np.sort(scores)[72]


def test_a_heavy_tail_stays_bounded() -> None:
    scores = np.abs(np.random.default_rng(0).standard_cauchy(5000)) ** 3
    tail = calibrate.calibration_of(scores, RATE).tail
    assert tail is not None
    assert tail.shape == calibrate.SHAPE_BOUND


@given(st.lists(st.sampled_from([0.0, 0.1, 1.0, 2.0, 1e9]) | st.floats(0, 100), min_size=1, max_size=400))
def test_any_scores_give_a_calibration_whose_p_values_descend(scores: list[float]) -> None:
    calibration = calibrate.calibration_of(np.array(scores), RATE, least=0.1)
    assert calibration.threshold >= 0.1
    at = np.linspace(0, max(scores) * 2 + 1, 300)
    p = calibration.p_value(at)
    assert ((p > 0) & (p <= 1)).all()
    assert (np.diff(p) <= 1e-12).all()


def test_many_scores_keep_their_highest_exactly() -> None:
    scores = np.sort(chi_square(50_000))
    points, p = calibrate.support(scores)
    assert len(points) <= calibrate.SUPPORT
    assert set(scores[-200:]) <= set(points)
    assert p[list(points).index(scores[-10])] == pytest.approx(11 / 50_001)


def test_the_scale_is_that_of_the_residuals_and_never_below_the_floor() -> None:
    residual_HF = np.random.default_rng(0).normal(0, [0.5, 3, 0], (5000, 3))
    residual_HF[:5] = 1e6               # faults
    residual_HF[10:20, 0] = np.nan
    residual_HF[5:, 2] = 0              # constant
    scale_F = calibrate.robust_scale(residual_HF, 0.01)
    assert scale_F[:2] == pytest.approx([0.5, 3], rel=0.08)
    assert scale_F[2] == 0.01


def test_a_feature_that_was_never_there_does_no_harm() -> None:
    x_HF = np.random.default_rng(0).normal(size=(100, 3))
    x_HF[:, 1] = np.nan
    found = calibrate.with_calibration(zchart(), machine.batch(x_HF), 0.1, 0.01).manifest
    assert found.residual_scale[1] == 0.01
    assert found.calibration.count == 100


def test_calibrated_scores_are_the_workers() -> None:
    held = machine.batch(np.random.default_rng(0).normal(size=(5000, 3)))
    artifact = calibrate.with_calibration(zchart(), held, 0.01, 0.01)
    assert Detector(artifact).score_history(held).anomalous_B.mean() == pytest.approx(0.01, abs=0.003)


@pytest.mark.parametrize("name", ["machinery", "servers"])
def test_a_chart_is_calibrated_in_its_own_units(name: profiles.Name) -> None:
    recipe = profiles.PROFILES[name]
    assert recipe.chart is not None
    charted = zchart().manifest.model_copy(
        update={"chart": recipe.chart, "alarm": recipe.alarm, "mean_scale": (recipe.chart.mean_std,) * 3}
    )
    rng = np.random.default_rng(0)
    held, fresh = (machine.batch(rng.normal(0, [0.3, 1, 5], (n, 3))) for n in (4000, 20_000))
    artifact = calibrate.with_calibration(Artifact(charted, zchart().model), held, 0.01, 0.01)
    assert artifact.manifest.residual_scale == pytest.approx([0.3, 1, 5], rel=0.05)
    if recipe.chart.slow_share:
        assert artifact.manifest.mean_scale == pytest.approx([recipe.chart.mean_std] * 3, rel=0.3)
    scores = Detector(artifact).score_history(fresh)
    assert 0.003 < scores.anomalous_B.mean() < 0.03                # 0.01 was asked for
    assert scores.raw_B.mean() == pytest.approx(1, abs=0.2)
