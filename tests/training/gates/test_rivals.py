"""The baselines beside the model: which are fitted, who is ahead, and what an operator is told."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from training.fitting.fit import Inputs
from training.gates import gate, rivals
from training.gates.trial import Seen
from training.progress import Progress
from training.settings import TrainingSettings


def seen(detected: float) -> Seen:
    return Seen(trials=320, detected=detected, detected_by={"spike": detected}, named=None, false_alarms=0.1)


def windows(n: int) -> Inputs:
    return Inputs(torch.zeros(n + 1, 2), torch.ones(n + 1, 2, dtype=torch.bool), torch.arange(n)[:, None])


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("vae", ["vae", "pca", "zchart"]),
        ("auto", ["vae", "pca", "zchart"]),
        ("pca", ["pca", "zchart"]),
        ("zchart", ["zchart", "pca"]),
    ],
)
def test_the_model_asked_for_comes_first(kind: str, expected: list[str]) -> None:
    assert rivals.kinds(TrainingSettings.model_validate({"kind": kind}), 100) == expected


def test_none_beside_it_by_setting_and_no_pca_of_very_many_inputs() -> None:
    assert rivals.kinds(TrainingSettings(kind="pca", rivals=False), 100) == ["pca"]
    assert rivals.kinds(TrainingSettings(), rivals.WIDEST + 1) == ["vae", "zchart"]
    assert rivals.kinds(TrainingSettings(kind="pca"), rivals.WIDEST + 1) == ["pca", "zchart"]


def test_auto_without_rivals_has_nothing_to_choose_from() -> None:
    with pytest.raises(ValidationError, match="set rivals to true, or name a kind"):
        TrainingSettings(kind="auto", rivals=False)


def test_a_sample_is_bounded_and_spread_over_all() -> None:
    assert len(rivals.sample(windows(900))) == 900
    kept = rivals.sample(windows(25_000)).index_NW[:, 0].numpy()
    assert 8_000 < len(kept) <= rivals.WINDOWS
    assert kept[-1] > 24_990
    assert len(set(np.diff(kept).tolist())) == 1


def test_the_vae_wins_what_is_nearly_a_tie() -> None:
    ahead, behind = {"pca": seen(0.5 + 0.9 * gate.NOTABLE)}, {"pca": seen(0.5 + 1.1 * gate.NOTABLE)}
    assert rivals.ranked({"vae": seen(0.5), **ahead, "zchart": seen(0.1)}) == ["vae", "pca", "zchart"]      # type: ignore[dict-item]
    assert rivals.ranked({"vae": seen(0.5), **behind, "zchart": seen(0.1)}) == ["pca", "vae", "zchart"]     # type: ignore[dict-item]
    assert rivals.ranked({"vae": seen(0.0), "pca": seen(0.3), "zchart": seen(0.31)})[0] == "zchart"


def test_what_a_baseline_does_better_is_said_and_refuses_nothing() -> None:
    found = gate.earns_its_keep("vae", {"vae": 0.3, "pca": 0.62, "zchart": 0.4})
    assert found.passed
    assert found.value == pytest.approx(-0.32)
    for said in ("vae notices 30%", "pca 62%", "ZMU_TRAINING__KIND=pca"):
        assert said in found.detail
    close = gate.earns_its_keep("vae", {"vae": 0.6, "pca": 0.62})
    assert "KIND=" not in close.detail
    assert gate.earns_its_keep("zchart", {"zchart": 0.6, "pca": 0.2}).value == pytest.approx(0.4)


def test_one_kind_alone_is_not_compared() -> None:
    said = io.StringIO()
    assert rivals.compared({"vae": None}, None, 1, Progress(said)) == {}    # type: ignore[arg-type,dict-item]
    assert said.getvalue() == ""
    assert rivals.figures({}) == {}


def test_figures_are_numbers_by_kind() -> None:
    assert rivals.figures({"pca": seen(0.25)}) == {
        "rival.trials": 320.0,
        "rival.pca.detected": 0.25,
        "rival.pca.false_alarms": 0.1,
        "rival.pca.detected.spike": 0.25,
    }
