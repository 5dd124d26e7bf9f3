"""zmu-training evaluate: labelled recordings in, figures out that agree with an independent scorer."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import factory
from training import __main__ as program
from training.evaluation import plot as evaluation_plot
from training.evaluation import shown as evaluation_shown
from training.evaluation.evaluate import Evaluation, Recording
from worker import __main__ as worker

SHARED = Path(__file__).parents[3] / "shared" / "data"
NORMAL, FAULTY = (20.0, 3.0, 50.0), (20.0, 9.0, 50.0)


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.startswith("ZMU_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def recording(path: Path, marks: str, column: str = "anomaly", entities: str = "") -> Path:
    """`.` normal, `F` faulty and labelled so, `m` labelled but looks normal, `f` faulty but not labelled, `?` junk."""
    values = {".": (NORMAL, 0), "F": (FAULTY, 1), "m": (NORMAL, 1), "f": (FAULTY, 0), "?": (("junk", 3.0, 50.0), 1)}
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow([*factory.FEATURES, column, *(["machine"] if entities else [])])
        for i, mark in enumerate(marks):
            x, label = values[mark]
            table.writerow([*x, label, *([entities[i]] if entities else [])])
    return path


def evaluated(tmp_path: Path, *args: str) -> dict[str, Any]:
    assert program.main(["evaluate", *args, "--json", str(tmp_path / "figures.json")]) == 0
    found: dict[str, Any] = json.loads((tmp_path / "figures.json").read_text())
    return found


def test_figures_of_each_recording_and_of_the_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    factory.publish(tmp_path / "models")
    one = recording(tmp_path / "one.csv", "...mFF..f.")
    two = recording(tmp_path / "two.csv", ".....mmm..")
    found = evaluated(tmp_path, str(one), str(two))
    assert found["model"]["version"] == "v1"
    first, second = found["recordings"]
    assert (first["name"], first["rows"], first["events"], first["found"], first["delay_rows"]) == ("one", 10, 1, 1, 1)
    assert (first["f1"], first["false_alarm_rate"]) == pytest.approx((4 / 6, 1 / 7))
    assert (second["f1"], second["missed_rate"], second["delay_rows"]) == (0.0, 1.0, None)
    whole = found["set"]
    assert (whole["f1"], whole["false_alarm_rate"], whole["missed_rate"]) == pytest.approx((4 / 9, 1 / 14, 4 / 6))
    assert whole["vus_pr"] == pytest.approx((first["vus_pr"] + second["vus_pr"]) / 2)
    assert whole["floor_f1_always_on"] == pytest.approx(2 * 6 / (2 * 6 + 14))
    out = capsys.readouterr().out
    assert "\x1b" not in out                            # piped: plain text
    heads, *rows = out.splitlines()[1:]
    assert heads.split()[0] == "recording"
    assert [row.split()[0] for row in rows] == ["one", "two", "all", "floors", "floors:"]
    assert "1/1" in rows[0]
    assert rows[1].split()[-2:] == ["0/1", "–"]


def test_first_rows_are_scored_but_not_judged(tmp_path: Path) -> None:
    factory.publish(tmp_path / "models")
    found = evaluated(tmp_path, str(recording(tmp_path / "one.csv", "FFm...F")), "--skip", "3")
    assert (found["set"]["rows"], found["set"]["events"], found["set"]["f1"]) == (4, 1, 1.0)


def test_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    factory.publish(tmp_path / "models")
    (tmp_path / "other").mkdir()
    one, two = recording(tmp_path / "0.csv", "..F"), recording(tmp_path / "other" / "0.csv", "..m")
    found = evaluated(tmp_path, str(one), str(two))["recordings"]
    assert [r["name"] for r in found] == [f"{one}: 0", f"{two}: 0"]


def test_rows_that_are_no_readings_are_misses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    factory.publish(tmp_path / "models")
    found = evaluated(tmp_path, str(recording(tmp_path / "one.csv", "..?F..")))
    assert (found["recordings"][0]["unscored"], found["set"]["missed_rate"]) == (1, 0.5)
    assert "row 2: wrong_type" in capsys.readouterr().err


def test_each_entity_of_a_file_is_a_recording(tmp_path: Path) -> None:
    factory.publish(tmp_path / "models")
    one = recording(tmp_path / "one.csv", ".F.m.FF.", entities="abababab")
    found = evaluated(tmp_path, str(one), "--input.entity-field", "machine")
    a, b = found["recordings"]
    assert (a["name"], a["rows"], a["f1"], a["events"]) == ("a", 4, 1.0, 1)
    assert (b["name"], b["rows"], b["events"], b["delay_rows"]) == ("b", 4, 1, 0)


def test_the_worker_s_budget_of_alarms_counts(tmp_path: Path) -> None:
    """A reading between the thresholds of two rates: an alarm for one of them only."""
    factory.publish(tmp_path / "models")
    one = tmp_path / "one.csv"
    one.write_text("temperature,pressure,flow,anomaly\n20,3,50,0\n20,5.7,50,1\n")
    assert evaluated(tmp_path, str(one))["set"]["missed_rate"] == 1.0
    assert evaluated(tmp_path, str(one), "--model.target-rate", "0.4")["set"]["missed_rate"] == 0.0


@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
def test_labels_by_another_name_and_in_json_lines(tmp_path: Path, ending: str) -> None:
    factory.publish(tmp_path / "models")
    source = recording(tmp_path / "one.csv", "..FF?.f", column="fault")
    if ending == ".jsonl":
        rows = [dict(zip(factory.FEATURES, (*NORMAL,), strict=True), fault=False) for _ in range(7)]
        for i in (2, 3, 6):
            rows[i] |= {"pressure": FAULTY[1], "fault": i < 4}
        rows[4] |= {"temperature": "junk", "fault": True}       # type: ignore[dict-item]
        source = tmp_path / "one.jsonl"
        source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = evaluated(tmp_path, str(source), "--label", "fault")["set"]
    assert (found["rows"], found["f1"], found["missed_rate"]) == pytest.approx((7, 2 / 3, 1 / 3))


def test_a_version_by_name_and_by_alias(tmp_path: Path) -> None:
    factory.publish(tmp_path / "models", "v1")
    registry = factory.publish(tmp_path / "models", "v2", champion=False)
    registry.point("challenger", "v2")
    one = str(recording(tmp_path / "one.csv", "..F"))
    assert evaluated(tmp_path, one)["model"]["version"] == "v1"
    assert evaluated(tmp_path, one, "--version", "v2")["model"]["version"] == "v2"
    assert evaluated(tmp_path, one, "--version", "challenger")["model"]["version"] == "v2"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["one.csv", "--label", "fault"], "no column 'fault'; it has 'temperature', 'pressure', 'flow', 'anomaly'"),
        (["one.csv", "--label", "pressure"], "trained with 'pressure' as a feature"),
        (["words.csv"], "the label 'anomaly' of row 1 is 'yes'"),
        (["gap.csv"], "the label 'anomaly' of row 1 is empty"),
        (["lines.jsonl"], "no column 'anomaly' in row 1; it has 'temperature'"),
        (["one.csv", "--input.entity-field", "machine"], "no column 'machine'"),
        (["one.csv", "--skip", "4"], "one has 4 labelled rows and --skip leaves out 4"),
        (["one.csv", "--skip", "-1"], "skip"),
        (["one.csv", "--version", "v9"], "no version or alias 'v9'"),
        (["one.csv", "--plot", "scores.pdf"], "ends in .svg or .png"),
        (["one.csv", "--plot", "none/scores.svg"], "--plot none/scores.svg: No such file"),
        (["one.csv", "--json", "none/figures.json"], "--json none/figures.json: No such file"),
        (["none.csv"], "none.csv does not exist"),
        ([], "required: FILES"),
    ],
)
def test_mistakes(args: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    factory.publish(tmp_path / "models")
    recording(tmp_path / "one.csv", "..F.")
    head = "temperature,pressure,flow,anomaly\n20,3,50,0\n"
    (tmp_path / "words.csv").write_text(f"{head}20,3,50,yes\n")
    (tmp_path / "gap.csv").write_text(f"{head}20,3,50,\n")
    reading = {"temperature": 20, "pressure": 3, "flow": 50}
    (tmp_path / "lines.jsonl").write_text(f"{json.dumps(reading | {'anomaly': 0})}\n{json.dumps(reading)}\n")
    assert program.main(["evaluate", *args]) == 2
    assert said in capsys.readouterr().err


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def made(rows: int = 5000) -> Evaluation:
    rng = np.random.default_rng(0)
    label_N = np.zeros(rows, bool)
    label_N[rows // 2 : rows // 2 + 100] = True
    score_N = rng.random(rows) + label_N
    return Evaluation((Recording(Path("pumps.csv"), "pump-1", label_N, score_N, score_N > 1),))


def test_on_a_terminal_the_table_is_drawn() -> None:
    out = Terminal()
    evaluation_shown.table(made(), out)
    assert "─" in out.getvalue()
    assert "pump-1" in out.getvalue()
    assert "1/1" in out.getvalue()


@pytest.mark.parametrize(("ending", "head"), [(".svg", b"<?xml"), (".png", b"\x89PNG")])
def test_a_picture_of_scores_and_labels(tmp_path: Path, ending: str, head: bytes) -> None:
    path = tmp_path / f"scores{ending}"
    evaluation_plot.draw(made(), path)
    picture = path.read_bytes()
    assert picture.startswith(head)
    assert len(picture) < 200_000
    if ending == ".svg":
        for word in (b"pump-1", b"labelled", b"threshold", b"alarm"):
            assert word in picture
        evaluation_plot.draw(made(), tmp_path / "again.svg")
        assert (tmp_path / "again.svg").read_bytes() == picture


def test_a_thinned_line_keeps_every_peak() -> None:
    score_N = np.zeros(10_000)
    score_N[[17, 5_003, 9_999]] = 3, 2, 5
    at_P, score_P = evaluation_plot.peaks(score_N, 100)
    assert len(at_P) == 100
    assert {17, 5_003, 9_999} <= set(at_P.tolist())
    assert sorted(score_P[score_P > 0].tolist()) == [2, 3, 5]


@pytest.mark.skipif(not (SHARED / "score.py").is_file(), reason=f"score.py and its recordings are not here: {SHARED}")
def test_figures_agree_with_an_independent_scorer(tmp_path: Path) -> None:
    """zmu-worker score and score.py on one side, zmu-training evaluate on the other."""
    folder, skip = "valve1", 400
    (tmp_path / "labels" / folder).mkdir(parents=True)
    (tmp_path / "predictions" / folder).mkdir(parents=True)
    sources = [Path(shutil.copy(SHARED / folder / f"{i}.csv", tmp_path / "labels" / folder)) for i in (0, 3)]
    (tmp_path / "train.csv").write_text("".join(sources[0].read_text().splitlines(keepends=True)[: skip + 1]))
    quick = ("--training.min-steps", "200", "--training.epochs", "1", "--input.ignore", '["anomaly", "changepoint"]')
    assert program.main(["run", "--source", str(tmp_path / "train.csv"), *quick]) == 0
    for source in sources:
        out = tmp_path / "predictions" / folder / source.name
        assert worker.main(["score", str(source), "--output", str(tmp_path / "scores.csv")]) == 0
        out.write_text((tmp_path / "scores.csv").read_text().replace("anomaly_score", "score", 1))
    theirs = tmp_path / "theirs.json"
    command = [sys.executable, str(SHARED / "score.py"), "predictions", "labels", "--json", str(theirs)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    score = json.loads(theirs.read_text())[folder]
    ours = evaluated(tmp_path, *map(str, sources), "--skip", str(skip))["set"]
    assert ours["found"] > 0
    assert 0 < ours["false_alarm_rate"] < 1
    pairs = {
        "rows": score["rows"], "anomalous": score["anomalous"], "f1": score["f1"], "vus_pr": score["vus_pr"],
        "false_alarm_rate": score["far"] / 100, "missed_rate": score["mar"] / 100, "events": score["events"],
        "found": score["found"], "delay_rows": score["delay"], "floor_f1_always_on": score["floor_f1_always_on"],
        "floor_vus_pr_random": score["floor_vus_pr_random"],
    }
    assert {name: ours[name] for name in pairs} == pytest.approx(pairs, abs=1e-9, rel=0)
