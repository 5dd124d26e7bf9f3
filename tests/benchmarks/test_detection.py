"""The table of docs/detection.md is made as it says, on recordings small enough for a test."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks import detection
from tests.benchmarks.recipes import RECIPES


def columns(rows: int, faulty: slice, seed: int) -> tuple[np.ndarray, np.ndarray]:
    x_NF = np.random.default_rng(seed).normal(size=(rows, 3)) * (1, 2, 3)
    label_N = np.zeros(rows, int)
    label_N[faulty] = 1
    x_NF[faulty, 1] += 20
    return x_NF, label_N


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """One recording in each folder, laid out as the public ones are."""
    for folder in detection.SKAB:
        (tmp_path / folder).mkdir()
        x_NF, label_N = columns(700, slice(600, 650), 0)
        lines = ["datetime;a;b;c;anomaly;changepoint"]
        for i, (x_F, label) in enumerate(zip(x_NF.tolist(), label_N.tolist(), strict=True)):
            stamp = f"2026-01-01 00:{i // 60:02}:{i % 60:02}"
            lines.append(";".join([stamp, *map(repr, x_F), f"{label}.0", "0.0"]))
        (tmp_path / folder / "0.csv").write_text("\n".join(lines) + "\n")
    for folder in ("smd1", "asd-a"):
        (tmp_path / folder).mkdir()
        for ending, faulty in ("train.csv.gz", slice(0)), ("csv.gz", slice(300, 330)):
            x_NF, label_N = columns(600, faulty, 1)
            names, table = (["f0", "f1", "f2"], x_NF) if "train" in ending else (
                ["f0", "f1", "f2", "anomaly"], np.c_[x_NF, label_N]
            )
            text = "\n".join([",".join(names), *(",".join(map(repr, row)) for row in table.tolist())]) + "\n"
            (tmp_path / folder / f"one.{ending}").write_bytes(gzip.compress(text.encode()))
    return tmp_path


def test_rows_of_the_table(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = data / "results.jsonl"
    args = ["--data", str(data), "--results", str(results), "--only", "z-chart"]
    assert detection.main(args) == 0
    head, _, row, floors = capsys.readouterr().out.splitlines()
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert len(cells) == len(head.strip("|").split("|")) == len(floors.strip("|").split("|"))
    by_name = dict(zip((name.strip() for name in head.strip("|").split("|")), cells, strict=True))
    for name in detection.SETS:
        assert float(by_name[f"{name} VUS-PR"]) > 0.7           # the fault is plain; its tail is smoothed
        assert float(by_name[f"{name} F1"]) > 0.5
    kept = json.loads(results.read_text())
    assert set(kept["SKAB"]["recordings"]) == {"valve1/0", "other/0"}
    assert kept["SKAB"]["rows"] == 2 * (700 - detection.SKAB_TRAINED)

    results.write_text(json.dumps(kept | {"seconds": 12345.0}) + "\n")
    assert detection.main(args) == 0                            # what is kept is not done again
    assert "| 12345 |" in capsys.readouterr().out


def test_recipes_after_training_share_the_weights(data: Path, tmp_path: Path) -> None:
    (one,) = [r for r in detection.recordings(data, tmp_path, quick=False) if r.of == "smd1"]
    assert one.features == 3
    versions = tmp_path / "versions"
    bench = detection.Bench([one], versions)
    by_name = {recipe.name: recipe for recipe in RECIPES}
    zchart = by_name["z-chart, same after-treatment"]
    plain, _ = bench.version(zchart, one)
    bare, _ = bench.version(zchart._replace(after=by_name["no chart: each reading's own error"].after), one)
    assert bare.manifest.sha256 == plain.manifest.sha256
    assert plain.manifest.chart is not None
    assert bare.manifest.chart is None
    assert bare.manifest.calibration != plain.manifest.calibration
    assert len(list(versions.iterdir())) == 1
    bench.version(by_name["PCA, same after-treatment"], one)
    assert len(list(versions.iterdir())) == 2


def test_the_table_goes_between_the_markers(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{detection.BEGIN}old\n{detection.END}\nafter\n")
    detection.write(page, "new\n")
    assert page.read_text() == f"before\n{detection.BEGIN}new\n{detection.END}\nafter\n"
    assert detection.BEGIN in detection.PAGE.read_text()


def test_names_of_recipes_are_unique() -> None:
    assert len({recipe.name for recipe in RECIPES}) == len(RECIPES)
