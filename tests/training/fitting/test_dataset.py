from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training import machine
from training import durations
from training.fitting import dataset, profiles
from training.history.history import from_files
from training.settings import TrainingSettings
from worker.errors import TrainingError
from worker.records import Batch


def batch(entity: list[int], stamps: list[int]) -> Batch:
    n = len(entity)
    return Batch(
        np.zeros((n, 1), np.float32), np.array(entity, np.int32), np.array(stamps, np.int64),
        np.zeros(n, np.int32), np.arange(n),
    )


def test_the_newest_of_each_entity_are_held_out() -> None:
    train, held = dataset.split(batch([0, 1, 0, 1, 0, 0], [4, 10, 1, 20, 3, 2]), 0.5)
    assert train.tolist() == [2, 5, 1]
    assert held.tolist() == [4, 0, 3]


def test_without_times_the_order_of_arrival_counts() -> None:
    train, held = dataset.split(batch([0] * 10, [-1] * 10), 0.2)
    assert train.tolist() == list(range(8))
    assert held.tolist() == [8, 9]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 20)), min_size=1), st.floats(0.01, 0.89))
def test_nothing_is_lost_and_nothing_held_out_is_older(rows: list[tuple[int, int]], holdout: float) -> None:
    readings = batch([e for e, _ in rows], [t for _, t in rows])
    train, held = dataset.split(readings, holdout)
    assert sorted([*train, *held]) == list(range(len(rows)))
    for entity in range(4):
        old = readings.timestamp_ms_B[train][readings.entity_B[train] == entity]
        new = readings.timestamp_ms_B[held][readings.entity_B[held] == entity]
        assert not len(new) or old.max() <= new.min()


def test_unit_puts_normal_readings_in_0_to_1_and_clips_nothing() -> None:
    x_NF = np.random.default_rng(0).normal([5, -300], [2, 40], (2000, 2)).astype(np.float32)
    scaling = dataset.scaling_of(x_NF, "unit", ("a", "b"))
    scaled = scaling.scale(x_NF)
    assert ((scaled >= 0) & (scaled <= 1)).mean() > 0.995
    assert scaled.max() - scaled.min() > 0.8
    assert scaling.scale(np.array([[1e6, 0]], np.float32))[0, 0] > 1e4


def test_standard_has_mean_0_and_spread_1() -> None:
    x_NF = np.random.default_rng(0).normal([5, -300], [2, 40], (2000, 2)).astype(np.float32)
    x_NF[::7, 0] = np.nan
    scaled = dataset.scaling_of(x_NF, "standard", ("a", "b")).scale(x_NF)
    assert np.nanmean(scaled, axis=0) == pytest.approx([0, 0], abs=1e-4)
    assert np.nanstd(scaled, axis=0) == pytest.approx([1, 1], abs=1e-4)


def test_the_usual_interval_is_within_an_entity() -> None:
    apart = batch([0, 0, 0, 1, 1, 1], [1000, 3000, 5000, 5000, 7000, 90_000])
    assert dataset.usual_interval(apart) == 2.0
    assert dataset.usual_interval(batch([0] * 5, [-1] * 5)) is None


@pytest.mark.parametrize(("tails", "profile"), [(0.0, "machinery"), (3.0, "servers")])
def test_the_profile_follows_the_tails(tails: float, profile: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4000, 3)) * np.exp(tails * rng.normal(size=(4000, 1)) / 2)
    x[:, 2] = 5.0                       # a constant says nothing
    readings = x.astype(np.float32)
    assert profiles.recognised(readings[:3000], readings[3000:]) == profile


def columns() -> np.ndarray:
    x_NF = np.zeros((1000, 4), np.float32)
    x_NF[:, 0] = np.linspace(0, 1, 1000)
    x_NF[:, 1] = 400.0                  # constant
    x_NF[::400, 2] = 1.0                # rarely other than 0
    x_NF[:, 3] = 0.0                    # constant, and 0
    return x_NF


@pytest.mark.parametrize("how", ["unit", "standard"])
def test_constants_and_rare_changes_get_a_span_of_their_size(how: str) -> None:
    scaling = dataset.scaling_of(columns(), how, ("a", "b", "c", "d"))  # type: ignore[arg-type]
    assert 300 < scaling.span[1] < 600
    assert scaling.span[2] > 0.005
    assert 0.9 < scaling.span[3] < 1.5
    assert np.isfinite(scaling.scale(columns())).all()


def test_all_constant_or_absent() -> None:
    with pytest.raises(TrainingError, match="every feature is constant"):
        dataset.scaling_of(columns()[:, [1, 3]], "unit", ("b", "d"))
    x_NF = columns()
    x_NF[:, 2] = np.nan
    with pytest.raises(TrainingError, match="c has no value"):
        dataset.scaling_of(x_NF, "unit", ("a", "b", "c", "d"))


def test_too_few(tmp_path: Path) -> None:
    history = from_files([machine.csv(tmp_path / "m.csv", 100)], machine.settings(tmp_path))
    with pytest.raises(TrainingError, match=r"holds 100 readings .* at least 200 are needed"):
        dataset.prepare(history, TrainingSettings())
    assert len(history.batch.take(slice(3))) == 3


def test_a_constant_feature_has_a_spread_that_divides_safely(tmp_path: Path) -> None:
    history = from_files([machine.csv(tmp_path / "m.csv", 400)], machine.settings(tmp_path))
    data = dataset.prepare(history, TrainingSettings())
    assert (data.spread_F > 0).all()
    assert len(data.held) == 100


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("1h30m", 5400), ("7d", 604_800), ("0.5h", 1800), ("45", 45)]
)
def test_durations(text: str, seconds: float) -> None:
    assert durations.seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-1h", "0s", "1h soon", "1 y"])
def test_no_durations(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        durations.seconds(text)
