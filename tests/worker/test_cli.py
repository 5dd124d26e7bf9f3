"""Settings: which source wins, and what a mistake is answered."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest

from worker import cli
from worker.__main__ import main


class Show(cli.Command):
    summary: ClassVar[str] = "for tests"
    again: bool = False

    def run(self) -> int:
        for name, value in cli.effective(self):
            print(f"{name}={value}")
        return 0


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("ZMU_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "SECRETS", str(tmp_path / "secrets"))


def show(*args: str) -> int:
    return cli.main("show", {"show": Show}, ["show", *args])


def test_the_strongest_source_wins(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def found() -> str:
        assert show(*args) == 0
        lines = dict(line.split("=", 1) for line in capsys.readouterr().out.splitlines())
        return lines["input.topic"]

    args: list[str] = []
    assert found() == "sensor-readings"
    (tmp_path / "zmu.toml").write_text('[input]\ntopic = "from-toml"\n')
    args += ["--config", "zmu.toml"]
    assert found() == "from-toml"
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "ZMU_INPUT__TOPIC").write_text("from-secret")
    assert found() == "from-secret"
    (tmp_path / ".env").write_text("ZMU_INPUT__TOPIC=from-dotenv\n")
    assert found() == "from-dotenv"
    monkeypatch.setenv("ZMU_INPUT__TOPIC", "from-environment")
    assert found() == "from-environment"
    args += ["--input.topic", "from-flag"]
    assert found() == "from-flag"


@pytest.mark.parametrize(
    ("variables", "args", "says"),
    [
        ({"ZMU_BATCH__MAX_RECRDS": "7"}, [], "did you mean ZMU_BATCH__MAX_RECORDS?"),
        ({}, ["--batch.max-recrds", "7"], "did you mean --batch.max-records?"),
        ({"ZMU_BATCH__MAX_RECORDS": "many"}, [], "ZMU_BATCH__MAX_RECORDS): found 'many'"),
        ({"ZMU_KAFKA__SECURITY_PROTOCOL": "TLS"}, [], "'SASL_SSL'"),
        ({"ZMU_DEVICE": "gpu"}, [], "ZMU_DEVICE"),
        ({"ZMU_INPUT__TOPIC": "a topic"}, [], "a topic name has"),
        ({"ZMU_MODEL__NAME": "../up"}, [], "ZMU_MODEL__NAME"),
        ({"ZMU_INPUT__FEATURES": "a,b"}, [], "features"),
        ({}, ["--config", "absent.toml"], "absent.toml"),
        (
            {"ZMU_KAFKA__SECURITY_PROTOCOL": "SASL_SSL", "ZMU_KAFKA__USERNAME": "zmu"},
            [],
            "SASL_SSL needs ZMU_KAFKA__SASL_MECHANISM, ZMU_KAFKA__PASSWORD as well",
        ),
    ],
)
def test_mistakes_are_named_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variables: dict[str, str],
    args: list[str],
    says: str,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert show(*args) == 2
    error = capsys.readouterr().err
    assert says in error
    assert "Traceback" not in error


def test_unknown_keys_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "zmu.toml").write_text("[batch]\nmax_record = 3\n")
    assert show("--config", "zmu.toml") == 2
    assert "did you mean batch.max_records?" in capsys.readouterr().err
    (tmp_path / "zmu.toml").write_text("[batch\n")
    assert show("--config", "zmu.toml") == 2
    assert "not valid TOML" in capsys.readouterr().err


def test_secrets_are_masked(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("ZMU_KAFKA__PASSWORD", "hunter2")
    assert main(["config"]) == 0
    out = capsys.readouterr().out
    assert "kafka.password = ********" in out
    assert "hunter2" not in out


def test_settings_of_training_do_not_disturb_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZMU_TRAINING__EPOCHS", "3")
    assert show() == 0


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert main(["--help"]) == 0
    assert "until-drained" not in capsys.readouterr().out
    assert main(["rum"]) == 2
    assert "did you mean run?" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(["run", "--help"])
    assert ended.value.code == 0
    assert "--until-drained" in capsys.readouterr().out


def test_a_missing_model_is_a_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--model.registry", str(tmp_path / "none"), "--http.port", "0"]) == 2
    error = capsys.readouterr().err
    assert "zmu-training run" in error
    assert "Traceback" not in error


def test_a_dotenv_may_hold_what_is_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / ".env").write_text("POSTGRES_USER=x\nZMU_INPUT__TOPIC=ours\nZMU_INPUT__ENTITY_FIELD=\n")
    assert show() == 0
    out = capsys.readouterr().out
    assert "input.topic=ours\n" in out
    assert "input.entity_field=\n" in out               # empty is unset
    (tmp_path / ".env").write_text("ZMU_INPUT__TOPC=ours\n")
    assert show() == 2
    assert "did you mean ZMU_INPUT__TOPIC?" in capsys.readouterr().err


def test_null_means_none_wherever_it_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "zmu.toml").write_text('[input]\ntimestamp_field = "null"\n')
    read = cli.read(Show, "show", ["--config", "zmu.toml"])
    assert read.input.timestamp_field is None
    monkeypatch.setenv("ZMU_INPUT__TIMESTAMP_FIELD", "null")
    assert cli.read(Show, "show", []).input.timestamp_field is None


def test_what_kubernetes_says_of_services_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "ZMU_PORT", "ZMU_SERVICE_HOST", "ZMU_WORKER_PORT_9108_TCP_ADDR", "ZMU_WORKER_SERVICE_PORT_METRICS",
    ):
        monkeypatch.setenv(name, "x")
    assert show() == 0
