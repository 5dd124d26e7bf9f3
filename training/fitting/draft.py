"""What is known of a version before its model is."""

from __future__ import annotations

import importlib.metadata
from collections import Counter

import numpy as np

from training.fitting import quality
from training.fitting.dataset import Dataset
from training.history.feedback import Feedback
from training.history.history import History
from training.settings import Settings
from worker.detection.calibration import Calibration
from worker.detection.chart import MOST
from worker.detection.model import Shape
from worker.models.artifact import Manifest, TrainingRecord

ENTITIES_LISTED = 10_000
DRAFT = "draft"                         # until it has its name
PLACEHOLDER = Calibration(threshold=1.0, target_rate=0.5, count=1, scores=(0.0, 1.0), p_values=(1.0, 0.5))
LIBRARIES = ("torch", "numpy", "scipy", "safetensors", "zmu")


def made(
    settings: Settings, history: History, data: Dataset, remarks: tuple[str, ...], said: Feedback
) -> Manifest:
    """The manifest of a z-chart, which has nothing to fit but a mean. remarks, said: of the readings, and of events."""
    batch, names = history.batch, history.entities.names
    stamp_B = batch.timestamp_ms_B[batch.timestamp_ms_B >= 0]
    entities = sorted({names[code] for code in np.unique(batch.entity_B)})
    record = TrainingRecord(
        source=history.ranges,
        files=history.files,
        rows=len(batch),
        first_timestamp_ms=int(stamp_B.min()) if len(stamp_B) else None,
        last_timestamp_ms=int(stamp_B.max()) if len(stamp_B) else None,
        left_out=dict(+Counter(history.left_out or {})),
        remarks=remarks,
        feedback=said.counted,
        seed=settings.training.seed,
        settings=settings.training.model_dump(mode="json"),
    )
    return Manifest(
        name=settings.model.name,
        version=DRAFT,
        created_at="",
        kind="zchart",
        shape=Shape(features=len(history.features), window=data.recipe.window),
        features=history.features,
        scaling=data.scaling,
        residual_scale=(1.0,) * len(history.features),
        error_of=settings.training.error_of,
        period_seconds=data.period_seconds,
        gap_seconds=data.gap_seconds,
        chart=data.recipe.chart,
        mean_scale=(data.recipe.chart.mean_std,) * len(history.features) if data.recipe.chart else (),
        largest_deviation=(MOST,) * len(history.features) if data.recipe.chart else (),
        alarm=data.recipe.alarm,
        quality=quality.learn(batch, history.features),
        calibration=PLACEHOLDER,
        entities=tuple(entities[:ENTITIES_LISTED]),
        entities_complete=len(entities) <= ENTITIES_LISTED,
        training=record,
        libraries={name: _installed(name) for name in LIBRARIES},
        sha256="0" * 64,
    )


def _installed(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
