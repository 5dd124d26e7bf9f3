"""An event that the worker told, told again from Kafka and the registry: the same score, to the bit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import factory
from tests.integration.conftest import Plant
from tests.programs import Program
from worker.__main__ import main
from worker.records import event_id

START_MS = 1_764_000_000_000


@pytest.fixture
def told(plant: Plant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """What a worker with memory said; afterwards another version serves."""
    factory.publish(tmp_path, "v2", **factory.remembering())  # type: ignore[arg-type]
    values = factory.random_readings(900, anomalous_every=10_000)
    for i in range(603, 800, 10):
        values[i] = factory.reading({"temperature": 20.0, "pressure": 9.0, "flow": None}, START_MS + 1000 * i)
    plant.send([*values, b"junk"])
    with Program("worker", "run", "--until-drained", **plant.environment) as worker:
        assert worker.wait() == 0, worker.stderr
    factory.publish(tmp_path, "v3")
    for name, value in plant.environment.items():
        monkeypatch.setenv(name, value)
    return [json.loads(record.value) for record in plant.read("output")]



def explained(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str]:
    code = main(["explain", *args])
    captured = capsys.readouterr()
    return code, captured.out + captured.err


def test_the_same_score(
    told: list[dict[str, object]], plant: Plant, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    anomalies = [event for event in told if event["kind"] == "anomaly"]
    event = anomalies[len(anomalies) // 2]
    page = tmp_path / "explained.html"
    code, out = explained(capsys, str(event["event_id"]), "--html", str(page))
    assert code == 0, out
    assert f"score       {event['anomaly_score']!r}; the event says {event['anomaly_score']!r}: equal" in out
    assert "version     v2" in out
    assert "of pump-3" in out
    assert next(line for line in out.splitlines() if line.startswith("pressure")).split()[1] == "9"
    assert "missing" in out             # flow
    html = page.read_text()
    assert html.count("<svg") == 4
    for said in ("pressure: ", "anomaly score", "v2"):
        assert said in html

    source = event["source"]
    assert isinstance(source, dict)
    place = f"{source['topic']}/{source['partition']}/{source['offset']}"
    assert explained(capsys, place)[1].splitlines()[3].endswith(": equal")
    code, out = explained(capsys, place, "--history", "0")
    assert code == 1
    assert "different" in out
    assert "give a larger --history" in out
    code, out = explained(capsys, place, "--version", "champion")
    assert "version     v3" in out


def test_what_cannot_be_explained(
    told: list[dict[str, object]], plant: Plant, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out = explained(capsys, f"{plant.topics['input']}/0/5")   # a reading that nobody told anything of
    assert code == 0, out
    for said in ("nothing to compare", "the score is not above 1", "version     v3"):
        assert said in out

    topic = plant.topics["input"]
    (dead,) = plant.read("dead")
    headers = {name: value.decode() for name, value in dead.headers}
    junk = f"{topic}/{headers['source.partition']}/{headers['source.offset']}"
    for what, answer in (
        (junk, "the record is no reading: invalid_json"),
        (f"{topic}/0/99999", "is not there"),
        ("pump-3", "neither an event_id nor topic/partition/offset"),
        (str(event_id("nowhere", 0, 0)), "holds no event"),
        ("nowhere/0/0", "has no topic 'nowhere'"),
    ):
        code, out = explained(capsys, what)
        assert code == 2
        assert answer in out, out
