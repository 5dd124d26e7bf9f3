"""The command line: what it prints, and its exit codes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.training import machine
from training import __main__ as program
from training.fitting import dataset
from training.history.history import from_files
from training.settings import TrainingSettings
from worker.models.registry import Registry
from worker.models.shadow_time import Stretch, Told

QUICK = ("--training.min-steps", "300", "--training.epochs", "2", "--training.latent", "4")


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.startswith("ZMU_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_from_files_to_a_rollback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = machine.csv(tmp_path / "a,1.csv", 600), machine.csv(tmp_path / "b.csv", 600, seed=1)
    versions = []
    for _ in range(2):
        assert program.main(["run", "--source", str(one), str(two), *QUICK]) == 0
        versions.append(capsys.readouterr().out.split()[1].rstrip(":"))
    assert program.main(["models", "list"]) == 0
    listed = capsys.readouterr().out
    assert all(version in listed for version in versions)
    assert program.main(["models", "show", versions[0]]) == 0
    assert "a,1.csv" in capsys.readouterr().out
    assert program.main(["models", "rollback"]) == 0
    assert f"{versions[0]} is champion again" in capsys.readouterr().out
    asked = ["models", "promote", versions[1], "--after-shadow", "24h"]
    assert program.main(asked) == 2
    assert "no worker has told of it in the shadow; 1 d are asked for" in capsys.readouterr().err
    stretch = Stretch(versions[1])
    for hours in (23, 24):
        stretch.told = Told(0, hours * 3_600_000, 5000, 50, 4900)
        stretch.note(Registry(str(tmp_path / "models"), "default"))
        assert program.main(["models", "show", versions[1]]) == 0
        assert f"{['23 h', '1 d'][hours - 23]} in the shadow, 5,000 readings, 1.00% in alarm" in capsys.readouterr().out
        assert program.main(asked) == (2 if hours == 23 else 0)
    assert (tmp_path / "models/default/aliases/champion").read_text() == versions[1]


def test_a_refused_version_exits_with_1_and_the_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = machine.csv(tmp_path / "m.csv", 600)
    code = program.main(["run", "--source", str(source), *QUICK, "--training.objective.kl-weight", "1e6"])
    assert code == 1
    assert "is not promoted" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["run", "--source", "none.csv"], 2, "none.csv does not exist"),
        (["run", "--training.epoch", "3"], 2, "did you mean"),
        (["run", "--training.max-age", "soon"], 2, "ZMU_TRAINING__MAX_AGE"),
        (["run", "--training.holdout", "1"], 2, "ZMU_TRAINING__HOLDOUT"),
        (["schedule"], 2, "--every"),
        (["schedule", "--every", "6h", "--cron", "* * * * *"], 2, "one of"),
        (["schedule", "--every", "soon"], 2, "a duration is"),
        (["schedule", "--cron", "at noon"], 2, "five fields"),
        (["models", "rollback"], 2, "champion"),
        (["models", "show", "v9"], 2, "no version or alias"),
        (["models", "promote"], 2, "which version"),
        (["models", "burn"], 2, "burn"),
        (["evalute"], 2, "unknown command"),
    ],
)
def test_mistakes(args: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(args) == code
    assert said in capsys.readouterr().err


def test_sources_in_every_spelling() -> None:
    args = ["run", "--source", "a,1", "b", "--log.level", "error", "--source=c", "--source", "d"]
    assert program.gathered(args) == ["run", "--log.level", "error", "--source", json.dumps(["a,1", "b", "c", "d"])]
    assert program.gathered(["models", "list"]) == ["models", "list"]


def test_settings_from_the_environment(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("ZMU_TRAINING__START", '{"0": 5}')
    monkeypatch.setenv("ZMU_TRAINING__END", "2026-01-01T00:00:00Z")
    monkeypatch.setenv("ZMU_TRAINING__OBJECTIVE__KL_WEIGHT", "0.5")
    assert program.main(["config"]) == 0
    out = capsys.readouterr().out
    for line in (
        "training.start = {0: 5}",
        "training.end = 2026-01-01T00:00:00Z",
        "training.objective.kl_weight = 0.5",
        "training.objective.feature_weights = equal",
    ):
        assert line in out


@pytest.mark.parametrize("settings", [{"profile": "pointwise"}, {"scaling": "unit"}])
def test_errors_of_inputs_in_0_to_1_are_in_units_of_each_feature(tmp_path: Path, settings: dict[str, Any]) -> None:
    history = from_files([machine.csv(tmp_path / "m.csv", 400)], machine.settings(tmp_path))
    recipe = dataset.prepare(history, TrainingSettings(**settings)).recipe
    assert (recipe.scaling, recipe.output) == ("unit", "sigmoid")
    assert recipe.objective.feature_weights == "inverse-variance"
