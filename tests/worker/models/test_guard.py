"""What looks on while a version serves: the guard that takes it out of service, and the shadow that says nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests import factory
from worker.detection.calibration import Calibration
from worker.detection.detector import Detector, Scores
from worker.heartbeat import Heartbeat
from worker.metrics import Metrics
from worker.models import artifact
from worker.models.guard import BLOCK, Guard, Rate
from worker.models.registry import Registry
from worker.models.reload import Models
from worker.models.shadow import Shadow
from worker.records import Batch
from worker.settings import ModelSettings, Settings
from worker.watch import Watch

LOUD = Calibration(threshold=1e-6, target_rate=0.01, count=100, scores=(0.0, 1.0), p_values=(1.0, 0.01))


def batch(n: int, seed: int = 0, entities: int = 5) -> Batch:
    rng = np.random.default_rng(seed)
    x_BF = np.array(list(factory.NORMAL.values())) + rng.normal(0, 0.1, (n, 3))
    return Batch(
        x_BF.astype(np.float32), (np.arange(n) % entities).astype(np.int32), 1000 * np.arange(n), np.zeros(n, np.int32),
        np.arange(n),
    )


@pytest.fixture
def scores(tmp_path: Path) -> Scores:
    registry = factory.publish(tmp_path)
    return Detector(artifact.load(registry, "v1", torch.device("cpu"))).score_history(batch(BLOCK))


def in_alarm(scores: Scores, share: float) -> Scores:
    score_B = np.where(np.arange(len(scores.raw_B)) < share * len(scores.raw_B), 2.0, 0.5)
    return replace(scores, anomaly_score_B=score_B)


def rate_of(scores: Scores, share: float) -> Rate:
    rate = Rate()
    rate.take(batch(BLOCK), in_alarm(scores, share))
    return rate


@pytest.mark.parametrize(
    ("before", "now", "trips"),
    [(0.01, 0.5, True), (0.01, 0.05, False), (0.4, 0.9, False), (0.0, 0.2, True)],
    ids=["loud", "within bounds", "the plant is at fault", "where nothing was known"],
)
def test_a_version_that_is_loud_by_itself(scores: Scores, before: float, now: float, trips: bool) -> None:
    told: list[float] = []
    guard = Guard(0.1, rate_of(scores, before), 5 * BLOCK, told.append)
    guard.take(batch(BLOCK), in_alarm(scores, now))
    assert told == ([pytest.approx(now)] if trips else [])
    guard.take(batch(BLOCK), in_alarm(scores, 1.0))
    assert len(told) == 1 or (before == 0.4 and not told)


def test_it_trusts_what_it_has_seen_enough_of(scores: Scores) -> None:
    told: list[float] = []
    guard = Guard(0.1, rate_of(scores, 0.0), 2 * BLOCK, told.append)
    for share in (0.0, 0.0, 1.0):
        guard.take(batch(BLOCK), in_alarm(scores, share))
    assert told == []


def test_the_rate_follows_the_newest(scores: Scores) -> None:
    rate = rate_of(scores, 1.0)
    for _ in range(200):
        rate.take(batch(BLOCK), in_alarm(scores, 0.0))
    assert rate.value < 0.01


class Service:
    """Models and a Watch, as the loop joins them."""

    def __init__(self, registry: Registry, **settings: object) -> None:
        self.metrics, self.registry = Metrics(), registry
        made = ModelSettings(reload_seconds=3600, **settings)  # type: ignore[arg-type]
        self.models = Models(registry, made, None, torch.device("cpu"), self.metrics)
        self.models.first(Heartbeat(120.0))
        self.watch = Watch(Settings(), "readings")
        for name in range(5):
            self.watch.entities.code(0, f"pump-{name}")
        self.watch.serve(self.models.current.detector)

    def turn(self, seed: int) -> Scores:
        if self.models.take():
            self.watch.serve(self.models.current.detector)
        return self.watch.process(batch(BLOCK, seed)).scores

    def sample(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"zmu_{name}", labels) or 0.0


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
