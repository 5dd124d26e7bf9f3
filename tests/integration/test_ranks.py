"""`torchrun --nproc-per-node 2 -m training run` makes what one process makes, of the same topic."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.integration.test_training import fill, values
from tests.programs import ROOT
from worker.models import artifact
from worker.models.artifact import Artifact, Manifest
from worker.models.registry import Registry

TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m")
TOLERANCE = 0.04                        # of a loss: other noise, and other readings in a batch


def run(module: tuple[str, ...], **environment: str) -> str:
    """What it said."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ZMU_")}
    done = subprocess.run(
        [sys.executable, "-m", *module, "training", "run"] if module else [sys.executable, "-m", "training", "run"],
        cwd=ROOT, env={**inherited, "OMP_NUM_THREADS": "1", **environment}, capture_output=True, text=True, timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def champion(folder: Path) -> Artifact:
    registry = Registry(str(folder), "default")
    version = registry.resolve("champion")
    assert version is not None
    assert len(registry.versions()) == 1        # one of them publishes
    return artifact.load(registry, version, torch.device("cpu"))


def loss_of(manifest: Manifest) -> float:
    return manifest.figures["held_out_loss"]


def test_two_processes_make_what_one_makes(broker: str, topic: Callable[..., str], tmp_path: Path) -> None:
    name = topic(3)
    fill(broker, name, [*values(1501), b"junk"], partitions=3, entities=4)
    environment = {
        "ZMU_KAFKA__BOOTSTRAP_SERVERS": broker, "ZMU_INPUT__TOPIC": name, "ZMU_DEVICE": "cpu",
        "ZMU_TRAINING__PROFILE": "pointwise", "ZMU_TRAINING__LATENT": "4", "ZMU_TRAINING__HIDDEN": "[32]",
        "ZMU_TRAINING__MIN_STEPS": "4000", "ZMU_TRAINING__LEARNING_RATE": "0.003", "ZMU_TRAINING__EPOCHS": "1",
        "ZMU_TRAINING__RIVALS": "false", "ZMU_TRAINING__PATIENCE": "100",
        "ZMU_TRAINING__BATCH_SIZE": "31",       # that two do not share evenly
    }
    run((), **environment, ZMU_MODEL__REGISTRY=str(tmp_path / "one"))
    said = run(TORCHRUN, **environment, ZMU_MODEL__REGISTRY=str(tmp_path / "two"))
    assert said.count("serves from now on") == 1, said
    one, two = champion(tmp_path / "one"), champion(tmp_path / "two")
    assert two.manifest.features == one.manifest.features
    assert two.manifest.training.source == one.manifest.training.source
    assert two.manifest.training.rows == one.manifest.training.rows == 1501
    assert two.manifest.training.left_out == one.manifest.training.left_out
    assert sorted(two.manifest.entities) == sorted(one.manifest.entities)
    assert two.manifest.scaling.model_dump_json() == one.manifest.scaling.model_dump_json()
    assert two.manifest.figures["steps"] == one.manifest.figures["steps"]
    print(f"held-out loss by one {loss_of(one.manifest):.4f}, by two {loss_of(two.manifest):.4f}")     # shown by -s
    assert loss_of(two.manifest) == pytest.approx(loss_of(one.manifest), rel=TOLERANCE)
