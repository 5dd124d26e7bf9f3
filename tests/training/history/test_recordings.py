"""Real machines, where their recordings are at hand."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
import torch

from tests.training import machine
from training import job
from training.progress import Progress
from worker.detection.detector import Detector
from worker.models import artifact
from worker.models.registry import Registry
from worker.recordings.score import score_files
from worker.settings import InputSettings

DATA = Path(__file__).parents[3] / "shared" / "data"
LABELS = ("anomaly", "changepoint")


def scored(folder: Path, train: Path, test: Path) -> tuple[job.Outcome, list[dict[str, str]]]:
    settings = machine.settings(folder, profile="auto", latent=10, hidden=(64,), min_steps=1000, epochs=1)
    settings = settings.model_copy(update={"input": InputSettings(ignore=LABELS)})
    outcome = job.run(settings, [train], Progress(io.StringIO()))
    loaded = artifact.load(Registry(str(folder), "default"), outcome.manifest.version, torch.device("cpu"))
    out = io.StringIO()
    assert score_files([test], Detector(loaded), InputSettings(), out) == []
    return outcome, list(csv.DictReader(io.StringIO(out.getvalue())))


def means(rows: list[dict[str, str]], labels: list[bool]) -> tuple[float, float]:
    score = [float(row["anomaly_score"]) for row in rows]
    wrong = sorted(s for s, label in zip(score, labels, strict=True) if label)
    right = sorted(s for s, label in zip(score, labels, strict=True) if not label)
    return right[len(right) // 2], wrong[len(wrong) // 2]


@pytest.mark.skipif(not DATA.is_dir(), reason=f"the recordings are not here: {DATA}")
def test_a_pump(tmp_path: Path) -> None:
    recording = DATA / "valve1" / "0.csv"
    lines = recording.read_text().splitlines(keepends=True)
    (tmp_path / "train.csv").write_text("".join(lines[:401]))
    outcome, rows = scored(tmp_path, tmp_path / "train.csv", recording)
    assert outcome.promotion == "promoted", outcome.reasons
    assert len(outcome.manifest.features) == 8
    labels = [line.split(";")[-2] == "1.0" for line in lines[1:]]
    normal, anomalous = means(rows, labels)
    assert anomalous > 3 * normal


@pytest.mark.skipif(not DATA.is_dir(), reason=f"the recordings are not here: {DATA}")
def test_a_server(tmp_path: Path) -> None:
    import gzip

    folder = DATA / "smd1"
    outcome, rows = scored(tmp_path, folder / "machine-1-6.train.csv.gz", folder / "machine-1-6.csv.gz")
    assert outcome.promotion == "promoted", outcome.reasons
    assert len(outcome.manifest.features) == 38
    with gzip.open(folder / "machine-1-6.csv.gz", "rt") as file:
        labels = [float(row["anomaly"]) > 0 for row in csv.DictReader(file)]
    normal, anomalous = means(rows, labels)
    assert anomalous > 3 * normal
