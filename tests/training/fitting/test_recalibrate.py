"""Feedback: which words count, which readings they are about, and what becomes of the threshold."""

from __future__ import annotations

import io
import json
from uuid import UUID

import numpy as np
import pytest
import torch

from tests.training import machine
from training import job
from training.fitting.recalibrate import note, with_feedback
from training.history import feedback
from training.history.feedback import Feedback, Label
from training.history.history import History
from training.progress import Progress
from worker.detection.detector import Detector
from worker.entities import Entities
from worker.models import artifact
from worker.models.artifact import Artifact, OffsetRange
from worker.models.registry import Registry
from worker.records import event_id


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder = tmp_path_factory.mktemp("version")
    made = machine.settings(folder / "models", kind="pca", rivals=False)
    outcome = job.run(made, [machine.csv(folder / "pump.csv", 3000)], Progress(io.StringIO()))
    return artifact.load(Registry(str(folder / "models"), "default"), outcome.manifest.version, torch.device("cpu"))


def history(x_BF: np.ndarray) -> History:
    entities = Entities()
    entities.code(0, "pump")
    ranges = (OffsetRange(topic="readings", partition=0, start=0, end=len(x_BF)),)
    return History(machine.SENSORS, machine.batch(x_BF), entities, ranges)


def off_by(version: Artifact, *sizes: float) -> History:
    """A normal reading, over and over, and at rows 10, 20, … the pressure off until the score has that size."""
    x_BF = np.repeat(machine.readings(1, seed=5), 10 * len(sizes) + 20, 0)
    detector = Detector(version)
    for i, size in enumerate(sizes):
        low, high = 0.0, 50.0
        for _ in range(60):
            middle = (low + high) / 2
            tried = x_BF[:1].copy()
            tried[0, 2] += middle
            raw = detector.score_history(machine.batch(tried)).raw_B[0]
            low, high = (middle, high) if raw / detector.threshold < size else (low, middle)
        x_BF[10 * (i + 1), 2] += middle
    return history(x_BF)


def factor(version: Artifact, found: History, labels: dict[int, Label], most: float = 1.5) -> float:
    return with_feedback(version, found, labels, most)[1].factor


def test_the_threshold_rises_above_a_false_alarm(version: Artifact) -> None:
    found = off_by(version, 1.3, 1.1)
    raised, by = with_feedback(version, found, {10: "false_alarm", 20: "false_alarm"}, 1.5)
    assert by.factor == pytest.approx(1.3, rel=0.01)
    assert (by.quiet, by.loud) == (2, 0)
    before, after = (Detector(a).score_history(found.batch).anomalous_B for a in (version, raised))
    assert before[[10, 20]].tolist() == [True, True]
    assert not after.any()
    assert "2 of 2 false alarms" in (note(by.figures) or "")


def test_not_beyond_its_bound(version: Artifact) -> None:
    found = off_by(version, 1.2, 4.0)
    raised = with_feedback(version, found, {10: "false_alarm", 20: "false_alarm"}, 1.5)[1]
    assert raised.factor == pytest.approx(1.2, rel=0.01)
    assert (raised.quiet, raised.loud) == (1, 1)
    assert "1 of 2" in (note(raised.figures) or "")
    assert factor(version, found, {10: "false_alarm"}, most=1.0) == 1.0


def test_never_above_a_confirmed_anomaly(version: Artifact) -> None:
    found = off_by(version, 1.3, 1.2, 1.1)
    labels: dict[int, Label] = {10: "false_alarm", 30: "false_alarm", 20: "anomaly"}
    assert factor(version, found, labels) == pytest.approx(1.1, rel=0.01)


def test_other_words_move_nothing(version: Artifact) -> None:
    found = off_by(version, 1.3)
    assert with_feedback(version, found, {10: "expected"}, 1.5) == (version, (1.0, 0, 0))
    assert with_feedback(version, found, {}, 1.5)[0] is version
    assert note({}) is None


def test_the_last_word_counts_and_rubbish_is_counted() -> None:
    said = Feedback()
    one, other = UUID(int=1), UUID(int=2)
    for event, label in ((one, "anomaly"), (other, "expected"), (one, "false_alarm")):
        said.take(json.dumps({"event_id": str(event), "label": label, "by": "night shift"}).encode())
    for rubbish in (b"", None, b"{", b'{"event_id": "x", "label": "anomaly"}', b'{"label": "anomaly"}', b"\xff",
                    json.dumps({"event_id": str(one), "label": "maybe"}).encode(), b"[" * 100_000):
        said.take(rubbish)
    assert said.labels == {other: "expected", one: "false_alarm"}
    assert list(said.labels) == [other, one]
    assert said.counted == {"expected": 1, "false_alarm": 1, "invalid": 8}


def test_rows_by_the_ids_of_their_events() -> None:
    found = history(machine.readings(50))
    said = Feedback({event_id("readings", 0, 33): "anomaly", event_id("readings", 0, 7): "new_normal",
                     event_id("elsewhere", 0, 8): "anomaly", event_id("readings", 1, 9): "anomaly"})
    assert feedback.rows(found, said) == {33: "anomaly", 7: "new_normal"}
    assert list(feedback.rows(found, said)) == [33, 7]
    assert feedback.rows(History(machine.SENSORS, found.batch, found.entities, files=("pump.csv",)), said) == {}


def test_a_label_is_scored_after_the_readings_before_it(version: Artifact) -> None:
    found = off_by(version, 1.3, 0.5)
    at = feedback.scored(Detector(version), found, {20: "anomaly", 10: "anomaly"})
    np.testing.assert_allclose(at.size_L, [0.5, 1.3], rtol=0.01)
    assert at.alarm_L.tolist() == [False, True]
