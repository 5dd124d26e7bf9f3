"""What a model expects of windows: from the host's memory and back into it, whatever device the model is on.

Blocks of a fixed number of rows go through two lanes in turn. While the device works on the block of one lane, the host
fills the other; before a lane is filled again, what it was working on is taken out. On the CPU a lane works while it
is filled, and nothing else differs.

Legend: B windows, R rows of a block, K rows of the stack, W readings of a window, F features, D = W*F inputs,
N of them, the last, that are answered.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import torch

from worker.detection.reconstructor import ALIGNMENT, BLOCK_ROWS, Reconstructor
from worker.detection.script import scripted
from worker.records import F32, I64

LANES = 2                               # one is filled while the other works

CUDA_ROWS = 1024, 32_768                # of a block: fewer leave the card idle, more make a short batch wait
CUDA_MULTIPLIED = 2**38                 # weights times rows of a block: some milliseconds of float32 products


class Task(NamedTuple):
    """What is asked of a model: always the same shapes, so that every row is added up in the same order."""

    window: int                         # W
    features: int                       # F
    newest: bool                        # whether only the newest reading of each window is answered
    rows: int                           # R

    @property
    def inputs(self) -> int:
        return self.window * self.features

    @property
    def outputs(self) -> int:
        return self.features if self.newest else self.inputs

    @property
    def asked(self) -> int | None:
        """Of Reconstructor.predict: None is all of it."""
        return None if self.outputs == self.inputs else self.outputs


class Lane(Protocol):
    """Buffers for one block, and the model's work on it."""

    def start(self, index_BW: I64, expected_BN: F32) -> None:
        """Begin with up to R windows of the stack; what comes of them goes to expected_BN, a part of results()."""

    def finish(self) -> None:
        """Wait until what was started is there."""


class Device(Protocol):
    def lane(self) -> Lane:
        """A new one, LANES at most."""

    def stack(self, stack_KF: F32) -> None:
        """The readings that the windows to come are made of; valid until the next call."""

    def results(self, length: int) -> F32:
        """A new array for so many windows, xhat_BN, in memory that the device writes to."""


class Scorer:
    """One model on its device. For one thread at a time: its lanes are its own."""

    def __init__(self, device: Device, task: Task) -> None:
        self.task, self._device = task, device
        self.lanes = [device.lane() for _ in range(LANES)]

    def expected(self, stack_KF: F32, index_BW: I64) -> F32:
        """Windows as rows of a stack → xhat_BN, bit-equal for a window whatever batch it comes in.

        stack_KF: scaled readings, contiguous, without NaN (one spoils the windows that it is in, and no other).
        """
        rows, length = self.task.rows, len(index_BW)
        expected_BN = self._device.results(length)
        self._device.stack(stack_KF)
        for number, start in enumerate(range(0, length, rows)):
            lane = self.lanes[number % LANES]
            lane.finish()
            lane.start(index_BW[start : start + rows], expected_BN[start : start + rows])
        for lane in self.lanes:
            lane.finish()
        return expected_BN


def scorer_of(
    model: Reconstructor, window: int, features: int, *, newest: bool = False, rows: int | None = None
) -> Scorer:
    """On the device that the model is on. newest: answer the newest reading of each window, and not all of it.

    rows: of a block; default by device and model. Raises ValueError where they are no multiple of 16.
    """
    tensors = list(model.state_dict().values())
    on = tensors[0].device
    rows = rows or (cuda_rows(sum(tensor.numel() for tensor in tensors)) if on.type == "cuda" else BLOCK_ROWS)
    if rows < 1 or rows % ALIGNMENT:
        raise ValueError(f"rows is {rows}; blocks need a multiple of {ALIGNMENT}")
    task = Task(window, features, newest, rows)
    if on.type == "cuda":
        from worker.detection.cuda import Cuda  # where there is none, nothing of it is loaded

        return Scorer(Cuda(model, task, on), task)
    return Scorer(Cpu(model, task), task)


def cuda_rows(weights: int) -> int:
    """A power of two within CUDA_ROWS."""
    least, most = CUDA_ROWS
    return max(least, min(most, 1 << max(CUDA_MULTIPLIED // weights, 1).bit_length() - 1))


class Cpu:
    """The host's memory is the device's; a lane is done when it has started."""

    def __init__(self, model: Reconstructor, task: Task) -> None:
        self.task = task
        self.predict = scripted(model, torch.zeros(task.rows, task.inputs), task.asked)
        self.stack_KF: F32 = np.empty((0, task.features), np.float32)

    def lane(self) -> CpuLane:
        return CpuLane(self)

    def stack(self, stack_KF: F32) -> None:
        self.stack_KF = stack_KF

    def results(self, length: int) -> F32:
        return np.empty((length, self.task.outputs), np.float32)


class CpuLane:
    def __init__(self, cpu: Cpu) -> None:
        self._cpu, task = cpu, cpu.task
        self._x_RD = torch.zeros(task.rows, task.inputs)        # torch's own memory: rows start where kernels like it
        self._x_RWF = self._x_RD.numpy().reshape(task.rows, task.window, task.features)

    @torch.inference_mode()
    def start(self, index_BW: I64, expected_BN: F32) -> None:
        length = len(index_BW)
        np.take(self._cpu.stack_KF, index_BW, axis=0, out=self._x_RWF[:length], mode="clip")
        self._x_RWF[length:] = 0.0
        xhat_RN = self._cpu.predict(self._x_RD)
        expected_BN[:] = xhat_RN[:length].numpy()

    def finish(self) -> None:
        """It is done already."""
