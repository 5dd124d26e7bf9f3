"""A recording scored as a file, and replayed through a live broker: the same score for every record, to the bit."""

from __future__ import annotations

import csv
import gzip
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests import factory
from tests.integration.conftest import Plant
from tests.programs import ROOT, Program, parsed
from worker.detection.calibration import Calibration

SHARED = ROOT.parent / "shared" / "data"
RECORDINGS = ["generated", "other/1.csv", "asd-a/omi-1.csv.gz"]
ROWS = 1500


@pytest.fixture(params=RECORDINGS)
def recording(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "generated":
        return generated(tmp_path / "generated.csv")
    source = SHARED / request.param
    if not source.exists():
        pytest.skip(f"{source} is not here: real recordings are not part of the project")
    content = gzip.decompress(source.read_bytes()) if source.suffix == ".gz" else source.read_bytes()
    head = content.decode().splitlines(keepends=True)[: ROWS + 1]
    short = tmp_path / source.name.removesuffix(".gz")
    short.write_text("".join(head))
    return short


def generated(path: Path) -> Path:
    """Numbers of every size, gaps, booleans and a column that is no feature."""
    rng = np.random.default_rng(0)
    with path.open("w") as file:
        file.write("timestamp;a;b;c;anomaly\n")
        for i in range(600):
            a = "" if i % 50 == 7 else repr(float(rng.normal(20, 5)))
            b = repr(float(rng.lognormal(0, 8)))
            file.write(f"{1_764_000_000 + i};{a};{b};{i % 3 - 1};{int(i > 500)}\n")
    return path


def features(recording: Path) -> tuple[str, ...]:
    line = recording.read_text().splitlines()[0]
    names = line.split(max(";,", key=line.count))
    return tuple(n for n in names if n not in ("timestamp", "datetime", "anomaly", "changepoint"))


def test_a_file_and_its_replay_score_the_same(plant: Plant, recording: Path) -> None:
    names = features(recording)
    # Every reading is above this threshold, so that each one's score can be read from its event.
    everything = Calibration(
        threshold=1e-30, target_rate=0.5, count=2, scores=(0.0, 1.0), p_values=(1.0, 0.5)
    )
    factory.publish(plant.registry, "all", features=names, calibration=everything)
    scored = subprocess.run(
        [sys.executable, "-m", "worker", "score", str(recording), "--model.registry", str(plant.registry)],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )
    by_file = {int(row["offset"]): row for row in csv.DictReader(io.StringIO(scored.stdout))}

    leave_out = [
        option
        for name in ("anomaly", "changepoint")
        if name in recording.read_text().splitlines()[0]
        for option in ("--leave-out", name)
    ]
    subprocess.run(
        [
            sys.executable, "-m", "deploy.demo.plant", "--csv", str(recording), "--speed", "max", *leave_out,
            "--topic", plant.topics["input"],
        ],
        cwd=ROOT, check=True, capture_output=True,
        env={**os.environ, "ZMU_KAFKA__BOOTSTRAP_SERVERS": plant.broker},
    )
    with Program("worker", "run", "--until-drained", **plant.environment) as worker:
        assert worker.wait() == 0, worker.stderr
    assert not plant.read("dead")
    events = sorted((parsed(record.value) for record in plant.read("output")), key=lambda e: e["source"]["offset"])  # type: ignore[index,arg-type,return-value]

    anomalous = [row for row in by_file.values() if row["is_anomaly"] == "1"]
    assert len(anomalous) > 0.9 * len(by_file)
    assert len(events) == len(anomalous)
    for event, row in zip(events, anomalous, strict=True):
        assert event["source"]["offset"] == int(row["offset"])  # type: ignore[index]
        assert event["anomaly_score"] == float(row["anomaly_score"])
        assert event["p_value"] == float(row["p_value"])
        assert row["timestamp"] in ("", event["timestamp"])     # some recordings tell no time
