"""Models and a Watch, as the loop joins them, and readings for them."""

from __future__ import annotations

import numpy as np
import torch

from tests import factory
from worker.detection.detector import Scores
from worker.heartbeat import Heartbeat
from worker.metrics import Metrics
from worker.models.guard import BLOCK
from worker.models.registry import Registry
from worker.models.reload import Models
from worker.records import Batch
from worker.settings import ModelSettings, Settings
from worker.watch import Watch


def batch(n: int, seed: int = 0, entities: int = 5, faulty: float = 0.0) -> Batch:
    """faulty: share of the readings whose pressure is far off."""
    rng = np.random.default_rng(seed)
    x_BF = np.array(list(factory.NORMAL.values())) + rng.normal(0, 0.1, (n, 3))
    x_BF[: round(faulty * n), 1] = factory.ANOMALOUS["pressure"]
    return Batch(
        x_BF.astype(np.float32), (np.arange(n) % entities).astype(np.int32), 1000 * np.arange(n), np.zeros(n, np.int32),
        np.arange(n),
    )


class Service:
    def __init__(self, registry: Registry, kind: type[Models] = Models, **settings: object) -> None:
        self.metrics, self.registry = Metrics(), registry
        made = ModelSettings(reload_seconds=3600, **settings)  # type: ignore[arg-type]
        self.models = kind(registry, made, None, torch.device("cpu"), self.metrics)
        self.models.first(Heartbeat(120.0))
        self.watch = Watch(Settings(), "readings")
        for name in range(5):
            self.watch.entities.code(0, f"pump-{name}")
        self.watch.serve(self.models.current.detector)

    def turn(self, seed: int, faulty: float = 0.0) -> Scores:
        if self.models.take():
            self.watch.serve(self.models.current.detector)
        return self.watch.process(batch(BLOCK, seed, faulty=faulty)).scores

    def sample(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"zmu_{name}", labels) or 0.0
