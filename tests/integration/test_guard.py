"""A worker that is handed a bad version: a shadow shows it before, the guard undoes it after."""

from __future__ import annotations

from pathlib import Path

from tests import factory
from tests.integration.conftest import Plant
from tests.programs import Program, parsed, until
from worker.detection.calibration import Calibration
from worker.models.registry import Registry

LOUD = Calibration(threshold=1e-6, target_rate=0.01, count=100, scores=(0.0, 1.0), p_values=(1.0, 0.01))
READINGS = 3000


def test_seen_in_the_shadow_and_undone_by_the_guard(plant: Plant, tmp_path: Path) -> None:
    registry = Registry(str(tmp_path), "default")
    factory.publish(tmp_path, "v2", champion=False, calibration=LOUD)
    registry.point("challenger", "v2")
    environment = plant.environment | {"ZMU_MODEL__SHADOW": "challenger", "ZMU_BATCH__MAX_RECORDS": "500"}
    with Program("worker", "run", **environment) as worker:
        def metric(name: str, **labels: str) -> float:
            return worker.metric(f"zmu_{name}" + "{" + ",".join(f'{k}="{v}"' for k, v in labels.items()) + "}")

        worker.ready()
        plant.send(factory.random_readings(500, anomalous_every=10_000))
        until(lambda: metric("records_scored_total", model_version="v1") == 500, 60, lambda: worker.stderr)
        until(lambda: bool(plant.send(factory.random_readings(100, anomalous_every=10_000)))
              or metric("shadow_records_scored_total", model_version="v2") > 0, 60, lambda: worker.stderr)
        shadowed = metric("shadow_records_scored_total", model_version="v2")
        assert metric("shadow_anomalies_total", model_version="v2") >= 0.99 * shadowed
        assert plant.read("output") == []

        registry.point("champion", "v2")        # by somebody who did not look
        worker.says('"model loaded"')
        until(lambda: worker.stderr.count('"event": "model loaded"') == 2, 60, lambda: worker.stderr)
        plant.send(factory.random_readings(READINGS, anomalous_every=10_000))
        worker.says('"event": "version rolled back"')
        until(lambda: metric("rollbacks_total", result="alias") == 1, 60, lambda: worker.stderr)
        assert registry.aliases() == {"champion": "v1", "challenger": "v2", "rolled_back": "v2"}
        scored = metric("records_scored_total", model_version="v1")
        plant.send(factory.random_readings(READINGS, anomalous_every=10_000))
        until(lambda: metric("records_scored_total", model_version="v1") >= scored + READINGS, 60,
              lambda: worker.stderr)
        told = [parsed(record.value)["model"] for record in plant.read("output")]
        assert 1000 <= len(told) < READINGS             # of twice as many
        assert all(isinstance(model, dict) and model["version"] == "v2" for model in told)
        assert worker.stop() == 0
