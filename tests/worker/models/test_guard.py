"""What looks on while a version serves: the guard that takes it out of service, and the shadow that says nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests import factory
from tests.worker.models.service import Service, batch
from worker.detection.calibration import Calibration
from worker.detection.detector import Detector, Scores
from worker.metrics import Metrics
from worker.models import artifact
from worker.models.guard import BLOCK, Before, Guard, Rate
from worker.models.shadow import Shadow

LOUD = Calibration(threshold=1e-6, target_rate=0.01, count=100, scores=(0.0, 1.0), p_values=(1.0, 0.01))


@pytest.fixture
def before(tmp_path: Path) -> Detector:
    return Detector(artifact.load(factory.publish(tmp_path), "v1", torch.device("cpu")))


@pytest.fixture
def scores(before: Detector) -> Scores:
    return before.score_history(batch(BLOCK))


def in_alarm(scores: Scores, share: float) -> Scores:
    score_B = np.where(np.arange(len(scores.raw_B)) < share * len(scores.raw_B), 2.0, 0.5)
    return replace(scores, anomaly_score_B=score_B)


def rate_of(scores: Scores, share: float) -> Rate:
    rate = Rate()
    rate.take(batch(BLOCK), in_alarm(scores, share))
    return rate


@pytest.mark.parametrize(
    ("faulty", "now", "trips"),
    [(0.0, 0.5, True), (0.0, 0.05, False), (0.4, 0.9, False), (0.1, 0.9, True)],
    ids=["loud", "within bounds", "the plant is at fault", "far louder than the fault"],
)
@pytest.mark.parametrize("share_before", [0.0, 0.4])
def test_a_version_that_is_loud_by_itself(
    scores: Scores, before: Detector, share_before: float, faulty: float, now: float, trips: bool
) -> None:
    """Whatever the share was while the one before served: both are judged by the same readings."""
    told: list[float] = []
    guard = Guard(0.1, Before(before, share_before, Metrics()), 5 * BLOCK, told.append)
    guard.take(batch(BLOCK), in_alarm(scores, 0.0))
    guard.take(batch(BLOCK, faulty=faulty), in_alarm(scores, now))
    assert told == ([pytest.approx(now)] if trips else [])
    assert guard.finished == trips
    guard.take(batch(BLOCK), in_alarm(scores, 1.0))
    assert len(told) == 1


def test_it_trusts_what_it_has_seen_enough_of(scores: Scores, before: Detector) -> None:
    told: list[float] = []
    guard = Guard(0.1, Before(before, 0.0, Metrics()), 2 * BLOCK, told.append)
    for share in (0.0, 0.0, 1.0):
        guard.take(batch(BLOCK), in_alarm(scores, share))
    assert guard.finished
    assert told == []


def test_until_its_windows_are_full_the_share_of_the_one_before_stands_in(tmp_path: Path) -> None:
    registry = factory.publish(tmp_path, window=4)
    before = Before(Detector(artifact.load(registry, "v1", torch.device("cpu"))), 0.4, Metrics())
    assert before.alarms(batch(100, entities=100, faulty=1.0)) == pytest.approx(40)
    before.alarms(batch(300, entities=100, faulty=1.0))
    assert before.alarms(batch(100, entities=100, faulty=1.0)) == 100
    before.reset([0, 1])                        # others' now, who begin anew
    assert before.alarms(batch(100, entities=100, faulty=1.0)) == pytest.approx(98.8)


def test_what_fails_in_the_one_before_harms_nothing(scores: Scores, tmp_path: Path) -> None:
    registry = factory.publish(tmp_path, "v0", features=("temperature", "pressure"))
    metrics, told = Metrics(), list[float]()
    fewer = Detector(artifact.load(registry, "v0", torch.device("cpu")))        # three features where it knows two
    guard = Guard(0.1, Before(fewer, 0.1, metrics), 5 * BLOCK, told.append)
    guard.take(batch(BLOCK), in_alarm(scores, 0.2))
    assert told == []                           # the share that it had stands in
    guard.take(batch(BLOCK), in_alarm(scores, 0.5))
    assert told == [pytest.approx(0.5)]
    errors = [s for metric in metrics.registry.collect() for s in metric.samples if s.name == "zmu_errors_total"]
    assert [(s.labels["stage"], s.value) for s in errors] == [("guard", 1)]


def test_the_rate_follows_the_newest(scores: Scores) -> None:
    rate = rate_of(scores, 1.0)
    for _ in range(200):
        rate.take(batch(BLOCK), in_alarm(scores, 0.0))
    assert rate.value < 0.01


def test_a_loud_version_goes_and_the_alias_with_it(tmp_path: Path) -> None:
    service = Service(factory.publish(tmp_path))
    service.turn(0)
    factory.publish(tmp_path, "v2", calibration=LOUD)
    service.models.look()
    assert service.turn(1).anomalous_B.all()
    assert service.turn(2).anomalous_B.mean() < 0.01
    assert service.models.current.version == "v1"
    assert service.registry.resolve("champion") == "v2"
    service.models.look()
    assert service.registry.aliases() == {"champion": "v1", "rolled_back": "v2"}
    service.models.look()
    assert service.turn(3).anomalous_B.mean() < 0.01
    assert service.sample("rollbacks_total", result="served") == 1
    assert service.sample("rollbacks_total", result="alias") == 1


@pytest.mark.parametrize("served", [0, 3], ids=["nothing", "well"])
def test_a_fault_that_begins_after_a_promotion_is_the_plants(tmp_path: Path, served: int) -> None:
    """served: batches that the one before has scored."""
    service = Service(factory.publish(tmp_path))
    for seed in range(served):
        service.turn(seed)
    factory.publish(tmp_path, "v2")
    service.models.look()
    service.turn(10)
    for seed in (11, 12):
        assert service.turn(seed, faulty=0.5).anomalous_B.mean() >= 0.5
    service.turn(13)
    assert service.models.current.version == "v2"
    assert service.sample("rollbacks_total", result="served") == 0
    assert service.sample("stage_duration_seconds_count", stage="guard") == 4


def test_where_the_alias_cannot_be_moved_it_is_said_once(tmp_path: Path) -> None:
    service = Service(factory.publish(tmp_path))
    factory.publish(tmp_path, "v2", calibration=LOUD)
    service.models.look()
    service.turn(1)
    (tmp_path / "default/aliases/rolled_back").mkdir()
    for seed in range(2, 5):
        service.models.look()
        assert service.turn(seed).anomalous_B.mean() < 0.01
    assert service.sample("rollbacks_total", result="alias_failed") == 1
    assert service.models.current.version == "v1"


def test_without_a_guard_it_stays(tmp_path: Path) -> None:
    service = Service(factory.publish(tmp_path), guard_factor=0)
    factory.publish(tmp_path, "v2", calibration=LOUD)
    service.models.look()
    service.turn(1)
    assert service.turn(2).anomalous_B.all()


def test_a_shadow_is_counted_and_tells_nothing(tmp_path: Path) -> None:
    registry = factory.publish(tmp_path)
    factory.publish(tmp_path, "v2", champion=False, calibration=LOUD)
    registry.point("challenger", "v2")
    service = Service(registry, shadow="challenger")
    service.models.look()
    assert service.turn(1).anomalous_B.mean() < 0.01
    assert service.sample("shadow_records_scored_total", model_version="v2") == BLOCK
    assert service.sample("shadow_anomalies_total", model_version="v2") == BLOCK
    assert service.sample("shadow_agreements_total", model_version="v2") < 0.01 * BLOCK
    assert service.sample("stage_duration_seconds_count", stage="shadow") == 1
    service.watch.release(0)
    registry.point("champion", "v2")            # the shadow comes to serve: there is none any more
    service.models.look()
    service.watch.entities.code(0, "pump-0")
    for code in range(4):
        service.watch.entities.code(0, f"pump-{code + 1}")
    service.turn(2)
    service.models.look()
    service.turn(3)
    assert service.sample("shadow_records_scored_total", model_version="v2") <= 2 * BLOCK


def test_what_fails_in_the_shadow_is_given_up(tmp_path: Path) -> None:
    registry = factory.publish(tmp_path, features=("temperature", "pressure"))
    metrics = Metrics()
    shadow = Shadow("v1", Detector(artifact.load(registry, "v1", torch.device("cpu"))), metrics)
    factory.publish(tmp_path, "v2")
    served = Detector(artifact.load(registry, "v2", torch.device("cpu"))).score_history(batch(BLOCK))
    for _ in range(2):
        shadow.take(batch(BLOCK), served)       # three features where it knows two
    errors = [s for metric in metrics.registry.collect() for s in metric.samples if s.name == "zmu_errors_total"]
    assert [(s.labels["stage"], s.value) for s in errors] == [("shadow", 1)]
