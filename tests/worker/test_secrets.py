"""Secrets are seen nowhere: not in what `config` prints, nor in what a mistake beside them is answered."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from worker import log
from worker.__main__ import main
from worker.kafka.brokers import client_options
from worker.settings import KafkaSettings, LogSettings

PASSWORD = "correct-horse-battery"
KEY_PASSWORD = "staple-of-the-key"
METRICS_PASSWORD = "only-prometheus-knows"


def without_secrets(text: str) -> None:
    assert text
    assert [secret for secret in (PASSWORD, KEY_PASSWORD, METRICS_PASSWORD) if secret in text] == []


def test_config_shows_no_secret(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    given = {
        "ZMU_KAFKA__PASSWORD": PASSWORD, "ZMU_KAFKA__SSL_PASSWORD": KEY_PASSWORD,
        "ZMU_HTTP__USERNAME": "prometheus", "ZMU_HTTP__PASSWORD": METRICS_PASSWORD,
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert main(["config"]) == 0
    told = capsys.readouterr().out
    assert told.count("********") == 3
    without_secrets(told)


@pytest.mark.parametrize(
    "variables",
    [
        {"ZMU_KAFKA__SECURITY_PROTOCOL": "SASL_SSL", "ZMU_KAFKA__PASSWORD": PASSWORD},
        {"ZMU_KAFKA": json.dumps({"password": PASSWORD, "port": 9})},
        {"ZMU_KAFKA": f'{{"password": "{PASSWORD}"'},
        {"ZMU_KAFKA": json.dumps({"password": [PASSWORD]})},
        {"ZMU_HTTP__PASSWORD": PASSWORD},
        {"ZMU_KAFKA__PASSWORD": PASSWORD, "ZMU_KAFKA__PASSWORD_FILE": "/absent"},
    ],
)
def test_a_mistake_beside_a_secret_does_not_tell_it(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert main(["config"]) == 2
    without_secrets(capsys.readouterr().err)


def test_a_mistyped_flag_does_not_tell_its_value(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "--kafka.pasword", PASSWORD]) == 2
    told = capsys.readouterr().err
    assert "did you mean --kafka.password?" in told
    without_secrets(told)


def options(**settings: object) -> dict[str, object]:
    login = {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN", "username": "zmu"}
    return client_options(KafkaSettings.model_validate(login | settings))


def test_a_password_from_a_file_is_as_it_is_now(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(f"  {PASSWORD}\r\n")
    settings = {"password_file": file}
    assert options(**settings)["sasl_plain_password"] == f"  {PASSWORD}"
    file.write_text("renewed")
    assert options(**settings)["sasl_plain_password"] == "renewed"
    assert options(password=SecretStr("given"))["sasl_plain_password"] == "given"


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe", None])
def test_a_file_without_a_password(content: bytes | None, tmp_path: Path) -> None:
    file = tmp_path / "password"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ValidationError, match=f"ZMU_KAFKA__PASSWORD_FILE={file}"):
        options(password_file=file)


def test_a_traceback_of_kafkas_transport_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    handlers = logging.getLogger().handlers[:]
    try:
        log.configure(LogSettings(format="json"))
        try:
            raise OSError("alert certificate required")
        except OSError:
            logging.getLogger("kafka.net.transport").exception("%s: Error receiving network data", "here")
    finally:
        logging.getLogger().handlers[:] = handlers
    (line,) = capsys.readouterr().err.splitlines()
    told = json.loads(line)
    assert told["event"] == "here: Error receiving network data: alert certificate required"
    assert "exception" not in told
