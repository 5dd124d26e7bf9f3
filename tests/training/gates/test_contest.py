"""Challenger against champion: each gate fails where it should, and a retrained twin passes all."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training import machine
from training import job
from training.fitting import dataset, heldout
from training.gates import contest, gate
from training.gates.contest import Contest
from training.history.feedback import AtLabels
from training.history.history import from_files
from training.progress import Progress
from training.reporting.outcome import Outcome
from training.settings import GateSettings
from worker.detection.detector import Detector
from worker.models import artifact
from worker.models.artifact import GateResult
from worker.models.registry import Registry


def train(folder: Path, x_BF: np.ndarray, **training: object) -> Outcome:
    lines = [",".join(machine.SENSORS), *(",".join(map(repr, row)) for row in x_BF.tolist())]
    (folder / "pump.csv").write_text("\n".join(lines))
    made = machine.settings(folder / "models", **training)
    return job.run(made, [folder / "pump.csv"], Progress(io.StringIO()))


def named(gates: tuple[GateResult, ...]) -> dict[str, GateResult]:
    return {gate.name: gate for gate in gates}


def nothing_labelled(detector: Detector) -> AtLabels:
    return AtLabels((), np.empty(0), np.empty(0, bool))


@pytest.fixture(scope="module")
def met(tmp_path_factory: pytest.TempPathFactory) -> Contest:
    """A version against itself."""
    folder = tmp_path_factory.mktemp("met")
    version = train(folder, machine.readings(1500)).manifest.version
    loaded = artifact.load(Registry(str(folder / "models"), "default"), version, torch.device("cpu"))
    made = machine.settings(folder)
    history = from_files([folder / "pump.csv"], made)
    data = dataset.prepare(history, made.training)
    return contest.between(loaded, loaded, heldout.score(Detector(loaded), data), data, nothing_labelled, 1)


def changed(met: Contest, **held: object) -> Contest:
    return replace(met, challenger=replace(met.challenger, held=replace(met.challenger.held, **held)))


def test_a_version_is_as_good_as_itself(met: Contest) -> None:
    gates = named(contest.gates(met, GateSettings()))
    assert all(gate.passed for gate in gates.values())
    assert gates["loss_against_champion"].value == 1
    assert gates["error_by_feature"].value == 0
    assert gates["faults_against_champion"].value == 1
    assert gates["score_agreement"].value == pytest.approx(1)


def test_one_feature_that_is_known_worse(met: Contest) -> None:
    error_F = met.challenger.held.error_F.copy()
    error_F[3] += 0.3 * met.challenger.held.constant_F[3]
    gate = named(contest.gates(changed(met, error_F=error_F), GateSettings()))["error_by_feature"]
    assert gate.value == pytest.approx(0.3)
    assert not gate.passed
    assert "heat" in gate.detail
    patient = contest.gates(changed(met, error_F=error_F), GateSettings(feature_loss=0.4))
    assert named(patient)["error_by_feature"].passed


def test_a_larger_error_counts_between_versions_of_one_kind(met: Contest) -> None:
    worse = changed(met, error_F=1.5 * met.challenger.held.error_F)
    gate = named(contest.gates(worse, GateSettings()))["loss_against_champion"]
    assert gate.value == pytest.approx(1.5)
    assert not gate.passed
    told = named(contest.gates(replace(worse, same_kind=False), GateSettings()))["loss_against_champion"]
    assert (told.passed, told.bound) == (True, "for information")


def test_opposed_scores_are_refused_unless_the_champion_is_over_its_budget(met: Contest) -> None:
    scores = met.challenger.held.scores
    opposed = changed(met, scores=replace(scores, raw_B=-scores.raw_B))
    gate = named(contest.gates(opposed, GateSettings()))["score_agreement"]
    assert gate.value == pytest.approx(-1)
    assert not gate.passed
    assert named(contest.gates(opposed, GateSettings(agreement=None)))["score_agreement"].passed
    loud = replace(met.champion.held, scores=replace(scores, anomaly_score_B=np.full(len(scores.raw_B), 2.0)))
    lost = replace(opposed, champion=replace(opposed.champion, held=loud))
    gate = named(contest.gates(lost, GateSettings()))["score_agreement"]
    assert gate.passed
    assert "the champion calls 100.0% anomalous" in gate.detail


def test_a_hardly_trained_twin_is_kept_as_challenger(tmp_path: Path) -> None:
    first = train(tmp_path, machine.readings(1500), min_steps=1500)
    second = train(tmp_path, machine.readings(1500), min_steps=0, epochs=1, learning_rate=2e-3)
    assert second.promotion == "refused"
    assert any(reason.startswith("loss_against_champion") for reason in second.reasons), second.reasons
    assert Registry(str(tmp_path / "models"), "default").aliases() == {
        "champion": first.manifest.version, "challenger": second.manifest.version
    }
    page = Registry(str(tmp_path / "models"), "default").read(second.manifest.version, "report.html").decode()
    assert "loss against champion" in page


def test_a_threshold_that_a_fault_has_set_makes_deaf(tmp_path: Path) -> None:
    train(tmp_path, machine.readings(1500))
    poisoned = machine.readings(1500)
    poisoned[-200:, 2] += 3.0
    second = train(tmp_path, poisoned, exclude_anomalous=False)
    gate = named(second.manifest.gates)["faults_against_champion"]
    assert gate.value is not None
    assert gate.value < 0.85
    assert second.promotion == "refused"
    assert any("deafer" in reason for reason in second.reasons)


def test_faults_compare_kinds(tmp_path: Path) -> None:
    train(tmp_path, machine.readings(1500))
    second = train(tmp_path, machine.readings(1500), kind="zchart")
    gates = named(second.manifest.gates)
    assert gates["loss_against_champion"].bound == "for information"
    assert gates["faults_against_champion"].value is not None


def test_alerts_are_held_against_the_settings(met: Contest) -> None:
    loud = changed(met).challenger.held
    share = np.where(np.arange(len(loud.scores.raw_B)) % 25 == 0, 2.0, 0.5)     # 4 % where 1 % is asked for
    loud = replace(loud, scores=replace(loud.scores, anomaly_score_B=share))
    assert gate._alerts(loud, GateSettings()).passed
    assert not gate._alerts(loud, GateSettings(alert_factor=3)).passed


def test_f1_on_labelled_readings(met: Contest) -> None:
    labels = ("anomaly", "anomaly", "expected", "false_alarm", "new_normal")

    def side(*alarms: int) -> AtLabels:
        return AtLabels(labels, np.ones(5), np.array(alarms, bool))

    def gate_of(ours: AtLabels, theirs: AtLabels) -> GateResult:
        judged = replace(
            met, challenger=replace(met.challenger, labelled=ours), champion=replace(met.champion, labelled=theirs)
        )
        return named(contest.gates(judged, GateSettings()))["labelled_f1"]

    assert gate_of(side(1, 1, 0, 0, 0), side(1, 1, 1, 1, 1)).passed
    worse = gate_of(side(1, 0, 0, 0, 0), side(1, 1, 0, 0, 0))
    assert worse.value == pytest.approx(2 / 3)
    assert not worse.passed
    few = AtLabels(labels[:2], np.ones(2), np.array([False, False]))
    assert gate_of(few, few).bound == "for information"
    assert "labelled_f1" not in named(contest.gates(met, GateSettings()))


def test_labels_of_recordings_are_no_feature_not_learnt_and_judged_by(tmp_path: Path) -> None:
    label_B = np.zeros(1500)
    label_B[300:350] = label_B[1400:1450] = 1
    x_BF = machine.readings(1500)
    x_BF[label_B > 0, 2] += 3.0
    lines = [",".join((*machine.SENSORS, "fault")), *(
        ",".join(map(repr, (*row, label))) for row, label in zip(x_BF.tolist(), label_B.tolist(), strict=True))]
    (tmp_path / "pump.csv").write_text("\n".join(lines))
    made = machine.settings(tmp_path / "models", label="fault", kind="pca", rivals=False)
    first = job.run(made, [tmp_path / "pump.csv"], Progress(io.StringIO())).manifest
    assert first.features == machine.SENSORS
    assert first.training.left_out == {"confirmed": 100}
    second = job.run(made, [tmp_path / "pump.csv"], Progress(io.StringIO())).manifest
    gate = named(second.gates)["labelled_f1"]
    assert gate.value is not None
    assert gate.value > 0.9
    assert "375 labelled readings, 50 of them anomalies" in gate.detail
