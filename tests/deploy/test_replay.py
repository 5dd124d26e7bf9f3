"""A recording arrives in a topic as it was made, row by row."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.demo import plant
from deploy.demo.feed import Reading
from deploy.demo.replay import Recording
from tests import kafka
from worker.errors import InputError

SEMICOLONS = """datetime;Accelerometer1RMS;Pressure;anomaly;changepoint
2020-03-09 10:14:33;0.0265879970;0.054711;0.0;0.0
2020-03-09 10:14:34;0.026170;;1.0;0.0
2020-03-09 10:14:35;0.0261;-0.273216;1.0;1.0
"""
FIRST_MS = 1_583_748_873_000        # 2020-03-09T10:14:33Z


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    path = tmp_path / "valve.csv"
    path.write_text(SEMICOLONS)
    return path


def test_rows_become_readings(recorded: Path) -> None:
    assert list(Recording(recorded, leave_out=["anomaly", "changepoint"])) == [
        Reading("valve", FIRST_MS, {"Accelerometer1RMS": 0.0265879970, "Pressure": 0.054711}),
        Reading("valve", FIRST_MS + 1000, {"Accelerometer1RMS": 0.026170, "Pressure": None}),
        Reading("valve", FIRST_MS + 2000, {"Accelerometer1RMS": 0.0261, "Pressure": -0.273216}),
    ]


def test_entity_from_a_column_or_fixed(tmp_path: Path) -> None:
    path = tmp_path / "machines.csv"
    path.write_text("ts,machine,a\n1764000000,m1,1\n1764000001500,m2,2\n")
    assert list(Recording(path, entity_column="machine")) == [
        Reading("m1", 1_764_000_000_000, {"a": 1.0}),
        Reading("m2", 1_764_000_001_500, {"a": 2.0}),
    ]
    assert [r.entity for r in Recording(path, entity="press", leave_out=["machine"])] == ["press", "press"]


def test_timestamps_in_a_named_column(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("when,time,a\n2026-01-01T00:00:00+01:00,5,1\n")
    (reading,) = Recording(path, timestamp_column="when")
    assert reading == Reading("t", 1_767_222_000_000, {"time": 5.0, "a": 1.0})


def test_rows_without_timestamps_are_an_interval_apart(tmp_path: Path) -> None:
    path = tmp_path / "machine-1.train.csv.gz"
    with gzip.open(path, "wt") as file:
        file.write("f0,f1\n0.5,1\n0.25,2\n")
    assert list(Recording(path, interval_seconds=60, start_ms=1000)) == [
        Reading("machine-1", 1000, {"f0": 0.5, "f1": 1.0}),
        Reading("machine-1", 61_000, {"f0": 0.25, "f1": 2.0}),
    ]


@pytest.mark.parametrize(
    ("text", "options", "says"),
    [
        ("a,b\n1,x\n", {}, "row 0, column b: 'x' is no finite number; mend it, or leave the column out: --leave-out b"),
        ("a,b\n1,inf\n", {}, "row 0, column b: 'inf'"),
        ("a,b\n1,2\n1\n", {}, "row 1: 1 cells under 2 columns"),
        ("time,a\nnoon,2\n", {}, "row 0: 'noon' is no time"),
        ("a,b\n1,2\n", {"leave_out": ["c"]}, "has no column 'c'; it has a, b"),
        ("a\n1\n", {"leave_out": ["a"]}, "no column of readings among a"),
        ("", {}, "no column of readings"),
    ],
)
def test_what_is_no_reading_is_named(tmp_path: Path, text: str, options: dict[str, list[str]], says: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=says):
        list(Recording(path, **options))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.csv cannot be read"):
        list(Recording(tmp_path / "nowhere.csv"))


def test_a_recording_arrives_record_by_record(
    broker: str, topic: Callable[..., str], recorded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZMU_KAFKA__BOOTSTRAP_SERVERS", broker)
    name = topic()
    arguments = ["--topic", name, "--csv", str(recorded), "--speed", "20"]
    arguments += ["--leave-out", "anomaly", "--leave-out", "changepoint", "--entity", "bench"]
    assert plant.main(arguments) == 0
    records = kafka.contents(broker, name)
    assert {record.key for record in records} == {b"bench"}
    assert [json.loads(record.value) for record in records] == [
        {"timestamp": r.timestamp_ms, **r.values} for r in Recording(recorded, leave_out=["anomaly", "changepoint"])
    ]


def test_a_recording_of_a_real_machine_arrives_whole(
    broker: str, topic: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(__file__).parents[3] / "shared" / "data" / "valve1" / "1.csv"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    monkeypatch.setenv("ZMU_KAFKA__BOOTSTRAP_SERVERS", broker)
    name = topic()
    arguments = ["--topic", name, "--csv", str(path), "--speed", "max"]
    assert plant.main([*arguments, "--leave-out", "anomaly", "--leave-out", "changepoint"]) == 0
    expected = list(Recording(path, leave_out=["anomaly", "changepoint"]))
    assert len(expected) > 1000
    assert [json.loads(record.value) for record in kafka.contents(broker, name)] == [
        {"timestamp": reading.timestamp_ms, **reading.values} for reading in expected
    ]


def test_now_replaces_recorded_timestamps(
    broker: str, topic: Callable[..., str], recorded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZMU_KAFKA__BOOTSTRAP_SERVERS", broker)
    name = topic()
    assert plant.main(["--topic", name, "--csv", str(recorded), "--speed", "max", "--timestamps", "now"]) == 0
    for record in kafka.contents(broker, name):
        assert abs(json.loads(record.value)["timestamp"] - record.timestamp) < 5000


def test_a_bad_row_ends_the_replay_with_its_place(
    broker: str, topic: Callable[..., str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("ZMU_KAFKA__BOOTSTRAP_SERVERS", broker)
    path = tmp_path / "bad.csv"
    path.write_text("a,b\n1,2\n3,broken\n")
    name = topic()
    assert plant.main(["--topic", name, "--csv", str(path), "--speed", "max"]) == 2
    assert "row 1, column b" in capsys.readouterr().err
    assert [json.loads(record.value)["b"] for record in kafka.contents(broker, name)] == [2.0]
