"""What a model expects of windows: from the host's memory and back into it, whatever device the model is on.

Blocks of a fixed number of rows go through lanes in turn. While the device works on the block of one lane, the host
fills another; before a lane is filled again, what it was working on is taken out. On the CPU each lane is a thread, the
last one the caller's own, and blocks have up to three sizes: telling torch what to do next costs as much for many rows
as for few, so many windows go through in large blocks; and the few of a quiet topic's batch bring few empty rows.

Legend: B windows, R rows of a block, K rows of the stack, W readings of a window, F features, D = W*F inputs,
N of them, the last, that are answered.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import cache
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from worker import threads
from worker.detection.reconstructor import ALIGNMENT, BLOCK_ROWS, Reconstructor
from worker.detection.script import Pass, scripted
from worker.records import F32, I64

CPU_ROWS = BLOCK_ROWS, 2048             # of a block; past these there is nothing to gain
CPU_FEW = 32                            # rows of the least: fewer cost hardly less
CPU_NUMBERS = 2**18                     # of a layer's result for a block: with more, rows cost more again
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
        """Begin with windows of the stack: one of blocks().

        What comes of them goes to expected_BN, a part of results().
        """

    def finish(self) -> None:
        """Wait until what was started is there."""


class Device(Protocol):
    @property
    def sizes(self) -> Sequence[int]:
        """Rows of a block, the most first. A window gets the same bits in each."""

    def lanes(self) -> Sequence[Lane]:
        """New ones, as many as work at once. A batch's last block goes to the last of them, its only one too."""

    def stack(self, stack_KF: F32) -> None:
        """The readings that the windows to come are made of; valid until the next call."""

    def results(self, length: int) -> F32:
        """A new array for so many windows, xhat_BN, in memory that the device writes to."""


class Scorer:
    """One model on its device. For one thread at a time: its lanes are its own."""

    def __init__(self, device: Device, task: Task) -> None:
        self.task, self._device = task, device
        self.lanes = device.lanes()

    def expected(self, stack_KF: F32, index_BW: I64) -> F32:
        """Windows as rows of a stack → xhat_BN, bit-equal for a window whatever batch it comes in.

        stack_KF: scaled readings, contiguous, without NaN (one spoils the windows that it is in, and no other).
        """
        expected_BN = self._device.results(len(index_BW))
        self._device.stack(stack_KF)
        cut = list(blocks(len(index_BW), self._device.sizes))
        with ExitStack() as leaving:            # whatever comes, no lane is at work afterwards
            for lane in self.lanes:
                leaving.callback(lane.finish)
            for number, block in enumerate(cut, start=-len(cut)):
                lane = self.lanes[number % len(self.lanes)]
                lane.finish()
                lane.start(index_BW[block], expected_BN[block])
        return expected_BN


def scorer_of(
    model: Reconstructor, window: int, features: int, *, newest: bool = False, rows: int | None = None
) -> Scorer:
    """On the device that the model is on. newest: answer the newest reading of each window, and not all of it.

    rows: of a block; default by device and model. Raises ValueError where they are no multiple of 16.
    """
    tensors = list(model.state_dict().values())
    on = tensors[0].device
    others = () if rows else (cpu_rows(max(max(tensor.shape, default=1) for tensor in tensors)), CPU_FEW)
    rows = rows or (cuda_rows(sum(tensor.numel() for tensor in tensors)) if on.type == "cuda" else BLOCK_ROWS)
    if rows < 1 or rows % ALIGNMENT:
        raise ValueError(f"rows is {rows}; blocks need a multiple of {ALIGNMENT}")
    task = Task(window, features, newest, rows)
    if on.type == "cuda":
        from worker.detection.cuda import Cuda  # where there is none, nothing of it is loaded

        return Scorer(Cuda(model, task, on), task)
    return Scorer(Cpu(model, task, others), task)


def blocks(length: int, sizes: Sequence[int]) -> Iterator[slice]:
    """Whole ones, the most first, and what remains in the least that holds it. Of several sizes, the least is for that
    alone: one block with empty rows costs less than many small ones.
    """
    start = 0
    while start < length:
        left = length - start
        rows = next((rows for rows in sizes[:-1] if rows <= left), None) or held(left, sizes)
        yield slice(start, min(start + rows, length))
        start += rows


def held(windows: int, sizes: Sequence[int]) -> int:
    """The least size that holds so many; the most where none does."""
    return next((rows for rows in reversed(sizes) if rows >= windows), sizes[0])


def cpu_rows(widest: int) -> int:
    """The most of a block, for a model whose widest layer has so many numbers: a power of two within CPU_ROWS."""
    return _power_of_two(CPU_NUMBERS // widest, CPU_ROWS)


def cuda_rows(weights: int) -> int:
    """A power of two within CUDA_ROWS."""
    return _power_of_two(CUDA_MULTIPLIED // weights, CUDA_ROWS)


def _power_of_two(rows: int, within: tuple[int, int]) -> int:
    least, most = within
    return max(least, min(most, 1 << max(rows, 1).bit_length() - 1))


class Cpu:
    """The host's memory is the device's."""

    def __init__(self, model: Reconstructor, task: Task, others: Sequence[int] = ()) -> None:
        """others: rows of further blocks, multiples or parts of R; of use where windows get the same bits in them."""
        self.task = task
        self.stack_KF: F32 = np.empty((0, task.features), np.float32)
        tried = {rows: scripted(model, torch.zeros(rows, task.inputs), task.asked) for rows in {task.rows, *others}}
        ours = task.rows, tried[task.rows]
        self._passes = {rows: its for rows, its in tried.items() if _same_bits(ours, (rows, its), task.inputs)}
        self.sizes = tuple(sorted(self._passes, reverse=True))

    def predict(self, x_RD: Tensor) -> Tensor:
        """A whole block of one of the sizes."""
        return self._passes[len(x_RD)](x_RD)

    def lanes(self) -> Sequence[CpuLane]:
        return [*(ThreadLane(self) for _ in range(threads.most() - 1)), CpuLane(self)]

    def stack(self, stack_KF: F32) -> None:
        self.stack_KF = stack_KF

    def results(self, length: int) -> F32:
        return np.empty((length, self.task.outputs), np.float32)


class CpuLane:
    """Done when it has started: the caller's thread does the work."""

    def __init__(self, cpu: Cpu) -> None:
        self._cpu, task = cpu, cpu.task
        self._x_RD = torch.zeros(cpu.sizes[0], task.inputs)     # torch's own memory: rows start where kernels like it
        self._x_RWF = self._x_RD.numpy().reshape(-1, task.window, task.features)

    @torch.inference_mode()
    def start(self, index_BW: I64, expected_BN: F32) -> None:
        length = len(index_BW)
        rows = held(length, self._cpu.sizes)
        np.take(self._cpu.stack_KF, index_BW, axis=0, out=self._x_RWF[:length], mode="clip")
        self._x_RWF[length:rows] = 0.0
        xhat_RN = self._cpu.predict(self._x_RD[:rows])
        expected_BN[:] = xhat_RN[:length].numpy()

    def finish(self) -> None:
        """It is done already."""


@cache
def pool() -> ThreadPoolExecutor:
    """Of the whole process. Each thread tells torch that it is to be alone with its block: else a product in a thread
    that torch has not seen yet may start as many threads as the machine has cores.
    """
    others = threads.most() - 1
    return ThreadPoolExecutor(others, "arithmetic", initializer=torch.set_num_threads, initargs=(1,))


class ThreadLane(CpuLane):
    """A thread of the pool does the work."""

    _work: Future[None] | None = None

    def start(self, index_BW: I64, expected_BN: F32) -> None:
        self._work = pool().submit(super().start, index_BW, expected_BN)

    def finish(self) -> None:
        work, self._work = self._work, None
        if work is not None:
            work.result()


@torch.inference_mode()
def _same_bits(one: tuple[int, Pass], other: tuple[int, Pass], inputs: int) -> bool:
    """Of two blocks, each its rows and its pass. Kernels are chosen by shape and alignment, and not by what is
    multiplied, so one trial tells of every block.
    """
    x_BD = torch.randn(max(one[0], other[0]), inputs, generator=torch.Generator().manual_seed(0))
    ours_BN, theirs_BN = (
        torch.cat([its(part_RD) for part_RD in torch.split(x_BD, rows)]) for rows, its in (one, other)
    )
    return torch.equal(ours_BN, theirs_BN)
