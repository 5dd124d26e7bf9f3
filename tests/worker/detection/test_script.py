"""A model without Python between its kernels says what it says with it."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.worker.untrained import CASES, made, readings
from worker.detection.model import Family
from worker.detection.reconstructor import BLOCK_ROWS
from worker.detection.script import scripted

WINDOW, FEATURES = 4, 7


@pytest.mark.parametrize(("kind", "family"), CASES)
@pytest.mark.parametrize("asked", [None, FEATURES])
def test_from_the_first_pass_on_every_pass_has_the_models_bits(kind: str, family: Family, asked: int | None) -> None:
    model = made(kind, family, FEATURES, WINDOW)
    said = scripted(model, torch.zeros(BLOCK_ROWS, WINDOW * FEATURES), asked)
    assert isinstance(said, torch.jit.ScriptFunction)
    for number in range(6):
        x_RD = readings(BLOCK_ROWS, WINDOW * FEATURES) + number
        x_RD[number, 0] = float("nan")
        with torch.inference_mode():
            assert torch.equal(said(x_RD).nan_to_num(9.0), model.predict(x_RD, asked).nan_to_num(9.0))


@pytest.mark.parametrize("fault", [RuntimeError("this torch cannot"), None])
def test_where_it_does_not_hold_the_model_speaks_itself(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fault: Exception | None
) -> None:
    def trace(passed: Any, example: tuple[Tensor], **_: object) -> Any:
        if fault is not None:
            raise fault
        return lambda x_RD: passed(x_RD) + 1e-6

    monkeypatch.setattr(torch.jit, "trace", trace)
    caplog.set_level(logging.DEBUG)
    model, x_RD = made("vae", "normal", FEATURES, WINDOW), readings(BLOCK_ROWS, WINDOW * FEATURES)
    said = scripted(model, torch.zeros_like(x_RD), FEATURES)
    with torch.inference_mode():
        assert torch.equal(said(x_RD), model.predict(x_RD, FEATURES))
    assert "not scripted" in caplog.text
