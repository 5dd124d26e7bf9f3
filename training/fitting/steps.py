"""Step after step of Adam, with nothing of Python between that the arithmetic does not need.

A batch is 32 readings and the model is small: what costs is not the arithmetic but telling torch, a hundred times a
step, what to do next. So the list of what is to be done is made once. On the CPU it is the calls that a step makes of
torch's kernels, forward, loss and backward, which an interpreter without Python then goes through; on CUDA it is a
graph of the whole step. Either makes the same calls in the same order as a step written out, and so the same weights.

Legend: B batch, N windows, S steps, D inputs of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.func import functional_call

from training import ranks
from training.fitting.objective import ObjectiveSettings, loss
from training.fitting.tracing import Batch, Gradients, traced
from worker.detection.model import VAE
from worker.errors import TrainingError

TRACED_FROM = 200                       # steps that pay for the tracing, which takes as long as a hundred
GATHERED_BYTES = 2**24                  # of batches that are picked from the readings at once
WARM_UPS = 3                            # steps before a capture, undone: libraries set themselves up at first use


class Rows(Protocol):
    """What is learnt from, on the device."""

    @property
    def x_KF(self) -> Tensor: ...

    @property
    def index_NW(self) -> Tensor: ...

    @property
    def complete(self) -> bool:
        """Whether no value is missing."""

    def rows(self, index_N: Tensor) -> tuple[Tensor, Tensor]:
        """x_ND, present_ND"""


class Pace(NamedTuple):
    """Of one step."""

    learning_rate: float
    kl_weight: float


class Plan(NamedTuple):
    """What is the same for all steps."""

    objective: ObjectiveSettings
    weight_D: Tensor | None             # of squared errors; None: all the same
    noise: float
    batch_size: int
    steps: int
    pace: Callable[[int], Pace]         # by step


class Adam:
    """torch's fused Adam without what torch.optim.Adam does around it at every step, which costs ten times as much."""

    def __init__(self, weights: list[Tensor]) -> None:
        self._weights = weights
        self._means = [torch.zeros_like(weight) for weight in weights]
        self._squares = [torch.zeros_like(weight) for weight in weights]
        self._count = torch.zeros((), device=weights[0].device)
        self._counts = [self._count] * len(weights)

    def step(self, gradients: list[Tensor], learning_rate: float | Tensor) -> None:
        self._count += 1
        gradients = [gradient.contiguous() for gradient in gradients]       # on the CPU it takes them for that
        torch._fused_adam_(
            self._weights, gradients, self._means, self._squares, [], self._counts, lr=learning_rate,
            beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0, amsgrad=False, maximize=False,
        )

    @property
    def state(self) -> list[Tensor]:
        return [*self._weights, *self._means, *self._squares, self._count]


class Steps:
    """On the CPU. `sums` is of reconstruction and KL, over the steps since it was last set to 0."""

    def __init__(self, model: VAE, train: Rows, plan: Plan) -> None:
        self.train, self.plan = train, plan
        self._columns = 1 if train.complete else 2              # of a batch
        self.weights: list[Tensor] = list(model.parameters())
        self.sums = torch.zeros(2, device=train.x_KF.device)
        self.adam = Adam([weight.detach() for weight in self.weights])
        self.gradients = gradients_of(model, plan)
        self._traced: Gradients | None = None
        self._taken = 0
        self._ahead: Iterator[Batch] = iter(())

    def begin(self, order_N: Tensor) -> None:
        """An epoch, in this order."""
        if not self._taken and self.plan.steps >= TRACED_FROM:
            self._traced = traced(self.gradients, self.weights, next(self._batches(order_N)))
        self._ahead = self._batches(order_N)

    @torch.no_grad()
    def take(self) -> None:
        """The epoch's next step."""
        pace = self.plan.pace(self._taken)
        *by_weight, told = self._gradients_of_next(pace)
        self.adam.step(by_weight, pace.learning_rate)
        self.sums += told
        self._taken += 1

    def _gradients_of_next(self, pace: Pace) -> tuple[Tensor, ...]:
        batch = next(self._ahead)
        full = len(batch[0]) == self.plan.batch_size            # an epoch's last batch may be smaller
        gradients = self._traced if self._traced is not None and full else self.gradients
        return gradients(self.weights, pace.kl_weight, batch)

    def _batches(self, order_N: Tensor) -> Iterator[Batch]:
        size = self.plan.batch_size
        bytes_each = self.train.index_NW.shape[1] * self.train.x_KF.shape[1] * 4
        at_once = max(1, GATHERED_BYTES // (size * bytes_each))
        for index_X in torch.split(order_N, size * at_once):
            columns = self.train.rows(index_X)[: self._columns]
            yield from zip(*(torch.split(column, size) for column in columns), strict=True)


class SharedSteps(Steps):
    """Of several processes: each takes its share of every batch, and all step by the gradient of the whole batch."""

    def __init__(self, model: VAE, train: Rows, plan: Plan) -> None:
        self._batch_size, self._left = plan.batch_size, 0
        if plan.batch_size < ranks.size():
            raise TrainingError(
                f"a batch of {plan.batch_size} readings cannot be shared by {ranks.size()} processes; raise "
                "ZMU_TRAINING__BATCH_SIZE or start fewer"
            )
        share = len(ranks.share(range(plan.batch_size)))
        super().__init__(model, train, plan._replace(batch_size=share))

    def begin(self, order_N: Tensor) -> None:
        self._left = len(order_N)
        super().begin(torch.cat([ranks.share(batch) for batch in torch.split(order_N, self._batch_size)]))

    def _gradients_of_next(self, pace: Pace) -> tuple[Tensor, ...]:
        size = min(self._batch_size, self._left)
        self._left -= size
        ours = len(ranks.share(range(size)))                    # none, where there are more of us than readings
        found = super()._gradients_of_next(pace) if ours else tuple(map(torch.zeros_like, (*self.weights, self.sums)))
        parts = [part * (ours / size) for part in found]
        ranks.summed(parts)
        return tuple(parts)


class CudaSteps(Steps):
    """A step is one launch: its graph finds the batch's place in the epoch, the rows and the rates by itself."""

    def __init__(self, model: VAE, train: Rows, plan: Plan) -> None:
        super().__init__(model, train, plan)
        device = train.x_KF.device
        self._order_N = torch.zeros(len(train.index_NW), dtype=torch.int64, device=device)
        self._place = torch.zeros(1, dtype=torch.int64, device=device)
        self._step = torch.zeros(1, dtype=torch.int64, device=device)
        self._pace_S2 = torch.tensor([plan.pace(step) for step in range(plan.steps)], device=device)
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self._left = 0

    def begin(self, order_N: Tensor) -> None:
        self._order_N.copy_(order_N)
        self._place.zero_()
        self._left = len(order_N)

    def take(self) -> None:
        size = min(self.plan.batch_size, self._left)            # an epoch's last batch may be smaller
        if size not in self._graphs:
            self._graphs[size] = self._captured(size)
        self._graphs[size].replay()
        self._left -= size

    def work(self, size: int) -> None:
        """One step, of tensors alone: nothing here may wait for the device."""
        place_B = self._place + torch.arange(size, device=self._place.device)
        batch = self.train.rows(self._order_N.index_select(0, place_B))[: self._columns]
        learning_rate, kl_weight = self._pace_S2.index_select(0, self._step)[0].unbind()
        *by_weight, told = self.gradients(self.weights, kl_weight, batch)
        self.adam.step(by_weight, learning_rate)
        self.sums += told
        self._place += size
        self._step += 1

    def _captured(self, size: int) -> torch.cuda.CUDAGraph:
        device = self._place.device
        state = [*self.adam.state, self.sums, self._place, self._step]
        before = [tensor.clone() for tensor in state]
        with torch.random.fork_rng(devices=[device]):
            stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            stream.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(stream):
                for _ in range(WARM_UPS):
                    self._place.zero_()
                    self._step.zero_()
                    self.work(size)
            torch.cuda.current_stream(device).wait_stream(stream)
        for tensor, kept in zip(state, before, strict=True):
            tensor.copy_(kept)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.work(size)
        return graph


def steps_of(model: VAE, train: Rows, plan: Plan) -> Steps:
    if ranks.size() > 1:
        return SharedSteps(model, train, plan)
    return (CudaSteps if train.x_KF.is_cuda else Steps)(model, train, plan)


def gradients_of(model: VAE, plan: Plan) -> Gradients:
    """Forward, loss and backward as they are written."""
    names = [name for name, _ in model.named_parameters()]

    def gradients(weights: list[Tensor], kl_weight: float | Tensor, batch: Batch) -> tuple[Tensor, ...]:
        x_BD, present_BD = batch if len(batch) == 2 else (batch[0], None)
        with torch.enable_grad():
            seen_BD = x_BD + plan.noise * torch.randn_like(x_BD) if plan.noise else x_BD
            out = functional_call(model, dict(zip(names, weights, strict=True)), (seen_BD,))
            terms = loss(
                out, x_BD, plan.objective, weight_D=plan.weight_D, present_BD=present_BD, kl_weight=kl_weight
            )
            found = torch.autograd.grad(terms.total, weights)
        return *found, torch.stack([terms.reconstruction.detach(), terms.kl.detach()])

    return gradients
