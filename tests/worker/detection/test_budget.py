"""A budget of alarms becomes the share of readings that a threshold is set by."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests import factory
from worker.detection.budget import target_rate
from worker.detection.calibration import Calibration, Tail
from worker.errors import SettingsError
from worker.models.artifact import Manifest, load
from worker.settings import ModelSettings

TAIL = Tail(start=2.0, rate=0.1, scale=0.5, shape=0.1)
CALIBRATION = Calibration(
    threshold=2 * TAIL.score(0.01), target_rate=0.01, count=5000, scores=(0.0, 1.0, 2.0), p_values=(1.0, 0.5, 0.1),
    tail=TAIL, alarm_rows=4.0,
)


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    registry = factory.publish(
        tmp_path, calibration=CALIBRATION, period_seconds=60.0, entities=tuple(f"pump-{i}" for i in range(10))
    )
    return load(registry, "v1", torch.device("cpu")).manifest


def test_alerts_per_day(manifest: Manifest) -> None:
    assert target_rate(ModelSettings(), manifest) is None
    assert target_rate(ModelSettings(target_rate=0.03), manifest) == 0.03
    each = target_rate(ModelSettings(alerts_per_day=1), manifest)
    together = target_rate(ModelSettings(alerts_per_day=1, alerts_per="all"), manifest)
    assert each == pytest.approx(4 / 1440)              # an alarm lasts four readings; 1440 minutes make a day
    assert together == pytest.approx(4 / 14_400)


def test_a_budget_needs_readings_with_a_time(manifest: Manifest) -> None:
    with pytest.raises(SettingsError, match="set ZMU_MODEL__TARGET_RATE instead"):
        target_rate(ModelSettings(alerts_per_day=1), manifest.model_copy(update={"period_seconds": None}))


def test_two_budgets_are_one_too_many() -> None:
    with pytest.raises(ValueError, match="give one"):
        ModelSettings(alerts_per_day=1, target_rate=0.1)


def test_a_rarer_alarm_has_a_higher_threshold() -> None:
    rates = [0.4, 0.1, 0.05, 0.01, 0.001, 1e-5]
    thresholds = [CALIBRATION.threshold_for(rate) for rate in rates]
    assert (np.diff(thresholds) > 0).all()
    assert CALIBRATION.threshold_for(0.01) == CALIBRATION.threshold
    assert CALIBRATION.threshold_for(0.001) == pytest.approx(2 * TAIL.score(0.001))
    fixed = CALIBRATION.model_copy(update={"fixed": True})
    assert fixed.threshold_for(1e-5) == CALIBRATION.threshold
