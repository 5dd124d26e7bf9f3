"""A model's pass over a block as a list of kernels, with no Python between them.

A block is 256 short rows: telling torch what to do next is a large part of what it costs. TorchScript goes through the
list without Python. torch.compile would too, and needs a C++ compiler and much longer to begin.

Legend: R rows of a block, D inputs, N outputs.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from worker.detection.reconstructor import Reconstructor

TRIALS = 4                              # TorchScript looks on for two passes, and may then change its list

Pass = Callable[[Tensor], Tensor]


@torch.inference_mode()
def scripted(model: Reconstructor, example_RD: Tensor, asked: int | None) -> Pass:
    """model.predict for blocks of this shape: the same calls in the same order, so the same bits. That is tried out;
    where it does not hold with this torch, it is model.predict itself.
    """

    def said(x_RD: Tensor) -> Tensor:
        return model.predict(x_RD, asked)

    try:
        script = _script(model, example_RD, asked)
        trial_RD = torch.randn(example_RD.shape, generator=torch.Generator().manual_seed(0))
        expected_RN = said(trial_RD)
        if not all(torch.equal(script(trial_RD), expected_RN) for _ in range(TRIALS)):
            raise ValueError("the script gives other numbers")
    except Exception:       # parts of torch that may change
        logging.getLogger(__name__).debug("the model is not scripted", exc_info=True)
        return said
    return script


def _script(model: Reconstructor, example_RD: Tensor, asked: int | None) -> Pass:
    fixed = without_gradients(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")                         # TorchScript is called deprecated
        script: Pass = torch.jit.trace(  # type: ignore[no-untyped-call]
            lambda x_RD: fixed.predict(x_RD, asked), (example_RD,), check_trace=False
        )
    return script


def without_gradients(model: Reconstructor) -> Reconstructor:
    """The same model on the same memory, its weights no longer to be learnt: a script takes no others."""
    fixed = {id(weight): nn.Parameter(weight.detach(), requires_grad=False) for weight in model.parameters()}
    return copy.deepcopy(model, fixed)
