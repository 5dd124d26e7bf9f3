"""Faults injected into held-out readings: that they are what they say, and that the right ones are noticed."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training import machine
from training import job
from training.fitting import dataset
from training.fitting.dataset import Dataset
from training.gates import trial
from training.gates.injections import FAULTS, SPIKE, Case
from training.gates.trial import Seen, Trial
from training.history.history import from_files
from training.progress import Progress
from worker.detection.detector import Detector
from worker.models import artifact
from worker.models.artifact import Artifact
from worker.models.registry import Registry
from worker.records import F32, Batch

SPREAD_F = np.ones(7)
NAMES = [fault.name for fault in FAULTS]


def version(folder: Path, source: Path, **training: object) -> tuple[Artifact, Dataset]:
    settings = machine.settings(folder / "models", rivals=False, **training)
    made = job.run(settings, [source], Progress(io.StringIO())).manifest
    found = artifact.load(Registry(str(folder / "models"), "default"), made.version, torch.device("cpu"))
    return found, dataset.prepare(from_files([source], settings), settings.training)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Seen]:
    """What each kind notices on the machine, whose sensors hang together."""
    folder = tmp_path_factory.mktemp("machine")
    source = machine.csv(folder / "pump.csv", 1500)
    found = {}
    for kind in ("vae", "pca", "zchart"):
        made, data = version(folder, source, kind=kind, target_rate=0.002)
        found[kind] = drawn(data).of(Detector(made))
    return found.__getitem__


def drawn(data: Dataset, seed: int = 1) -> Trial:
    faults = trial.prepared(data.held, data.spread_F, data.recipe.window, seed)
    assert faults is not None
    return faults


def several(counts: list[int]) -> Batch:
    """Entities whose readings lie about 1000, 2000 and so on; offsets are places in the batch."""
    n = sum(counts)
    entity_B = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    x_BF = 1000 * (1 + entity_B[:, None]) + np.random.default_rng(0).normal(size=(n, 7))
    return replace(machine.batch(x_BF), entity_B=entity_B)


def of_columns(faults: Trial, batch: Batch) -> tuple[F32, F32]:
    """The batch's readings and offsets by row of the stretch, one column for each entity: (x_NCF, offset_NC)."""
    columns = int(batch.entity_B.max()) + 1
    assert (batch.entity_B.reshape(-1, columns) == np.arange(columns)).all()
    return batch.x_BF.reshape(-1, columns, batch.x_BF.shape[1]), batch.offset_B.reshape(-1, columns)


def with_threshold(made: Artifact, threshold: float) -> Detector:
    calibration = made.manifest.calibration.model_copy(update={"threshold": threshold})
    return Detector(replace(made, manifest=made.manifest.model_copy(update={"calibration": calibration})))


def test_only_models_of_relations_notice_values_of_another_time(seen: Callable[[str], Seen]) -> None:
    assert seen("pca").detected_by["displaced"] > 0.7
    assert seen("vae").detected_by["displaced"] > 0.4
    assert seen("zchart").detected_by["displaced"] < 0.1
    assert seen("zchart").detected_by["shift_16"] > 0.8


@pytest.mark.parametrize("kind", ["vae", "pca", "zchart"])
def test_larger_faults_are_noticed_more_and_the_right_sensor_is_blamed(seen: Callable[[str], Seen], kind: str) -> None:
    found = seen(kind)
    assert set(found.detected_by) == set(NAMES)
    assert found.detected_by["shift_1"] < found.detected_by["shift_8"] <= found.detected_by["shift_16"]
    assert found.detected == pytest.approx(np.mean(list(found.detected_by.values())), abs=0.02)
    assert found.named is not None
    assert found.named > 0.6                        # by chance one in seven


@pytest.mark.parametrize("kind", ["pca", "zchart"])
def test_neither_a_deaf_nor_a_shouting_detector_notices_anything(tmp_path: Path, kind: str) -> None:
    made, data = version(tmp_path, machine.csv(tmp_path / "pump.csv", 600), kind=kind)
    deaf, shouting = (drawn(data).of(with_threshold(made, threshold)) for threshold in (1e12, 1e-12))
    assert (deaf.detected, deaf.false_alarms) == (0.0, 0.0)
    assert (shouting.detected, shouting.false_alarms) == (0.0, 1.0)
    assert deaf.named is None
    assert "named" not in deaf.figures()


def test_the_detector_comes_to_a_fault_with_its_memory(tmp_path: Path) -> None:
    """Fifteen readings with a window of twenty: without the ones before, nothing could be judged."""
    made, data = version(tmp_path, machine.csv(tmp_path / "pump.csv", 200), kind="pca", profile="servers")
    faults = drawn(data)
    assert (made.manifest.shape.window, len(of_columns(faults, faults.clean)[0])) == (20, 15)
    found = faults.of(Detector(made))
    assert found.detected_by["shift_16"] > 0.8
    assert found.named is not None
    assert found.named > 0.8
    untouched = replace(faults.faulty, x_BF=of_columns(faults, faults.clean)[0][:, faults.stretch_T].reshape(-1, 7))
    assert replace(faults, faulty=untouched).of(Detector(made)).detected == 0


def test_stretches_score_as_in_the_course_of_all_readings(tmp_path: Path) -> None:
    made, data = version(tmp_path, machine.csv(tmp_path / "pump.csv", 1500), kind="pca", profile="machinery")
    assert len(data.held) < trial.RUN_UP
    faults, detector = drawn(data), Detector(made)
    states = detector.states()
    detector.score(faults.run_up, states)
    of_stretch_B = detector.score(faults.clean, states).anomaly_score_B
    in_all_H = detector.score_history(data.held).anomaly_score_B
    place_B = np.searchsorted(data.held.offset_B, faults.clean.offset_B)
    assert of_stretch_B.tolist() == in_all_H[place_B].tolist()


def test_each_fault_is_in_one_sensor_of_a_stretch_of_one_entity() -> None:
    held = several([300, 20, 90, 200])
    faults = trial.prepared(held, SPREAD_F, 3, 1)
    assert faults is not None
    clean_NSF, offset_NS = of_columns(faults, faults.clean)
    assert len(clean_NSF) == trial.ROWS
    assert (np.diff(offset_NS, axis=0) == 1).all()
    entity_NS = held.entity_B[offset_NS]
    assert (entity_NS == entity_NS[0]).all()
    assert set(entity_NS[0].tolist()) == {0, 2, 3}                  # twenty are too few
    faulty_NTF, offset_NT = of_columns(faults, faults.faulty)
    assert (offset_NT == offset_NS[:, faults.stretch_T]).all()
    changed_TF = (faulty_NTF != clean_NSF[:, faults.stretch_T]).any(0)
    assert (changed_TF.sum(1) == 1).all()
    assert (changed_TF.argmax(1) == faults.sensor_T).all()
    displaced_T = faults.fault_T == NAMES.index("displaced")
    level_T = 1000 * (1 + entity_NS[0][faults.stretch_T])
    assert (np.abs(faulty_NTF[:, displaced_T] - level_T[displaced_T, None]) < 10).all()     # the entity's own values
    assert len(faults) == len(FAULTS) * len(offset_NS[0])


def test_the_run_up_ends_where_the_stretch_begins_and_is_bounded() -> None:
    held = several([900, 120])
    faults = trial.prepared(held, SPREAD_F, 3, 1)
    assert faults is not None
    _, offset_NS = of_columns(faults, faults.clean)
    for stretch, first in enumerate(offset_NS[0].tolist()):
        before = faults.run_up.offset_B[faults.run_up.entity_B == stretch]
        begin = 0 if first < 900 else 900
        assert before.tolist() == list(range(max(begin, first - trial.RUN_UP), first))
        assert len(before) >= 3


def test_missing_stays_missing_and_a_constant_sensor_is_left_alone() -> None:
    x_BF = machine.readings(200)
    x_BF[np.random.default_rng(1).random(x_BF.shape) < 0.2] = np.nan
    x_BF[:, 1] = np.nan
    faults = trial.prepared(machine.batch(x_BF), SPREAD_F, 1, 1)
    assert faults is not None
    clean_NSF, _ = of_columns(faults, faults.clean)
    faulty_NTF, _ = of_columns(faults, faults.faulty)
    missing_NTF = np.isnan(clean_NSF[:, faults.stretch_T])
    assert np.isnan(faulty_NTF[missing_NTF]).all()
    assert not {1, 6} & set(faults.sensor_T.tolist())
    spiked_T = faults.fault_T == NAMES.index("spike")
    assert (~np.isclose(faulty_NTF, clean_NSF[:, faults.stretch_T], equal_nan=True)).sum((0, 2))[spiked_T].max() == 1


def test_the_faults_are_what_they_say() -> None:
    case = Case(np.array([1, np.nan, 3, 4], np.float32), np.array([9, 8, np.nan, 6], np.float32), 10.0, -1.0, 2)
    made = {fault.name: fault.inject(case) for fault in FAULTS}
    assert made["shift_2"].tolist() == pytest.approx([-19, np.nan, -17, -16], nan_ok=True)
    assert made["stuck"].tolist() == pytest.approx([1, np.nan, 1, 1], nan_ok=True)
    assert made["spike"].tolist() == pytest.approx([1, np.nan, 3 - 10 * SPIKE, 4], nan_ok=True)
    assert made["displaced"].tolist() == pytest.approx([9, np.nan, np.nan, 6], nan_ok=True)
    assert case.normal_N.tolist() == pytest.approx([1, np.nan, 3, 4], nan_ok=True)


def test_a_seed_draws_the_same_faults_again() -> None:
    held = machine.batch(machine.readings(300))
    first, again, other = (trial.prepared(held, SPREAD_F, 1, seed) for seed in (1, 1, 2))
    assert first is not None
    assert again is not None
    assert other is not None
    assert first.faulty.x_BF.tobytes() == again.faulty.x_BF.tobytes()
    assert first.sensor_T.tolist() != other.sensor_T.tolist()


@pytest.mark.parametrize(
    ("held", "window"),
    [
        (several([8] * 50), 1),                                     # never five in a row, and five at another time
        (several([40]), 32),
        (machine.batch(np.full((300, 7), 3.0)), 1),
    ],
    ids=["short entities", "a long window", "nothing moves"],
)
def test_no_trial_where_there_is_nothing_to_inject_into(held: Batch, window: int) -> None:
    assert trial.prepared(held, SPREAD_F, window, 1) is None
