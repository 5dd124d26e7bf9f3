"""A machine for tests: six sensors that two hidden causes drive, one that never moves, and files of its readings."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from training.settings import Settings
from worker.records import Batch

SENSORS = ("load", "current", "pressure", "heat", "outlet", "vibration", "setpoint")
START_MS = 1_764_000_000_000


def readings(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    load, heat = rng.uniform(0, 1, (2, n))
    clean = [load, 5 + 3 * load**2, 3 - load, 60 + 20 * heat, 40 + 10 * heat * load, 0.2 + 0.1 * load, np.full(n, 7.0)]
    noise = np.array([0.01, 0.05, 0.02, 0.3, 0.2, 0.003, 0.0])
    return np.stack(clean, 1) + noise * rng.normal(size=(n, 7))


def batch(x_BF: np.ndarray) -> Batch:
    """Readings of one entity, a second apart."""
    n = len(x_BF)
    return Batch(
        x_BF.astype(np.float32), np.zeros(n, np.int32), START_MS + 1000 * np.arange(n), np.zeros(n, np.int32),
        np.arange(n),
    )


def rows(n: int, seed: int = 0, start_ms: int = START_MS) -> list[dict[str, float]]:
    return [
        {"timestamp": start_ms + 1000 * i, **dict(zip(SENSORS, map(float, x), strict=True))}
        for i, x in enumerate(readings(n, seed))
    ]


def json_lines(path: Path, n: int, seed: int = 0) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows(n, seed)))
    return path


def csv(path: Path, n: int, seed: int = 0) -> Path:
    table = rows(n, seed)
    lines = [",".join(table[0]), *(",".join(map(repr, row.values())) for row in table)]
    path.write_text("\n".join(lines) + "\n")
    return path


def settings(registry: Path, **training: object) -> Settings:
    """Quick to train; by itself each reading, as one tells nothing of the next."""
    quick: dict[str, object] = {"profile": "pointwise", "epochs": 4, "min_steps": 300, "latent": 4, "hidden": (32,)}
    return Settings(model={"registry": str(registry)}, training=quick | training)  # type: ignore[arg-type]
