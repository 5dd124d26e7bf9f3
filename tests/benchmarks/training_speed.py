"""How fast a model is trained, beside a loop over a DataLoader as tutorials write it, and beside the machine's limits.

    python -m tests.benchmarks training [--device cuda] [--seconds 3] [--rounds 5] [--json FILE]

Both take steps in turn, for so many seconds each, rounds times over: a slow minute hits both. Medians are told.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch.utils.data import DataLoader, TensorDataset

from tests.benchmarks import figures, limits
from tests.benchmarks.limits import Limits
from tests.benchmarks.sizes import LARGE, SMALL, WIDE, WINDOWED, Size, readings
from training.fitting.fit import Inputs
from training.fitting.objective import ObjectiveSettings
from training.fitting.steps import TRACED_FROM, CudaSteps, Pace, Plan, Steps, steps_of
from worker.detection.model import VAE

LEARNING_RATE, KL_WEIGHT = 1e-3, 2.0
STEP_BYTES = 40                         # a weight: read forward and backward, gradient written; Adam reads 4, writes 3
CACHED_WEIGHTS = 2**21                  # and what Adam keeps of them: 32 MB, which caches hold
EPOCH = 100                             # batches
CASES_CPU = ((SMALL, 32), (SMALL, 256), (WINDOWED, 32), (WIDE, 32))
CASES_CUDA = ((SMALL, 32), (SMALL, 1024), (WINDOWED, 32), (LARGE, 32), (LARGE, 1024))


class Speed(NamedTuple):
    model: str
    batch: int
    step_us: float
    plain_us: float
    start_seconds: float                # until the first step is done: tracing, capture
    limit_us: float
    binds: str
    kernels: int                        # of a step, on a card


def ours(steps: Steps, windows: int) -> Iterator[None]:
    generator = torch.Generator().manual_seed(1)
    while True:
        steps.begin(torch.randperm(windows, generator=generator).to(steps.train.x_KF.device))
        for _ in range(windows // steps.plan.batch_size):
            steps.take()
            yield


def plain(size: Size, train: Inputs, batch: int) -> Iterator[None]:
    """Draws, loss and step as in training; nothing but what tutorials do."""
    device = train.x_KF.device
    model = VAE(size.shape).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    loader = DataLoader(TensorDataset(train.whole().cpu()), batch_size=batch, shuffle=True)
    total = 0.0
    while True:
        for (x_BD,) in loader:
            x_BD = x_BD.to(device)
            optimizer.zero_grad()
            out = model(x_BD)
            loss = ((x_BD - out.xhat_BD) ** 2).sum(-1).mean() + KL_WEIGHT * out.kl_B.mean()
            loss.backward()
            optimizer.step()
            total += loss.item()
            yield


def paced(steps: Iterator[None], seconds: float, finish: Callable[[], object]) -> float:
    """Seconds a step."""
    finish()
    start, taken = time.perf_counter(), 0
    while taken < 5 or time.perf_counter() - start < seconds:
        next(steps)
        taken += 1
        if taken % 64 == 0:
            finish()                    # a card takes orders faster than it works
    finish()
    return (time.perf_counter() - start) / taken


def measure(size: Size, batch: int, device: torch.device, at_best: Limits, seconds: float, rounds: int) -> Speed:
    train = readings(size, EPOCH * batch if size.shape.inputs < 10_000 else 20 * batch, device)
    torch.manual_seed(1)
    plan = Plan(
        ObjectiveSettings(kl_weight=KL_WEIGHT), None, 0.0, batch, 100 * TRACED_FROM,
        lambda _: Pace(LEARNING_RATE, KL_WEIGHT),
    )
    finish = torch.cuda.synchronize if device.type == "cuda" else int
    start = time.perf_counter()
    steps = steps_of(VAE(size.shape).to(device), train, plan)
    run, other = ours(steps, len(train)), plain(size, train, batch)
    next(run)
    finish()
    start_seconds = time.perf_counter() - start
    next(other)
    found = [(paced(run, seconds, finish), paced(other, seconds, finish)) for _ in range(rounds)]
    step, by_plain = (statistics.median(column) for column in zip(*found, strict=True))
    kernels = kernels_of(steps, batch) if isinstance(steps, CudaSteps) else 0
    bounds = {
        "products": 6 * size.products(newest=False) * batch / at_best.flops["float32"],
        "memory": STEP_BYTES * size.weights / at_best.memory_bytes if size.weights > CACHED_WEIGHTS else 0.0,
        "kernels in a row": kernels * at_best.kernel_seconds,
    }
    binds = max(bounds, key=lambda name: bounds[name])
    return Speed(
        size.name, batch, step * 1e6, by_plain * 1e6, start_seconds, bounds[binds] * 1e6, binds, kernels
    )


def kernels_of(steps: CudaSteps, batch: int) -> int:
    """How many kernels one step is."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA], acc_events=True) as seen:
        steps.work(batch)
        torch.cuda.synchronize()
    return sum(1 for event in seen.events() if event.device_type == torch.autograd.DeviceType.CUDA)


def table(found: Sequence[Speed]) -> str:
    lines = [
        "| model | batch | step µs | samples a second | DataLoader µs | ratio | start s | limit µs | of it | binds |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for speed in found:
        per_second = speed.batch / speed.step_us * 1e6
        cells = (
            speed.model, str(speed.batch), f"{speed.step_us:,.0f}", f"{per_second:,.0f}", f"{speed.plain_us:,.0f}",
            f"{speed.plain_us / speed.step_us:.1f}", f"{speed.start_seconds:.1f}", f"{speed.limit_us:,.2f}",
            f"{speed.limit_us / speed.step_us:.1%}", speed.binds,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(args: Sequence[str] | None = None) -> int:
    parser = figures.parser("training", __doc__)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args(args)
    torch.set_num_threads(1)
    at_best = limits.measured(asked.device)
    print(limits.described(asked.device, at_best))
    cases = CASES_CUDA if asked.device.type == "cuda" else CASES_CPU
    found = [measure(size, batch, asked.device, at_best, asked.seconds, asked.rounds) for size, batch in cases]
    print(table(found))
    figures.keep(asked.json, limits=at_best, speeds=found)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
