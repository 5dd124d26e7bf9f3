"""What is not learnt from: alarms of the champion, maintenance, stuck sensors; and what is learnt all the same."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from tests.training import machine
from training import job
from training.history import exclusions
from training.history.feedback import Label
from training.history.history import History
from training.history.selection import Selection, selected
from training.history.spans import Spans
from training.progress import Progress
from training.settings import Settings
from worker.entities import Entities
from worker.models import artifact
from worker.models.artifact import Artifact, OffsetRange
from worker.models.registry import Registry
from worker.records import Batch, rfc3339
from worker.settings import IncidentSettings

ROWS = 600                              # of each entity


def plant(x_EBF: list[np.ndarray]) -> History:
    """Entities one after the other in turns, a second apart."""
    entities = Entities()
    codes = [entities.code(0, f"pump-{i}") for i in range(len(x_EBF))]
    rows, n = len(x_EBF[0]), len(x_EBF)
    batch = Batch(
        x_BF=np.stack(x_EBF, 1).reshape(rows * n, -1).astype(np.float32),
        entity_B=np.tile(np.array(codes, np.int32), rows),
        timestamp_ms_B=machine.START_MS + 1000 * np.repeat(np.arange(rows), n),
        partition_B=np.zeros(rows * n, np.int32),
        offset_B=np.arange(rows * n),
    )
    return History(machine.SENSORS, batch, entities, (OffsetRange(topic="t", partition=0, start=0, end=rows * n),))


@pytest.fixture(scope="module")
def champion(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder = tmp_path_factory.mktemp("champion")
    made = machine.settings(folder / "models", profile="machinery", kind="pca", rivals=False)
    outcome = job.run(made, [machine.csv(folder / "pump.csv", 10_000)], Progress(io.StringIO()))
    return artifact.load(Registry(str(folder / "models"), "default"), outcome.manifest.version, torch.device("cpu"))


def select(
    history: History, champion: Artifact | None, labels: dict[int, Label] | None = None, **training: object
) -> Selection:
    made = Settings(training=training)  # type: ignore[arg-type]
    return selected(history, champion, labels or {}, made.training.maintenance, made, Progress(io.StringIO()))


def pumps(n: int = 4) -> list[np.ndarray]:
    return [machine.readings(ROWS, seed=10 + i) for i in range(n)]


def shifted(x_BF: np.ndarray, first: int = 0) -> np.ndarray:
    """The pressure no longer falls with the load."""
    x_BF = x_BF.copy()
    x_BF[first:, 2] += 1.0
    return x_BF


def kept_of(selection: Selection, entity: int) -> int:
    return int((selection.history.batch.entity_B == entity).sum())


def test_normal_readings_are_all_learnt_false_alarms_too(champion: Artifact) -> None:
    found = select(plant(pumps()), champion)
    assert len(found.history) >= 0.99 * 4 * ROWS
    assert found.notes == ()


def test_a_fault_that_lasts_through_all_of_the_history_is_not_learnt(champion: Artifact) -> None:
    """Longer than the worker takes to accept a new level."""
    x_EBF = pumps()
    x_EBF[2] = shifted(machine.readings(ROWS, seed=12))
    found = select(plant(x_EBF), champion)
    assert kept_of(found, 2) < 0.05 * ROWS
    assert kept_of(found, 1) > 0.98 * ROWS
    assert found.history.left_out is not None
    assert found.history.left_out["incident"] > 0.9 * ROWS
    assert any("in alarm to the end, and not learnt: pump-2" in note for note in found.notes)


def test_a_short_fault_is_not_learnt_for_being_short(champion: Artifact) -> None:
    """Less than the alarms that the champion may raise by mistake."""
    x_EBF = pumps()
    x_EBF[3][300:360, 2] += 0.15                    # by less than a critical score
    found = select(plant(x_EBF), champion)
    assert 45 <= ROWS - kept_of(found, 3) <= 120
    assert kept_of(found, 0) == ROWS


def test_what_most_machines_show_at_once_is_the_new_normal(champion: Artifact) -> None:
    found = select(plant([shifted(x_BF, 300) for x_BF in pumps()]), champion)
    assert len(found.history) > 0.97 * 4 * ROWS
    assert any("4 of 4 entities differ" in note for note in found.notes)


def test_feedback_outvotes_the_champion(champion: Artifact) -> None:
    x_EBF = pumps()
    x_EBF[2] = shifted(x_EBF[2], 300)
    history = plant(x_EBF)
    row = 4 * 310 + 2
    assert kept_of(select(history, champion), 2) < 0.55 * ROWS
    for label in ("new_normal", "expected", "false_alarm"):
        assert kept_of(select(history, champion, {row: label}), 2) > 0.97 * ROWS, label   # type: ignore[dict-item]
    confirmed = select(history, champion, {row: "anomaly"})
    assert kept_of(confirmed, 2) < 0.55 * ROWS
    assert confirmed.history.left_out is not None
    assert confirmed.history.left_out["confirmed"] == 1


def test_a_confirmed_anomaly_is_left_out_though_the_champion_was_silent() -> None:
    found = select(plant(pumps()), None, {17: "anomaly", 18: "false_alarm"})
    assert found.history.left_out == {"confirmed": 1}
    assert 17 not in found.history.batch.offset_B
    assert 18 in found.history.batch.offset_B


def test_maintenance_of_some_and_of_all() -> None:
    start, end = rfc3339(machine.START_MS + 100_000), rfc3339(machine.START_MS + 200_000)
    window = {"start": start, "end": end}
    assert select(plant(pumps()), None, maintenance=[window]).history.left_out == {"maintenance": 400}
    one = select(plant(pumps()), None, maintenance=[window | {"entities": ["pump-1", "nobody"]}])
    assert one.history.left_out == {"maintenance": 100}
    assert kept_of(one, 1) == ROWS - 100
    with pytest.raises(ValidationError, match="has no length"):
        Settings(training={"maintenance": [{"start": end, "end": start}]})     # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="is no time"):
        Settings(training={"maintenance": [{"start": "noon", "end": end}]})    # type: ignore[arg-type]


def test_a_stuck_sensor_is_told_and_not_learnt(champion: Artifact) -> None:
    x_EBF = pumps()
    x_EBF[1][200:500, 3] = x_EBF[1][200, 3]
    found = select(plant(x_EBF), champion, exclude_anomalous=False)
    assert found.history.left_out is None or "stuck" not in found.history.left_out
    found = select(plant(x_EBF), champion)
    assert found.history.left_out is not None
    assert found.history.left_out["stuck"] == 300
    assert any("pump-1: heat was stuck for 300 readings from 2025-" in note for note in found.notes)


def test_a_missing_sensor_and_a_silent_machine_are_told(champion: Artifact) -> None:
    x_EBF = pumps()
    x_EBF[0][50:450, 5] = np.nan
    history = plant(x_EBF)
    last_N = (history.batch.entity_B != 3) | (np.arange(len(history)) < 4 * 300)
    found = select(replace(history, batch=history.batch.take(last_N)), champion)
    assert any(note.startswith("pump-0: vibration was missing for 400 readings") for note in found.notes)
    assert any(note.startswith("pump-3: silent since 2025-") for note in found.notes)


def test_a_champion_of_other_features_judges_nothing(champion: Artifact) -> None:
    history = plant(pumps())
    other = replace(history, features=tuple(reversed(history.features)))
    said = io.StringIO()
    found = selected(other, champion, {}, (), Settings(), Progress(said))
    assert len(found.history) == len(history)
    assert "has other features" in said.getvalue()


def test_memory_is_bounded_by_the_setting() -> None:
    found = select(plant(pumps()), None, max_readings=1000)
    assert len(found.history) == 1000
    assert found.history.left_out == {"beyond_quota": 1400}


def test_alarms_near_each_other_are_one_incident() -> None:
    history = plant([machine.readings(1000)])
    alarm_N = np.zeros(1000, bool)
    alarm_N[[10, 100, 101, 102, 150, 151, 153, 700, 701, 702, 990]] = True
    score_N = np.where(alarm_N, 2.0, 0.5).astype(np.float32)
    score_N[151] = 7.0
    spans = Spans.of(history.batch, alarm_N, score_N, IncidentSettings(close_after_seconds=60))
    assert list(zip(spans.first_S.tolist(), spans.last_S.tolist(), strict=True)) == [
        (10, 10), (100, 153), (700, 702), (990, 990)
    ]
    assert spans.incident_S.tolist() == [False, True, True, False]
    assert spans.alarms_S.tolist() == [1, 6, 3, 1]
    assert spans.longest_S.tolist() == [1, 3, 3, 1]
    assert spans.peak_S.tolist() == [2, 7, 2, 2]
    assert spans.reaches_newest_S.tolist() == [False, False, False, True]
    assert spans.rows(1).tolist() == list(range(100, 154))
    assert spans.rows(0).tolist() == [10]
    assert [spans.at(row) for row in (9, 10, 120, 154, 990)] == [None, 0, 1, None, 3]


def test_reasons_are_counted_once() -> None:
    found = exclusions.Exclusions(np.zeros(5, np.uint8))
    found.leave_out([0, 1], "maintenance")
    found.leave_out(np.array([1, 2]), "stuck")
    found.leave_out([], "confirmed")
    assert found.counted == {"maintenance": 2, "stuck": 1}
