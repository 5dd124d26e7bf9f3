"""A model without Python between its kernels says what it says with it."""

from __future__ import annotations

import copy
import gc
import logging
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from tests.worker.untrained import CASES, made, readings
from worker.detection import script
from worker.detection.model import VAE, Family, Shape
from worker.detection.reconstructor import BLOCK_ROWS
from worker.detection.script import scripted

WINDOW, FEATURES = 4, 7


@pytest.mark.parametrize(("kind", "family"), CASES)
@pytest.mark.parametrize("asked", [None, FEATURES])
def test_from_the_first_pass_on_every_pass_has_the_models_bits(
    caplog: pytest.LogCaptureFixture, kind: str, family: Family, asked: int | None
) -> None:
    caplog.set_level(logging.DEBUG)
    model = made(kind, family, FEATURES, WINDOW)
    said = scripted(model, torch.zeros(BLOCK_ROWS, WINDOW * FEATURES), asked)
    assert "not scripted" not in caplog.text
    for number in range(6):
        x_RD = readings(BLOCK_ROWS, WINDOW * FEATURES) + number
        x_RD[number, 0] = float("nan")
        with torch.inference_mode():
            assert torch.equal(said(x_RD).nan_to_num(9.0), model.predict(x_RD, asked).nan_to_num(9.0))


@pytest.mark.parametrize(("kind", "family"), CASES)
def test_models_of_a_kind_share_a_list_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kind: str, family: Family
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(script, "_lists", {})
    example_RD, x_RD = torch.zeros(32, WINDOW * FEATURES), readings(32, WINDOW * FEATURES)
    first = made(kind, family, FEATURES, WINDOW)
    said = scripted(first, example_RD, FEATURES)
    second = copy.deepcopy(first)
    with torch.inference_mode():
        for weight in (*second.parameters(), *second.buffers()):
            weight.mul_(1.5)
    other = scripted(second, example_RD, FEATURES)
    assert len(script._lists) == 1
    assert "not scripted" not in caplog.text
    with torch.inference_mode():
        assert torch.equal(said(x_RD), first.predict(x_RD, FEATURES))
        assert torch.equal(other(x_RD), second.predict(x_RD, FEATURES))
        assert not torch.equal(said(x_RD), other(x_RD))
    scripted(first, torch.zeros(16, WINDOW * FEATURES), FEATURES)
    assert len(script._lists) == 2
    memory = [StorageWeakRef(weight.untyped_storage()) for weight in first.state_dict().values()]
    gone = weakref.ref(first)
    del first, said
    gc.collect()
    assert gone() is None
    assert all(one.expired() for one in memory)


def test_models_that_only_their_numbers_of_classes_tell_apart_are_of_two_kinds(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(script, "_lists", {})
    for latent, classes in ((3, 4), (4, 3)):
        shape = Shape(features=FEATURES, window=WINDOW, latent=latent, classes=classes, family="categorical")
        scripted(VAE(shape), torch.zeros(32, WINDOW * FEATURES), FEATURES)
    assert len(script._lists) == 2
    assert "not scripted" not in caplog.text


@pytest.mark.parametrize("fault", [RuntimeError("this torch cannot"), None])
def test_where_it_does_not_hold_the_model_speaks_itself(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fault: Exception | None
) -> None:
    def trace(passed: Any, example: tuple[Tensor], **_: object) -> Any:
        if fault is not None:
            raise fault
        return lambda *given: passed(*given) + 1e-6

    monkeypatch.setattr(torch.jit, "trace", trace)
    monkeypatch.setattr(script, "_lists", {})
    caplog.set_level(logging.DEBUG)
    model, x_RD = made("vae", "normal", FEATURES, WINDOW), readings(BLOCK_ROWS, WINDOW * FEATURES)
    said = scripted(model, torch.zeros_like(x_RD), FEATURES)
    with torch.inference_mode():
        assert torch.equal(said(x_RD), model.predict(x_RD, FEATURES))
    assert "not scripted" in caplog.text
