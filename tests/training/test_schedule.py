"""The schedule without a clock that ticks."""

from __future__ import annotations

import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import factory
from training import lock, schedule
from training.history import drift
from training.history.drift import Drifted
from training.history.freshness import TooLittleNew
from training.metrics import Metrics
from training.progress import Stopped
from worker.errors import BrokerError, SettingsError, TrainingError
from worker.models.registry import Registry
from worker.signals import Stop


class Day:
    """Time that passes only by waiting and training."""

    def __init__(self, runs: int, train: Callable[[int], str]) -> None:
        self.now, self.starts, self.pauses = 1_000_000.0, [], []
        self.metrics, self.stop = Metrics(), Stop()
        self._left, self._train = runs, train

    def train(self) -> Any:
        self.starts.append(self.now)
        self.now += 10
        if len(self.starts) == self._left:
            self.stop.set()
        promotion = self._train(len(self.starts))
        made = types.SimpleNamespace(version="v")
        return types.SimpleNamespace(manifest=made, loss=0.5, promotion=promotion, feedback={"false_alarm": 3})

    def wait(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    def run(self, next_run: schedule.NextRun, **more: Any) -> schedule.Schedule:
        made = schedule.Schedule(self.train, next_run, self.metrics, self.stop, lambda: self.now, self.wait, **more)
        made.run()
        return made

    def sample(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"zmu_{name}", labels)


def test_the_first_at_once_and_then_at_equal_distances() -> None:
    day = Day(3, lambda _: "promoted")
    made = day.run(schedule.every("1h"))
    assert day.starts == [1_000_000, 1_003_600, 1_007_200]
    assert day.sample("training_runs_total", result="success") == 3
    assert day.sample("training_promotions_total", result="promoted") == 3
    assert day.sample("training_duration_seconds") == 10
    assert day.sample("training_validation_loss") == 0.5
    assert made.facts() == {"training": False, "last_run": "success"}


def test_a_run_that_takes_too_long_is_followed_at_once_but_never_overlapped() -> None:
    day = Day(2, lambda _: "promoted")
    day.run(schedule.every("5s"))
    assert day.pauses == [0]


def test_a_failing_run_does_not_end_it_and_is_tried_again_soon() -> None:
    def train(n: int) -> str:
        if n <= 3:
            raise TrainingError("nothing there yet") if n < 3 else RuntimeError("a fault of ours")
        return "promoted"

    day = Day(5, train)
    day.run(schedule.every("6h"))
    assert day.pauses == [30, 60, 120, 6 * 3600 - 10]
    assert day.sample("training_runs_total", result="failed") == 3
    assert day.sample("training_runs_total", result="success") == 2


def test_a_refused_version_is_not_a_success() -> None:
    day = Day(1, lambda _: "refused")
    day.run(schedule.every("6h"))
    assert day.sample("training_runs_total", result="refused") == 1
    assert day.sample("training_last_success_timestamp_seconds") == 0


def test_stopping_during_a_run() -> None:
    def train(_: int) -> str:
        raise Stopped

    day = Day(1, train)
    day.run(schedule.every("6h"))
    assert day.sample("training_runs_total", result="stopped") == 1


def test_cron() -> None:
    assert schedule.cron("0 */6 * * *")(0.0, 1_764_000_000.0) == 1_764_007_200.0
    with pytest.raises(SettingsError):
        schedule.cron("noon")


def test_a_restart_waits_for_what_is_due() -> None:
    day = Day(2, lambda _: "promoted")
    day.run(schedule.every("6h"), last_start=lambda: day.now - 3600)
    assert day.pauses == [5 * 3600, 6 * 3600 - 10]


@pytest.mark.parametrize("next_run", [schedule.every("6h"), schedule.cron("0 */6 * * *")])
def test_a_restart_makes_up_for_what_fell_due(next_run: schedule.NextRun) -> None:
    day = Day(1, lambda _: "promoted")
    day.run(next_run, last_start=lambda: day.now - 7 * 3600)
    assert day.pauses == [0]
    assert day.starts == [1_000_000.0]


def test_too_little_new_is_no_failure() -> None:
    def train(n: int) -> str:
        if n == 1:
            raise TooLittleNew("0 records")
        return "promoted"

    day = Day(2, train)
    made = day.run(schedule.every("6h"))
    assert day.pauses == [6 * 3600 - 10]
    assert day.sample("training_runs_total", result="skipped") == 1
    assert day.sample("training_feedback_labels", label="false_alarm") == 3
    assert made.facts()["last_run"] == "success"


def test_drift_trains_before_it_is_due_and_once_for_a_champion() -> None:
    looks = iter([None, Drifted("v1", 0.1, "load"), Drifted("v1", 0.4, "load"), Drifted("v1", 0.5, "load"),
                  BrokerError("away"), Drifted("v2", 0.3, drift.SCORE)])
    day = Day(5, lambda _: "promoted")

    def look() -> Drifted | None:
        found = next(looks, None)
        if isinstance(found, Exception):
            raise found
        return found

    trigger = schedule.DriftTrigger(look, 0.25, day.metrics)
    day.run(schedule.every("1h"), drifted=trigger, look_seconds=900)
    # At 900, 1800 and 2700 s after the first; then after 900, 1800 and 2700 s in vain and for once in time.
    assert np.diff(day.starts).tolist() == [2700 + 10, 2700 + 10, 3600, 3600]
    assert day.sample("training_drift_statistic") == 0.3
    assert next(looks, None) is None


def test_without_a_bound_nobody_looks() -> None:
    day = Day(2, lambda _: "promoted")
    day.run(schedule.every("1h"), drifted=schedule.DriftTrigger(lambda: pytest.fail("looked"), None, day.metrics),
            look_seconds=900)
    assert np.diff(day.starts).tolist() == [3600]


def test_a_ring_ends_the_wait() -> None:
    day = Day(2, lambda _: "promoted")
    day.wait = lambda seconds: True                                 # type: ignore[method-assign]
    day.run(schedule.every("1h"))
    assert np.diff(day.starts).tolist() == [10]


def test_jitter_only_ever_delays() -> None:
    day = Day(30, lambda _: "promoted")
    day.run(schedule.every("1h"), jitter_seconds=schedule.jitter("5m"))
    later = [pause - (3600 - 10) for pause in day.pauses]
    assert 0 <= min(later) < max(later) <= 300
    assert len(set(later)) > 20
    with pytest.raises(SettingsError, match="--jitter"):
        schedule.jitter("soon")


def test_the_registry_says_when_the_last_training_was(tmp_path: Path) -> None:
    registry = Registry(str(tmp_path), "default")
    assert schedule.last_start(registry) is None
    factory.publish(tmp_path, "v1")
    factory.publish(tmp_path, "v2", created_at="2026-01-02T00:00:00Z")
    assert schedule.last_start(registry) == 1_767_312_000
    (tmp_path / "default/v2/manifest.json").write_text("torn")
    assert schedule.last_start(registry) == 1_767_225_600


def test_one_training_at_a_time(tmp_path: Path) -> None:
    registry = Registry(str(tmp_path), "default")
    with lock.held(registry), pytest.raises(TrainingError, match="another training"), lock.held(registry):
        pass
    with lock.held(registry):
        assert registry.versions() == []
    with lock.held(Registry("memory://models", "default")):
        pass
