"""A backtest tells what the worker told: same events, over a topic and over files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import factory
from tests.integration.conftest import Plant
from tests.programs import Program
from training.__main__ import main

DAY_MS, START_MS = 86_400_000, 1_764_000_000_000


def backtest(plant: Plant, monkeypatch: pytest.MonkeyPatch, *args: str) -> None:
    for name, value in plant.environment.items():
        monkeypatch.setenv(name, value)
    assert main(["backtest", *args]) == 0


def test_of_a_topic(
    plant: Plant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    factory.publish(tmp_path, "v2", **factory.remembering())  # type: ignore[arg-type]
    values = factory.random_readings(1900, anomalous_every=10_000)
    for i in [*range(603, 800, 10), *range(905, 1000, 10)]:             # pump-3, and later pump-5
        values[i] = factory.reading(factory.ANOMALOUS, START_MS + 1000 * i)
    later = [factory.reading(factory.ANOMALOUS, START_MS + 2 * DAY_MS + 1000 * i) for i in range(100)]
    plant.send([*values, *later, b"junk"])
    with Program("worker", "run", "--until-drained", **plant.environment) as worker:
        assert worker.wait() == 0, worker.stderr
    told = [json.loads(record.value) for record in plant.read("output")]
    told = [event for event in told if event["kind"] == "anomaly"]
    assert len(told) > 20

    page, figures = tmp_path / "backtest.html", tmp_path / "backtest.json"
    backtest(plant, monkeypatch, "--json", str(figures), "--html", str(page))
    found = json.loads(figures.read_text())
    assert found["overlap"] == {"both": len(told), "only_now": 0, "only_then": 0}
    assert found["anomalies"] == len(told)
    assert found["model"]["version"] == "v2"
    assert found["readings"] == 2000
    assert found["not_readings"] == {"invalid_json": 1}
    by_entity = {entity: sum(day["anomalies"] for day in days.values()) for entity, days in found["entities"].items()}
    assert by_entity == {e: sum(event["entity"] == e for event in told) for e in by_entity}
    assert found["contributors"][0]["feature"] == "pressure"
    assert sum(part["share"] for part in found["contributors"]) == pytest.approx(1)
    highest = max(told, key=lambda event: event["anomaly_score"])
    assert found["highest"][0]["event_id"] == highest["event_id"]
    assert found["highest"][0]["anomaly_score"] == highest["anomaly_score"]
    assert {day for days in found["entities"].values() for day in days} == {"2025-11-24", "2025-11-26"}
    html = page.read_text()
    for said in ("Alerts by day", "pump-3", "pressure", "11-26", "told then, and would be now"):
        assert said in html
    assert "http" not in html
    assert f"{len(told):,} were told then as well" in capsys.readouterr().out

    backtest(plant, monkeypatch, "--from", '{"0": 100}', "--to", '{"1": 0, "2": 0, "3": 0}', "--json", str(figures))
    part = json.loads(figures.read_text())
    assert 0 < part["readings"] < 2000
    assert part["overlap"]["only_then"] + part["overlap"]["both"] == sum(
        event["source"]["partition"] == 0 and event["source"]["offset"] >= 100 for event in told
    )
    backtest(plant, monkeypatch, "--model", "v1", "--json", str(figures))
    assert json.loads(figures.read_text())["model"]["version"] == "v1"


def test_of_files(plant: Plant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recording = tmp_path / "pump-1.jsonl"
    recording.write_bytes(b"\n".join(factory.random_readings(400, anomalous_every=50)))
    backtest(plant, monkeypatch, str(recording), "--json", str(tmp_path / "found.json"))
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["readings"] == 400
    assert found["anomalies"] == 8
    assert list(found["entities"]) == ["pump-1"]
    assert found["overlap"] is None


def test_where_it_cannot_write(
    plant: Plant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recording = tmp_path / "pump-1.jsonl"
    recording.write_bytes(b"\n".join(factory.random_readings(20, anomalous_every=50)))
    for name, value in plant.environment.items():
        monkeypatch.setenv(name, value)
    assert main(["backtest", str(recording), "--html", str(tmp_path / "none" / "x.html")]) == 2
    assert "--html" in capsys.readouterr().err
