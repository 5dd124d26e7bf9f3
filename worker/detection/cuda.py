"""The CUDA side of the scorer: pinned buffers, one stream a lane, and the model's pass over a block as one graph.

A pass over a small block is a dozen kernels of a few microseconds, each launched from Python in as many; the graph is
one launch. A block of single readings is gathered by the host straight into pinned memory. Longer windows overlap, so
there each reading crosses to the card once, as the stack, and the card gathers the windows.

Legend: B windows, R rows of a block, K rows of the stack, W readings of a window, F features, D = W*F inputs,
N outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

from worker.detection.reconstructor import Reconstructor
from worker.detection.scorer import Task
from worker.records import F32, I64

LANES = 2                               # one is filled while the other works
WARM_UPS = 3                            # before a capture: libraries set themselves up at first use


@cache
def streams(on: torch.device) -> tuple[torch.cuda.Stream, ...]:
    """One for the stack and one a lane, for all models: cuBLAS keeps some 32 MB for each that it ever saw."""
    return tuple(torch.cuda.Stream(on) for _ in range(1 + LANES))  # type: ignore[no-untyped-call]


class Cuda:
    """One model's place on the card. What it holds there goes when it goes."""

    def __init__(self, model: Reconstructor, task: Task, on: torch.device) -> None:
        self.model, self.task, self.on = model, task, on
        self.sizes = (task.rows,)
        self.stack_KF: F32 = np.empty((0, task.features), np.float32)
        self.device_stack_KF = torch.empty(0, task.features, device=on)
        self.arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._pinned_KF = torch.empty(0, task.features)
        self._crossed = 0
        self._stream, *self._lane_streams = streams(on)

    def lanes(self) -> Sequence[CudaLane]:
        return [CudaLane(self, stream) for stream in self._lane_streams]

    def stack(self, stack_KF: F32) -> None:
        """No lane may be at work. The stack crosses as far as blocks need it, each time a little ahead of them."""
        self.stack_KF, self._crossed, length = stack_KF, 0, len(stack_KF)
        if self.task.window > 1 and len(self._pinned_KF) < length:
            capacity = 1 << (length - 1).bit_length()
            self._pinned_KF = torch.empty(capacity, self.task.features, pin_memory=True)
            self.device_stack_KF = torch.empty(capacity, self.task.features, device=self.on)
            torch.cuda.current_stream(self.on).synchronize()        # whoever had this memory before is done with it

    def cross(self, length: int) -> None:
        """So many rows of the stack are on the card, or on their way and `arrived` tells when they are there."""
        new = slice(self._crossed, length)
        if self._crossed < length:
            self._pinned_KF.numpy()[new] = self.stack_KF[new]
            with torch.cuda.stream(self._stream):
                self.device_stack_KF[new].copy_(self._pinned_KF[new], non_blocking=True)
                self.arrived.record()
            self._crossed = length

    def results(self, length: int) -> F32:
        """Pinned, so that the card writes here; torch keeps such memory for the next call when the array is gone."""
        return np.asarray(torch.empty(length, self.task.outputs, pin_memory=True).numpy(), np.float32)


class CudaLane:
    def __init__(self, cuda: Cuda, stream: torch.cuda.Stream) -> None:
        self._cuda, task = cuda, cuda.task
        rows, window = task.rows, task.window
        self._stream = stream
        self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._x_RD = torch.zeros(rows, task.inputs, device=cuda.on)
        if window == 1:
            self._host_RF = torch.zeros(rows, task.features, pin_memory=True)
        else:
            self._host_RW = torch.zeros(rows, window, dtype=torch.int32, pin_memory=True)
            self._index_RW = torch.zeros(rows, window, dtype=torch.int32, device=cuda.on)
        self.graph, self._xhat_RN = captured(cuda.model, self._x_RD, task, self._stream)

    @torch.inference_mode()
    def start(self, index_BW: I64, expected_BN: F32) -> None:
        length = len(index_BW)
        fill = self._fill if self._cuda.task.window == 1 else self._gather
        with torch.cuda.stream(self._stream):
            fill(index_BW, length)
            self.graph.replay()
            torch.from_numpy(expected_BN).copy_(self._xhat_RN[:length], non_blocking=True)
            self._done.record()

    def _fill(self, index_B1: I64, length: int) -> None:
        out_BF, stack_KF, index_B = self._host_RF.numpy()[:length], self._cuda.stack_KF, index_B1[:, 0]
        if (index_B[1:] - index_B[:-1] == 1).all():                 # as they come: half the cost
            out_BF[:] = stack_KF[index_B[0] : index_B[0] + length]
        else:
            np.take(stack_KF, index_B, axis=0, out=out_BF, mode="clip")
        self._x_RD[:length].copy_(self._host_RF[:length], non_blocking=True)

    def _gather(self, index_BW: I64, length: int) -> None:
        host_BW = self._host_RW.numpy()[:length]
        host_BW[:] = index_BW
        self._cuda.cross(int(host_BW.max()) + 1)
        self._index_RW[:length].copy_(self._host_RW[:length], non_blocking=True)
        self._stream.wait_event(self._cuda.arrived)
        flat_XF = self._x_RD[:length].view(-1, self._cuda.task.features)
        torch.index_select(self._cuda.device_stack_KF, 0, self._index_RW[:length].flatten(), out=flat_XF)

    def finish(self) -> None:
        self._done.synchronize()


@torch.inference_mode()
def captured(
    model: Reconstructor, x_RD: Tensor, task: Task, stream: torch.cuda.Stream
) -> tuple[torch.cuda.CUDAGraph, Tensor]:
    """The model's pass over x_RD as a graph, and where it leaves its result.

    By capture_begin and not torch.cuda.graph, which collects garbage first; thread_local, as another thread may be
    loading the next model meanwhile.
    """
    stream.wait_stream(torch.cuda.current_stream(x_RD.device))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.stream(stream):
        for _ in range(WARM_UPS):
            model.predict(x_RD, task.asked)
        stream.synchronize()
        graph.capture_begin(capture_error_mode="thread_local")
        xhat_RN = model.predict(x_RD, task.asked)
        graph.capture_end()
    return graph, xhat_RN
