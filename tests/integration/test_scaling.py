"""More workers in one group: partitions spread evenly, one comes, one goes, and every anomaly is told."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable
from pathlib import Path

from tests import factory
from tests.integration.conftest import Plant
from tests.integration.test_worker import expected_ids, ids
from tests.programs import Program, until

PARTITIONS = 12
ENTITIES = 60


def shares(workers: list[Program]) -> list[float]:
    return sorted(worker.metric("zmu_assigned_partitions") for worker in workers)


def drained(plant: Plant, sent: int) -> bool:
    return sum(plant.committed().values()) == sent


def test_one_comes_and_one_goes(broker: str, topic: Callable[..., str], tmp_path: Path) -> None:
    topics = {"input": topic(PARTITIONS, name="readings"), "output": topic(1, name="events"), "dead": topic(1)}
    factory.publish(tmp_path)
    plant = Plant(broker, topics, tmp_path)
    # A member hears of a rebalance with its next heartbeat, which comes three times in a session.
    environment = plant.environment | {
        "ZMU_KAFKA__SESSION_TIMEOUT_MS": "6000", "ZMU_BATCH__MAX_RECORDS": "50", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    readings = factory.random_readings(3000, anomalous_every=50)
    with contextlib.ExitStack() as stack:
        stack.callback(plant.close)
        workers = [stack.enter_context(Program("worker", "run", **environment)) for _ in range(3)]
        until(lambda: shares(workers) == [4, 4, 4], 90, lambda: str(shares(workers)))
        plant.send(readings[:1000], ENTITIES)
        workers.append(stack.enter_context(Program("worker", "run", **environment)))
        plant.send(readings[1000:2000], ENTITIES)
        until(lambda: shares(workers) == [3, 3, 3, 3], 60, lambda: str(shares(workers)))
        leaver = workers.pop(0)
        plant.send(readings[2000:], ENTITIES)
        assert leaver.stop(signal.SIGTERM) == 0, leaver.stderr
        until(lambda: shares(workers) == [4, 4, 4], 60, lambda: str(shares(workers)))
        until(lambda: drained(plant, len(readings)), 60, lambda: str(plant.committed()))
        assert set(ids(plant)) == expected_ids(plant)
        assert len(ids(plant)) == len(readings) // 50
