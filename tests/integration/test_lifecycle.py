"""The whole circle on a real broker: the plant changes, drift rises, training proves a version, the worker takes it,
false alarms fall. And its poisoned twin: a fault that lasts is not learnt, however often is trained."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from kafka import KafkaProducer

from tests.integration.test_training import settings
from tests.programs import Program, until, worker_environment
from tests.training import machine
from training import job
from training.progress import Progress
from training.reporting.outcome import Outcome
from worker.detection.detector import Detector
from worker.models import artifact
from worker.models.artifact import Artifact
from worker.models.registry import Registry

PUMPS = 4
PRESSURE = machine.SENSORS.index("pressure")


class Pumps:
    """Four of them, a second apart; the pressure of those in `moved` no longer goes with the load."""

    def __init__(self, broker: str, topic: str) -> None:
        self._producer, self._topic, self._sent = KafkaProducer(bootstrap_servers=broker, acks="all"), topic, 0

    def run(self, seconds: int, moved: tuple[int, ...] = ()) -> None:
        for pump in range(PUMPS):
            x_BF = readings(seconds, 100 * self._sent + pump, pump in moved)
            for i, row in enumerate(x_BF.tolist()):
                stamp = machine.START_MS + 1000 * (self._sent + i)
                value = {"timestamp": stamp, **dict(zip(machine.SENSORS, row, strict=True))}
                self._producer.send(self._topic, key=b"pump-%d" % pump, value=json.dumps(value).encode(),
                                    timestamp_ms=stamp)
        self._producer.flush(timeout=60)
        self._sent += seconds

    def close(self) -> None:
        self._producer.close()


def readings(n: int, seed: int, moved: bool) -> np.ndarray:
    x_BF = machine.readings(n, seed)
    if moved:
        x_BF[:, PRESSURE] += 1.5
    return x_BF


def train(broker: str, topic: str, folder: Path, **training: object) -> Outcome:
    return job.run(settings(broker, topic, folder, rivals=False, **training), [], Progress(io.StringIO()))


def champion(folder: Path) -> Artifact:
    registry = Registry(str(folder), "default")
    return artifact.load(registry, registry.resolve("champion") or "", torch.device("cpu"))


def alarms(folder: Path, moved: bool) -> float:
    """Share of readings in alarm by whatever serves."""
    detector = Detector(champion(folder))
    return float(detector.score_history(machine.batch(readings(500, 77, moved))).anomalous_B.mean())


def test_a_new_normal_is_learnt_and_false_alarms_fall(
    broker: str, topic: Callable[..., str], tmp_path: Path
) -> None:
    topics = {"input": topic(2, name="readings"), "output": topic(1, name="events"), "dead": topic(1, name="dead")}
    pumps = Pumps(broker, topics["input"])
    pumps.run(600)
    first = train(broker, topics["input"], tmp_path)
    assert first.promotion == "promoted", first.reasons
    environment = worker_environment(broker, tmp_path, topics) | {
        "ZMU_MODEL__DRIFT_READINGS": "2000",
        "ZMU_BATCH__MAX_RECORDS": "200",
        "ZMU_INCIDENTS__TOPIC": f"incidents-{topics['input']}",
    }
    with Program("worker", "run", **environment) as worker:
        def scored() -> float:
            versions = [first.manifest.version, *([second.manifest.version] if second else [])]
            return sum(worker.metric(f'zmu_records_scored_total{{model_version="{v}"}}') for v in versions)

        def told() -> float:
            return sum(worker.metric(f'zmu_anomalies_total{{severity="{s}"}}') for s in ("warning", "critical"))

        drift = 'zmu_drift_statistic{feature="pressure"}'
        second: Outcome | None = None
        worker.ready()
        until(lambda: scored() >= 600 * PUMPS, 60, lambda: worker.stderr)
        assert worker.metric(drift) < 0.1
        assert told() < 0.05 * scored()

        pumps.run(600, moved=(0, 1, 2, 3))
        until(lambda: scored() >= 1200 * PUMPS, 60, lambda: worker.stderr)
        assert worker.metric(drift) > 0.25
        assert worker.metric('zmu_drift_statistic{feature="heat"}') < 0.1
        before = told()
        assert before > 0.9 * 600 * PUMPS

        second = train(broker, topics["input"], tmp_path)
        assert second.promotion == "promoted", second.reasons
        assert any("4 of 4 entities differ" in remark for remark in second.manifest.training.remarks)
        worker.says(second.manifest.version)
        pumps.run(300, moved=(0, 1, 2, 3))
        until(lambda: scored() >= 1500 * PUMPS, 60, lambda: worker.stderr)
        assert told() - before < 0.05 * 300 * PUMPS
    pumps.close()


def test_a_fault_that_lasts_is_not_learnt(broker: str, topic: Callable[..., str], tmp_path: Path) -> None:
    name = topic(2)
    pumps = Pumps(broker, name)
    pumps.run(600)
    assert train(broker, name, tmp_path).promotion == "promoted"
    assert alarms(tmp_path, moved=True) > 0.9
    for _ in range(2):
        pumps.run(600, moved=(2,))
        outcome = train(broker, name, tmp_path, max_records=600 * PUMPS)    # nothing but what came since
        assert outcome.manifest.training.left_out["incident"] > 0.95 * 600
        assert any("not learnt: pump-2" in remark for remark in outcome.manifest.training.remarks)
        assert alarms(tmp_path, moved=True) > 0.9
        assert alarms(tmp_path, moved=False) < 0.05
    pumps.close()


def test_without_its_guards_it_would_have_been_learnt(
    broker: str, topic: Callable[..., str], tmp_path: Path
) -> None:
    """That the twin is poison at all."""
    name = topic(2)
    pumps = Pumps(broker, name)
    pumps.run(300)
    train(broker, name, tmp_path)
    pumps.run(600, moved=(2,))
    lenient = {"faults_ratio": 0, "loss_ratio": 100, "feature_loss": 100, "agreement": None}
    outcome = train(
        broker, name, tmp_path, max_records=600 * PUMPS, exclude_anomalous=False, gates=lenient, min_steps=1500
    )
    assert outcome.promotion == "promoted", outcome.reasons
    assert alarms(tmp_path, moved=True) < 0.5
    pumps.close()
