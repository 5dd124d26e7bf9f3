"""How fast a GPU scores, from the host's rows to the host's rows and on the card alone, beside the limits of both.

    python -m tests.benchmarks gpu [--json FILE]

The models are taught for a moment first, so that what tf32 does to scores is what it does to those of a model that
knows its readings. A limit is the time that one part would take if nothing else took any; the largest one binds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from tests.benchmarks import figures, limits
from tests.benchmarks.limits import Kind, Limits
from tests.benchmarks.sizes import LARGE, SMALL, WINDOWED, Size, readings
from training.fitting.objective import ObjectiveSettings
from training.fitting.steps import Pace, Plan, steps_of
from worker.detection.cuda import CudaLane
from worker.detection.model import VAE
from worker.detection.scorer import Scorer, scorer_of
from worker.records import F32, I64

CASES = ((SMALL, 2_000_000), (SMALL, 4096), (WINDOWED, 500_000), (LARGE, 40_960), (LARGE, 4096))    # windows at once
TAUGHT_STEPS, TAUGHT_BATCH, TAUGHT_WINDOWS, KL_WEIGHT = 600, 256, 10_240, 0.01


class Speed(NamedTuple):
    model: str
    kind: Kind
    windows: int                        # at once
    per_second: float                   # from host to host
    limit_per_second: float
    binds: str
    on_card_per_second: float
    on_card_limit_per_second: float
    on_card_binds: str


def taught(size: Size, device: torch.device) -> VAE:
    train = readings(size, TAUGHT_WINDOWS, device)
    torch.manual_seed(1)
    model = VAE(size.shape).to(device)
    plan = Plan(ObjectiveSettings(), None, 0.0, TAUGHT_BATCH, TAUGHT_STEPS, lambda _: Pace(1e-3, KL_WEIGHT))
    steps = steps_of(model, train, plan)
    for taken in range(TAUGHT_STEPS):
        if taken % (TAUGHT_WINDOWS // TAUGHT_BATCH) == 0:
            steps.begin(torch.randperm(TAUGHT_WINDOWS, device=device))
        steps.take()
    torch.cuda.synchronize()
    return model.eval()


def measure(size: Size, model: VAE, windows: int, kind: Kind, device: torch.device, at_best: Limits) -> Speed:
    shape = size.shape
    asked = readings(size, windows, torch.device("cpu"))
    stack_KF, index_BW = asked.x_KF.numpy(), asked.index_NW.numpy()
    with limits.products(tf32=kind == "tf32"):
        scorer = scorer_of(model, shape.window, shape.features, newest=True)
    whole = limits.seconds_of(lambda: scorer.expected(stack_KF, index_BW), torch.device("cpu")) / windows
    block = block_seconds(scorer, device) / scorer.task.rows
    row_bytes, index_bytes = 4 * shape.features, 4 * shape.window if shape.window > 1 else 0
    sent = row_bytes * len(stack_KF) / windows + index_bytes
    on_card = {
        "products": 2 * size.products(newest=True) / at_best.flops[kind],
        "memory": (4 * shape.inputs + row_bytes + 4 * size.weights / scorer.task.rows) / at_best.memory_bytes,
    }
    parts = on_card | {
        "link": max(sent / at_best.to_device_bytes, row_bytes / at_best.from_device_bytes),
        "host copy": sent / at_best.host_bytes,
    }
    first, first_on_card = (max(bounds, key=lambda name: bounds[name]) for bounds in (parts, on_card))
    return Speed(
        size.name, kind, windows, 1 / whole, 1 / parts[first], first,
        1 / block, 1 / on_card[first_on_card], first_on_card,
    )


def block_seconds(scorer: Scorer, device: torch.device) -> float:
    """Of one block on the card, its rows there already: the mean of many in a row."""
    times = 50
    lane = scorer.lanes[0]
    assert isinstance(lane, CudaLane)

    def replayed() -> None:
        for _ in range(times):
            lane.graph.replay()

    return limits.seconds_of(replayed, device) / times


class Deviation(NamedTuple):
    """Of one way of multiplying from float64 on the CPU."""

    model: str
    kind: str
    expected: float                     # largest, in spreads of a reading
    score: float                        # largest relative one of the mean squared error
    score_median: float


def deviations(size: Size, model: VAE, device: torch.device) -> list[Deviation]:
    shape = size.shape
    asked = readings(size, 2048, device)
    stack_KF, index_BW = asked.x_KF.cpu().numpy(), asked.index_NW.cpu().numpy()
    newest_BF = stack_KF[index_BW[:, -1]].astype(np.float64)
    with torch.inference_mode():
        exact_BF = model.double().predict(asked.whole().double(), shape.features).cpu().numpy()
    model.float()
    cpu = VAE(shape)
    cpu.load_state_dict(model.state_dict())
    found = {
        "float32, CPU": asked_of(cpu.eval(), stack_KF, index_BW),
        "float32": asked_of(model, stack_KF, index_BW),
        "bf16": in_bf16(model, asked.whole(), shape.features),
    }
    with limits.products(tf32=True):
        found["tf32"] = asked_of(model, stack_KF, index_BW)
    exact_B = ((newest_BF - exact_BF) ** 2).mean(1)
    told = []
    for kind, xhat_BF in found.items():
        score_B = ((newest_BF - xhat_BF) ** 2).mean(1)
        relative_B = np.abs(score_B - exact_B) / exact_B
        told.append(
            Deviation(size.name, kind, float(np.abs(xhat_BF - exact_BF).max()), float(relative_B.max()),
                      float(np.median(relative_B)))
        )
    return told


def asked_of(model: VAE, stack_KF: F32, index_BW: I64) -> F32:
    return scorer_of(model, model.shape.window, model.shape.features, newest=True).expected(stack_KF, index_BW)


@torch.inference_mode()
def in_bf16(model: VAE, x_BD: torch.Tensor, features: int) -> F32:
    coarse = VAE(model.shape).to(x_BD.device, torch.bfloat16).eval()
    coarse.load_state_dict(model.state_dict())
    return np.asarray(coarse.predict(x_BD.bfloat16(), features).float().cpu().numpy(), np.float32)


def table(found: Sequence[Speed]) -> str:
    lines = [
        "| model | products | at once | a second | of its limit | binds | on the card alone | of its limit | binds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for s in found:
        cells = (
            s.model, s.kind, f"{s.windows:,}", f"{s.per_second:,.0f}", f"{s.per_second / s.limit_per_second:.0%}",
            s.binds, f"{s.on_card_per_second:,.0f}", f"{s.on_card_per_second / s.on_card_limit_per_second:.0%}",
            s.on_card_binds,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def deviation_table(found: Sequence[Deviation]) -> str:
    lines = ["| model | products | reading, largest | score, largest | score, median |", "|---|---|---|---|---|"]
    lines += [f"| {d.model} | {d.kind} | {d.expected:.1e} | {d.score:.1e} | {d.score_median:.1e} |" for d in found]
    return "\n".join(lines)


def main(args: Sequence[str] | None = None) -> int:
    parser = figures.parser("gpu", __doc__)
    asked = parser.parse_args(args)
    if not torch.cuda.is_available():
        print("no CUDA device is visible: nothing to measure")
        return 0
    device = torch.device("cuda")
    torch.set_num_threads(1)
    at_best = limits.measured(device)
    print(limits.described(device, at_best))
    models = {size.name: taught(size, device) for size in (SMALL, WINDOWED, LARGE)}
    kinds: tuple[Kind, ...] = ("float32", "tf32")
    found = [
        measure(size, models[size.name], windows, kind, device, at_best) for size, windows in CASES for kind in kinds
    ]
    print(table(found))
    missed = [d for size in (SMALL, WINDOWED, LARGE) for d in deviations(size, models[size.name], device)]
    print(deviation_table(missed))
    figures.keep(asked.json, limits=at_best, speeds=found, deviations=missed)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
