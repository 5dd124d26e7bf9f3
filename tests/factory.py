"""Small real things for tests: a calibrated model version in a registry, and readings as Kafka records."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from worker.detection.alarm import AlarmSettings
from worker.detection.calibration import Calibration
from worker.detection.chart import ChartSettings
from worker.detection.model import Shape, build
from worker.detection.scaling import Scaling
from worker.faults.quality import Quality
from worker.models import artifact
from worker.models.artifact import Manifest, TrainingRecord
from worker.models.registry import Registry, opened
from worker.records import PlainRecord

FEATURES = ("temperature", "pressure", "flow")
NORMAL = {"temperature": 20.0, "pressure": 3.0, "flow": 50.0}
ANOMALOUS = {"temperature": 20.0, "pressure": 9.0, "flow": 50.0}


def publish(
    folder: Path,
    version: str = "v1",
    *,
    name: str = "default",
    features: Sequence[str] = FEATURES,
    champion: bool = True,
    window: int = 1,
    hidden: tuple[int, ...] = (8,),
    latent: int = 2,
    **changes: object,
) -> Registry:
    """A VAE of random weights whose expectations are near the offset: readings far from it are anomalous."""
    torch.manual_seed(1)
    shape = Shape(features=len(features), window=window, hidden=hidden, latent=latent)
    model = build("vae", shape)
    weights = artifact.weights_of(model)
    centre = tuple(NORMAL.get(feature, 0.0) for feature in features)
    fields: dict[str, object] = {
        "name": name,
        "version": version,
        "created_at": "2026-01-01T00:00:00Z",
        "kind": "vae",
        "shape": shape,
        "features": tuple(features),
        "scaling": Scaling(offset=centre, span=(1.0,) * len(features), median=centre),
        "residual_scale": (1.0,) * len(features),
        "calibration": Calibration(
            threshold=4.0, target_rate=0.01, count=100, scores=(0.0, 1.0, 4.0), p_values=(1.0, 0.5, 0.01)
        ),
        "entities": ("pump-1",),
        "training": TrainingRecord(rows=100, seed=1),
        "sha256": artifact.sha256_of(weights),
    }
    registry = opened(str(folder), name)
    artifact.save(registry, Manifest(**(fields | changes)), weights, "<html></html>")  # type: ignore[arg-type]
    if champion:
        registry.point("champion", version)
    return registry


def remembering(features: int = len(FEATURES)) -> dict[str, object]:
    """Fields of a manifest whose scores depend on all that came before."""
    chart = ChartSettings(slow_share=5.0, gate_by="mean", accept_after=40, spikes=True)
    return {
        "window": 4,
        "gap_seconds": 60.0,
        "chart": chart,
        "mean_scale": (chart.mean_std,) * features,
        "largest_deviation": (20.0,) * features,
        "alarm": AlarmSettings(rate=0.05),
        "quality": Quality.undemanding(features).model_copy(update={"missing_after": (2,) * features}),
    }


def reading(values: Mapping[str, float | None], timestamp_ms: int = 1_764_000_000_000) -> bytes:
    return json.dumps({"timestamp": timestamp_ms, **values}).encode()


def records(values: Iterable[bytes | None], topic: str = "sensor-readings", partition: int = 0) -> list[PlainRecord]:
    return [
        PlainRecord(topic, partition, offset, 1_764_000_000_000 + offset, b"pump-1", value)
        for offset, value in enumerate(values)
    ]


def random_readings(n: int, anomalous_every: int, seed: int = 0) -> list[bytes]:
    """Normal readings, and at every so manieth one whose pressure is far off."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        base = ANOMALOUS if i % anomalous_every == anomalous_every - 1 else NORMAL
        rows.append({name: round(value + float(rng.normal(0, 0.1)), 4) for name, value in base.items()})
    return [reading(row, 1_764_000_000_000 + 1000 * i) for i, row in enumerate(rows)]
