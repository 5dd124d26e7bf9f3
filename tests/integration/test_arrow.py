"""Arrow messages on a real topic, sent as docs/arrow.md says: scored, explained, learnt from, each row by its place."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests import factory
from tests.documents import ROOT, blocks
from tests.integration.conftest import Plant
from tests.programs import Program, parsed
from tests.worker.streams import rows_of
from training.history import feedback, history
from training.history.feedback import Feedback
from training.progress import Progress
from training.settings import Settings
from worker.__main__ import main
from worker.records import event_id

ROWS = 2_500
START_MS = 1_764_000_000_000


def table() -> pa.Table:
    """Three entities; every 100th reading is anomalous, and one is none."""
    chance = np.random.default_rng(3)
    columns = {name: value + chance.normal(0, 0.1, ROWS) for name, value in factory.NORMAL.items()}
    columns["pressure"][99::100] = 9.0
    columns["temperature"][1_234] = np.inf
    return pa.table({
        **columns,
        "entity": [f"pump-{i % 3}" for i in range(ROWS)],
        "timestamp": pa.array(START_MS + 1000 * np.arange(ROWS), pa.timestamp("ms", "UTC")),
    })  # fmt: skip


@pytest.fixture
def told(plant: Plant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """Events, after the page's sender and a worker have run."""
    pq.write_table(table(), tmp_path / "readings.parquet")
    (example,) = (block.text for block in blocks(ROOT / "docs" / "arrow.md") if block.language == "python")
    sent = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", example.replace("sensor-readings", plant.topics["input"])],
        env={**os.environ, "BOOTSTRAP_SERVERS": plant.broker}, cwd=tmp_path, capture_output=True, text=True,
        check=False, timeout=60,
    )  # fmt: skip
    assert sent.returncode == 0, sent.stderr
    with Program("worker", "run", "--until-drained", **plant.environment) as worker:
        assert worker.wait() == 0, worker.stderr
    for name, value in plant.environment.items():
        monkeypatch.setenv(name, value)
    return [parsed(record.value) for record in plant.read("output")]


def test_rows_from_the_sender_to_the_model(
    told: list[dict[str, object]], plant: Plant, capsys: pytest.CaptureFixture[str]
) -> None:
    messages = plant.read("input")
    assert [len(rows_of(message.value)) for message in messages] == [1_000, 1_000, 500]
    assert sum(plant.committed().values()) == 3
    anomalies = {str(event["timestamp"]): event for event in told}
    assert len(anomalies) == len({event["event_id"] for event in told}) == ROWS // 100

    for event in told:
        source = event["source"]
        assert isinstance(source, dict)
        row = rows_of(messages[source["offset"]].value)[source["row"]]
        assert (row["entity"], row["pressure"]) == (event["entity"], 9.0)
        place = source["topic"], source["partition"], source["offset"]
        assert UUID(str(event["event_id"])) == event_id(*place, row=source["row"])

    (dead,) = plant.read("dead")
    headers = {name: value.decode() for name, value in dead.headers}
    assert headers["content-type"] == "application/vnd.apache.arrow.stream"
    assert (headers["error.code"], headers["source.offset"], headers["source.row"]) == ("non_finite", "1", "234")
    assert [row["temperature"] for row in rows_of(dead.value)] == [np.inf]

    # One of them once more.
    event = told[7]
    for asked in (str(event["event_id"]), "{topic}/{partition}/{offset}/{row}".format(**event["source"])):  # type: ignore[arg-type]
        assert main(["explain", asked]) == 0
        out = capsys.readouterr().out
        assert f"score       {event['anomaly_score']!r}; the event says {event['anomaly_score']!r}: equal" in out
    topic = plant.topics["input"]
    partition = messages[0].partition
    for asked, answer in (
        (f"{topic}/{partition}/1/234", "the record is no reading: non_finite"),
        (f"{topic}/{partition}/1", "is an Arrow record of many readings: name a row of it"),
        (f"{topic}/{partition}/1/9999", "is an Arrow record of many readings: name a row of it"),
        (f"{topic}/1/2/3/4", "neither an event_id nor topic/partition/offset"),
    ):
        assert main(["explain", asked]) == 2
        assert answer in capsys.readouterr().err

    # And learnt from, with what people say of it.
    found = history.from_topic(Settings(), Progress(io.StringIO()))
    assert found.features == factory.FEATURES
    assert len(found) == ROWS - 1
    assert found.left_out == {"non_finite": 1}
    assert found.batch.rows_B.max() == 999
    labels = Feedback({UUID(str(event["event_id"])): "anomaly" for event in told[:5]})
    labelled = feedback.rows(found, labels)
    assert [found.batch.x_BF[row, 1] for row in labelled] == [9.0] * 5
