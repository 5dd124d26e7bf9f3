"""A whole training from files: what is published, what is refused, what each mistake is told."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training import machine
from training import job, models, publish
from training.progress import Progress
from training.reporting.outcome import Outcome
from worker.detection.detector import Detector
from worker.errors import InputError, ModelError, RegistryError, SettingsError, TrainingError
from worker.models import artifact
from worker.models.registry import Registry


def train(folder: Path, *sources: Path, **training: object) -> Outcome:
    return job.run(machine.settings(folder / "models", **training), sources, Progress(io.StringIO()))


def registry(folder: Path) -> Registry:
    return Registry(str(folder / "models"), "default")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return machine.csv(tmp_path / "pump.csv", 1500)


def test_a_version_that_the_worker_can_use(tmp_path: Path, source: Path) -> None:
    outcome = train(tmp_path, source)
    assert outcome.promotion == "promoted", outcome.reasons
    found = registry(tmp_path)
    assert found.resolve("champion") == outcome.manifest.version
    loaded = artifact.load(found, outcome.manifest.version, torch.device("cpu"))
    assert loaded.manifest.features == machine.SENSORS
    assert loaded.manifest.entities == ("pump",)
    assert loaded.manifest.training.rows == 1500
    assert loaded.manifest.training.first_timestamp_ms == machine.START_MS
    normal, broken = machine.readings(500, seed=3), machine.readings(20, seed=4)
    broken[:, 2] += 1.5                 # within what it has been, but not at this load
    detector = Detector(loaded)
    assert detector.score_history(machine.batch(normal)).anomalous_B.mean() < 0.03
    scores = detector.score_history(machine.batch(broken))
    assert scores.anomalous_B.mean() > 0.8
    assert (scores.feature_score_BF.argmax(1) == 2).mean() > 0.7
    for said in (outcome.manifest.version, "1,500", "held out", "report.html"):
        assert said in outcome.summary


def test_the_constant_feature_does_not_blow_up(tmp_path: Path, source: Path) -> None:
    loaded = artifact.load(registry(tmp_path), train(tmp_path, source).manifest.version, torch.device("cpu"))
    nudged = machine.readings(50, seed=3)
    nudged[:, 6] += 0.001
    assert Detector(loaded).score_history(machine.batch(nudged)).anomalous_B.mean() < 0.1


@pytest.mark.parametrize("kind", ["pca", "zchart"])
def test_baselines_are_versions_like_any_other(tmp_path: Path, source: Path, kind: str) -> None:
    outcome = train(tmp_path, source, kind=kind)
    assert outcome.promotion == "promoted", outcome.reasons
    loaded = artifact.load(registry(tmp_path), outcome.manifest.version, torch.device("cpu"))
    assert loaded.manifest.kind == kind


@pytest.mark.parametrize("settings", [{"scaling": "standard", "output": "linear"}, {"objective": {"sigma": "shared"}}])
def test_other_recipes(tmp_path: Path, source: Path, settings: dict[str, object]) -> None:
    assert train(tmp_path, source, min_steps=1500, **settings).manifest.figures["error_ratio"] < 0.5


def test_the_same_run_gives_the_same_model(tmp_path: Path, source: Path) -> None:
    first, second = train(tmp_path, source), train(tmp_path, source)
    assert first.manifest.sha256 == second.manifest.sha256
    assert first.manifest.calibration == second.manifest.calibration
    assert first.manifest.version < second.manifest.version or first.manifest.created_at == second.manifest.created_at


def test_a_collapsed_model_is_refused_and_kept_as_challenger(tmp_path: Path, source: Path) -> None:
    good = train(tmp_path, source)
    bad = train(tmp_path, source, objective={"kl_weight": 1e6, "warm_up": 0})
    assert bad.promotion == "refused"
    assert "error_ratio" in bad.reasons[0]
    assert "KL_WEIGHT" in bad.reasons[0]
    assert "all latents have collapsed" in bad.summary
    page = registry(tmp_path).read(bad.manifest.version, "report.html").decode()
    assert "0 of 4 are active" in page
    assert "Lower ZMU_TRAINING__OBJECTIVE__KL_WEIGHT" in page[page.index("0 of 4 are active") :]
    assert registry(tmp_path).aliases() == {"challenger": bad.manifest.version, "champion": good.manifest.version}


def test_manual_promotion_and_rollback(tmp_path: Path, source: Path) -> None:
    first, second = train(tmp_path, source), train(tmp_path, source, promote="manual")
    found = registry(tmp_path)
    assert second.promotion == "waiting"
    assert found.resolve("champion") == first.manifest.version
    assert second.manifest.version in models.promoted(found, "champion", "challenger")
    assert found.aliases()["previous"] == first.manifest.version
    assert first.manifest.version in models.rolled_back(found, "champion")
    assert found.resolve("champion") == first.manifest.version
    with pytest.raises(RegistryError, match="knows no version before"):
        models.rolled_back(found, "champion")


def test_the_champion_is_set_beside_the_new_version(tmp_path: Path, source: Path) -> None:
    first = train(tmp_path, source)
    gates = {g.name: g for g in train(tmp_path, source).manifest.gates}
    assert gates["champion_error_ratio"].value == pytest.approx(first.manifest.figures["error_ratio"], rel=1e-6)
    other = tmp_path / "other.jsonl"
    other.write_text("".join(json.dumps({"x": r["load"], "y": r["heat"]}) + "\n" for r in machine.rows(500)))
    warned = train(tmp_path, other, kind="pca")
    (gate,) = [g for g in warned.manifest.gates if g.name == "features_of_champion"]
    assert "a running worker refuses this" in gate.detail


def test_what_the_champion_calls_anomalous_is_left_out(tmp_path: Path, source: Path) -> None:
    train(tmp_path, source)
    poisoned = machine.readings(1500, seed=2)
    poisoned[700:800, 3] += 500
    lines = [",".join(machine.SENSORS), *(",".join(map(repr, map(float, row))) for row in poisoned)]
    (tmp_path / "poisoned.csv").write_text("\n".join(lines))
    manifest = train(tmp_path, tmp_path / "poisoned.csv").manifest
    assert 100 <= manifest.training.left_out["incident"] < 130
    assert manifest.training.rows == 1500 - sum(manifest.training.left_out.values())


def test_rows_that_are_no_readings_are_counted(tmp_path: Path, source: Path) -> None:
    source.write_text(source.read_text().replace("7.0\n", "seven\n", 3))
    assert train(tmp_path, source).manifest.training.left_out == {"wrong_type": 3}


def test_several_files_and_a_missing_one(tmp_path: Path, source: Path) -> None:
    other = machine.json_lines(tmp_path / "fan.jsonl", 500)
    assert train(tmp_path, source, other, kind="pca").manifest.entities == ("fan", "pump")
    with pytest.raises(InputError, match="does not exist"):
        train(tmp_path, source, tmp_path / "none.csv")


def test_constant_readings_and_too_few(tmp_path: Path) -> None:
    (tmp_path / "still.csv").write_text("a,b\n" + "1,2\n" * 300)
    with pytest.raises(TrainingError, match="every feature is constant"):
        train(tmp_path, tmp_path / "still.csv")
    with pytest.raises(TrainingError, match="at least 200"):
        train(tmp_path, machine.csv(tmp_path / "few.csv", 50))


def test_an_unwritable_registry_is_said_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file")
    with pytest.raises(RegistryError, match="ZMU_MODEL__REGISTRY"):
        train(tmp_path, tmp_path / "is-not-even-read.csv")


def test_a_torn_champion_does_not_stop_a_better_one(tmp_path: Path, source: Path) -> None:
    first = train(tmp_path, source, kind="pca")
    (tmp_path / "models/default" / first.manifest.version / "model.safetensors").write_bytes(b"torn")
    assert train(tmp_path, source, kind="pca").promotion == "promoted"


def test_the_registry_as_an_operator_sees_it(tmp_path: Path, source: Path) -> None:
    found = registry(tmp_path)
    assert "holds no version" in models.listed(found)[0]
    version = train(tmp_path, source, kind="pca").manifest.version
    assert version in models.listed(found)[1]
    assert models.listed(found)[1].endswith("champion")
    shown = "\n".join(models.shown(found, "champion"))
    for said in (version, "vibration", "threshold", "error_ratio", str(source)):
        assert said in shown
    with pytest.raises(ModelError, match="no version or alias 'v9'"):
        models.shown(found, "v9")
    with pytest.raises(SettingsError, match="which version"):
        models.promoted(found, "champion", "")
    with pytest.raises(ModelError, match="no version"):
        publish.promote(found, "champion", "v9")


def test_the_report_is_one_page_that_needs_no_network(tmp_path: Path, source: Path) -> None:
    source.write_text(source.read_text().replace("vibration", "<script>alert(1)</script>"))
    outcome = train(tmp_path, source)
    page = registry(tmp_path).read(outcome.manifest.version, "report.html").decode()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert 'src="http' not in page
    assert page.count("data:image/svg+xml;base64,") == 7
    for said in ("Gates", "Worst reconstructions", "Latents", outcome.manifest.sha256, "kl_weight"):
        assert said in page


def test_the_baselines_stand_beside_the_model(tmp_path: Path, source: Path) -> None:
    outcome = train(tmp_path, source)
    figures = outcome.manifest.figures
    assert figures["rival.vae.detected.displaced"] > 0.3 > figures["rival.zchart.detected.displaced"]
    (keeps,) = [g for g in outcome.manifest.gates if g.name == "earns_its_keep"]
    best = max(figures["rival.pca.detected"], figures["rival.zchart.detected"])
    assert keeps.value == pytest.approx(figures["rival.vae.detected"] - best)
    page = registry(tmp_path).read(outcome.manifest.version, "report.html").decode()
    for said in ("What each would have seen", "vae, this version", "values of another time", "alarm without a fault"):
        assert said in page
    share = f"{figures['rival.pca.detected.displaced']:.0%}"
    assert f"<td>{share}</td>" in page[page.index("values of another time") :]


def test_without_rivals_there_is_no_comparison(tmp_path: Path, source: Path) -> None:
    outcome = train(tmp_path, source, kind="pca", rivals=False)
    assert not [name for name in outcome.manifest.figures if name.startswith("rival")]
    assert not [g for g in outcome.manifest.gates if g.name == "earns_its_keep"]
    page = registry(tmp_path).read(outcome.manifest.version, "report.html").decode()
    assert "What each would have seen" not in page


def test_auto_takes_a_baseline_where_features_are_independent(tmp_path: Path) -> None:
    x_BF = np.random.default_rng(0).normal(size=(1200, 5)) * np.arange(1, 6)
    path = tmp_path / "noise.csv"
    path.write_text("\n".join(["a,b,c,d,e", *(",".join(map(repr, row)) for row in x_BF.tolist())]))
    said = io.StringIO()
    settings = machine.settings(tmp_path / "models", kind="auto", profile="machinery")
    outcome = job.run(settings, [path], Progress(said))
    assert outcome.promotion == "promoted", outcome.reasons
    assert outcome.manifest.kind in ("pca", "zchart")
    assert f"kind {outcome.manifest.kind} is taken" in said.getvalue()
    loaded = artifact.load(registry(tmp_path), outcome.manifest.version, torch.device("cpu"))
    assert Detector(loaded).score_history(machine.batch(x_BF[-100:])).anomalous_B.mean() < 0.2
