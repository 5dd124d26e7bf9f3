from __future__ import annotations

import io

import numpy as np
import pytest
import torch

from tests.training import machine
from training.fitting import dataset, fit
from training.fitting.fit import Fitted, Inputs
from training.fitting.objective import ACTIVE_SHARE, ObjectiveSettings, explained_share, loss, weights_for
from training.fitting.profiles import PROFILES
from training.progress import Progress, Stopped
from training.reporting import outcome
from training.settings import TrainingSettings
from worker.detection.baselines import PCA, ZChart
from worker.detection.model import VAE
from worker.errors import TrainingError

CPU = torch.device("cpu")
QUICK = {"epochs": 4, "min_steps": 400, "latent": 4, "hidden": (32,)}


def inputs(n: int = 1500, seed: int = 0, missing: float = 0.0) -> Inputs:
    x_NF = machine.readings(n, seed)
    scaling = dataset.scaling_of(machine.readings(1500).astype(np.float32), "unit", machine.SENSORS)
    if missing:
        x_NF[np.random.default_rng(1).random(x_NF.shape) < missing] = np.nan
    return fit.inputs(machine.batch(x_NF), scaling, 1, None, CPU)


def in_step(n: int, sign: int) -> Inputs:
    """Four features that rise together; with sign -1 two of them fall instead."""
    swing_N1 = torch.linspace(-0.3, 0.3, n)[:, None]
    x_NF = 0.5 + swing_N1 * torch.tensor([1.0, sign, 1.0, sign])
    return Inputs(x_NF, torch.ones_like(x_NF, dtype=torch.bool), torch.arange(n)[:, None])


def fitted(
    train: Inputs | None = None,
    held: Inputs | None = None,
    progress: Progress | None = None,
    objective: ObjectiveSettings | None = None,
    **settings: object,
) -> Fitted:
    recipe = PROFILES["pointwise"]
    recipe = recipe._replace(objective=objective or recipe.objective)
    asked = TrainingSettings(**(QUICK | settings))  # type: ignore[arg-type]
    progress = progress or Progress(io.StringIO())
    return fit.fit(train or inputs(), held or inputs(300, seed=9), recipe, asked, CPU, progress)


def unexplained(model: torch.nn.Module, held: Inputs) -> float:
    x_ND = held.whole()
    with torch.no_grad():
        miss = x_ND - model.predict(x_ND)  # type: ignore[operator]
    return float(miss.square().mean() / (x_ND - x_ND.mean(0)).square().mean())


def test_it_learns_and_does_not_collapse() -> None:
    found = fitted(min_steps=1500)
    held = inputs(300, seed=9)
    assert unexplained(found.model, held) < 0.1
    assert isinstance(found.model, VAE)
    with torch.no_grad():
        assert (explained_share(*found.model.encode(held.whole()), 4) > ACTIVE_SHARE).sum() >= 2


def test_a_seed_repeats_a_run_and_leaves_torch_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, second, other = fitted(noise=0.05), fitted(noise=0.05), fitted(noise=0.05, seed=2)
    assert torch.equal(torch.rand(3), expected)
    for name, tensor in first.model.state_dict().items():
        assert torch.equal(tensor, second.model.state_dict()[name])
    assert first.looks == second.looks != other.looks


def test_the_rate_can_follow_the_batch() -> None:
    by_hand = fitted(batch_size=128, learning_rate=2e-3, epochs=2, min_steps=0)
    scaled = fitted(batch_size=128, learning_rate=1e-3, epochs=2, min_steps=0, scale_rate=True)
    as_it_is = fitted(batch_size=128, learning_rate=1e-3, epochs=2, min_steps=0)
    assert scaled.looks == by_hand.looks != as_it_is.looks


def test_it_stops_early_and_keeps_the_best() -> None:
    # It starts at the mean. What it learns of features that rise together is wrong of those that do not.
    train, held = in_step(32, +1), in_step(100, -1)
    objective = ObjectiveSettings(kl_weight=0.0)
    found = fitted(train, held, epochs=200, min_steps=0, objective=objective)
    assert found.steps < 200
    totals = [look.held_total for look in found.looks]
    assert found.best == int(np.argmin(totals))
    assert len(totals) - 1 - found.best == 3
    assert totals[-1] > 1.01 * totals[found.best]

    torch.manual_seed(1)                                # of the settings: the draws that the looks were taken with
    with torch.no_grad():
        out = found.model(held.whole())
        kept = loss(out, held.whole(), objective, weight_D=weights_for(objective, train.whole()))
    assert float(kept.total) == pytest.approx(totals[found.best], rel=1e-5)


def test_missing_values_are_not_learnt() -> None:
    assert unexplained(fitted(inputs(missing=0.2), min_steps=1500).model, inputs(300, seed=9)) < 0.2


def test_a_loss_that_is_no_number_ends_it() -> None:
    broken = inputs()
    broken.x_KF[3, 2] = torch.nan
    with pytest.raises(TrainingError, match="lower ZMU_TRAINING__LEARNING_RATE"):
        fitted(broken)


def test_it_can_be_stopped() -> None:
    with pytest.raises(Stopped):
        fitted(progress=Progress(io.StringIO(), stopping=lambda: True))


def test_baselines() -> None:
    pca, chart = fitted(kind="pca", explained=0.9), fitted(kind="zchart")
    assert isinstance(pca.model, PCA)
    assert pca.shape.latent == pca.model.components
    assert isinstance(chart.model, ZChart)


def test_plain_lines_where_there_is_no_terminal() -> None:
    out = io.StringIO()
    found = fitted(progress=Progress(out))
    lines = out.getvalue().splitlines()
    assert len(lines) == len(found.looks)
    assert lines[0].startswith("epoch ")
    assert "held out" in lines[-1]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    out = Terminal()
    with Progress(out).bar("training", 10) as bar:
        bar.advance(5)
        bar.note("epoch 1")
    assert "training" in out.getvalue()
    assert "\x1b[" in out.getvalue()


def test_what_each_verdict_says() -> None:
    assert set(outcome.SAID) == {"promoted", "refused", "waiting"}


def test_windows_that_are_full_are_learnt_from() -> None:
    batch = machine.batch(machine.readings(100))
    batch.timestamp_ms_B[50:] += 60_000
    scaling = dataset.scaling_of(batch.x_BF, "standard", machine.SENSORS)
    whole, parted = (fit.inputs(batch, scaling, 5, gap, CPU) for gap in (None, 10.0))
    assert len(whole) == 96
    assert len(parted) == 92
    x_ND, present_ND = whole.rows(torch.tensor([0]))
    np.testing.assert_allclose(x_ND.numpy().reshape(5, -1), scaling.scale(batch.x_BF[:5]))
    assert present_ND.all()
    with pytest.raises(TrainingError, match="lower ZMU_TRAINING__WINDOW"):
        fit.inputs(batch, scaling, 101, None, CPU)
