"""A model's pass over a block as a list of kernels, with no Python between them.

A block is 256 short rows: telling torch what to do next is a large part of what it costs. TorchScript goes through the
list without Python. torch.compile would too, and needs a C++ compiler and much longer to begin.

torch never forgets a script. So weights are no part of it: a list serves every model of its kind, and a worker that has
taken a thousand of them has kept one.

Legend: R rows of a block, D inputs, N outputs.
"""

from __future__ import annotations

import copy
import logging
import threading
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from worker.detection.reconstructor import Reconstructor

TRIALS = 4                              # TorchScript looks on for two passes, and may then change its list

Pass = Callable[[Tensor], Tensor]
_lists: dict[tuple[Any, ...], Callable[..., Tensor]] = {}       # by kind of model
_one_at_a_time = threading.Lock()


@torch.inference_mode()
def scripted(model: Reconstructor, example_RD: Tensor, asked: int | None) -> Pass:
    """model.predict for blocks of this shape: the same calls in the same order, so the same bits. That is tried out;
    where it does not hold with this torch, it is model.predict itself.
    """

    def said(x_RD: Tensor) -> Tensor:
        return model.predict(x_RD, asked)

    try:
        weights = tuple(tensor.detach() for tensor in _tensors(model).values())
        kind = _kind(model, example_RD, asked)
        with _one_at_a_time:
            if kind not in _lists:
                _lists[kind] = _listed(model, example_RD, asked, weights)
        kernels = _lists[kind]

        def script(x_RD: Tensor) -> Tensor:
            return kernels(x_RD, *weights)

        trial_RD = torch.randn(example_RD.shape, generator=torch.Generator().manual_seed(0))
        expected_RN = said(trial_RD)
        if not all(torch.equal(script(trial_RD), expected_RN) for _ in range(TRIALS)):
            raise ValueError("the script gives other numbers")
    except Exception:       # parts of torch that may change
        logging.getLogger(__name__).debug("the model is not scripted", exc_info=True)
        return said
    return script


def _listed(
    model: Reconstructor, example_RD: Tensor, asked: int | None, weights: tuple[Tensor, ...]
) -> Callable[..., Tensor]:
    """What the model does with an input and with weights that are inputs, too."""
    blank = _without_weights(model)                             # torch.jit keeps what it has traced
    places = [(blank.get_submodule(owner), name) for owner, _, name in (n.rpartition(".") for n in _tensors(model))]

    def predict(x_RD: Tensor, *weights: Tensor) -> Tensor:
        for (module, name), weight in zip(places, weights, strict=True):
            setattr(module, name, weight)
        try:
            return blank.predict(x_RD, asked)
        finally:
            for module, name in places:
                delattr(module, name)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")                         # TorchScript is called deprecated
        traced: Callable[..., Tensor] = torch.jit.trace(  # type: ignore[no-untyped-call]
            predict, (example_RD, *weights), check_trace=False
        )
    return traced


def _without_weights(model: Reconstructor) -> Reconstructor:
    blank = copy.deepcopy(model, {id(tensor): None for tensor in _tensors(model).values()})
    for module in blank.modules():
        module._parameters.clear()
        module._buffers.clear()
    return blank


def _tensors(model: Reconstructor) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _kind(model: Reconstructor, example_RD: Tensor, asked: int | None) -> tuple[Any, ...]:
    """What decides which kernels a pass calls: shapes, and whatever else of a module its repr must tell."""
    shapes = tuple((name, tuple(tensor.shape), tensor.dtype) for name, tensor in _tensors(model).items())
    return type(model), repr(model), shapes, tuple(example_RD.shape), asked
