"""What a reading costs, decoded and scored, against the size of everything: features, entities, window, model, batch.

    python -m tests.benchmarks cost [--seconds 1.0] [--json FILE] [--draw docs/cost.svg]

In one process and without a broker, by the worker's own decoder and watch, with memory, chart and following threshold.
One size at a time is varied around 20 features by name, 1,000 entities, windows of 10, hidden 64 and batches of 2,048.
µs of CPU a reading: the least of the rounds, which a busy machine disturbs least.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from kafka.record.default_records import DefaultRecordBatchBuilder

from tests import factory
from tests.benchmarks import figures
from worker import compiled
from worker.codec.columns import ColumnDecoder
from worker.codec.readings import ReadingSchema
from worker.detection.detector import Detector
from worker.kafka.batches import RecordBatch
from worker.models import artifact
from worker.settings import InputSettings, Settings
from worker.watch import Watch

HEADER_BYTES = 61                       # of a record batch, before its records
BATCHES = 8                             # different ones, in turn


class Size(NamedTuple):
    features: int = 20
    entities: int = 1_000
    window: int = 10
    hidden: int = 64
    batch: int = 2_048


class Cost(NamedTuple):
    """µs of CPU a reading."""

    decode: float
    score: float


BASE = Size()
VARIED: dict[str, tuple[int, ...]] = {
    "features": (5, 10, 20, 50, 100, 200, 500),
    "entities": (10, 100, 1_000, 10_000, 100_000, 1_000_000),
    "window": (1, 5, 10, 20, 40, 60),
    "hidden": (16, 64, 256, 1_024),
    "batch": (16, 64, 256, 1_024, 2_048, 8_192),
}


def batches(size: Size) -> list[RecordBatch]:
    """Of readings by name, from entities in turn, as far as they go."""
    rng = np.random.default_rng(0)
    names = [f"sensor_{i:03d}" for i in range(size.features)]
    made = []
    for number in range(BATCHES):
        builder = DefaultRecordBatchBuilder(2, 0, False, -1, -1, -1, 2**30)
        x_BF = rng.normal(0, 0.3, (size.batch, size.features)).round(6)
        for i, row in enumerate(x_BF.tolist()):
            n = number * size.batch + i
            value = {"timestamp": 1_764_000_000_000 + n, **dict(zip(names, row, strict=True))}
            key = b"pump-%d" % (n * 7919 % size.entities)           # a prime: over all of them, one after the other
            builder.append(i, 1_764_000_000_000 + n, key, json.dumps(value, separators=(",", ":")).encode(), [])
        first = number * size.batch
        made.append(RecordBatch(
            0, first, 1_764_000_000_000 + first, None, size.batch, 0, bytes(builder.build())[HEADER_BYTES:], "readings",
            first + size.batch, 0,
        ))
    return made


def measured(size: Size, seconds: float) -> Cost:
    names = tuple(f"sensor_{i:03d}" for i in range(size.features))
    with tempfile.TemporaryDirectory() as folder:
        fields = factory.remembering(size.features) | {"window": size.window}
        registry = factory.publish(
            Path(folder), features=names, hidden=(size.hidden,), latent=10, **fields  # type: ignore[arg-type]
        )
        loaded = artifact.load(registry, "v1", torch.device("cpu"))
    watch = Watch(Settings(), "readings")
    for entity in range(size.entities):
        watch.entities.code(0, f"pump-{entity}")
    watch.serve(Detector(loaded))
    decoder = ColumnDecoder(ReadingSchema.of(names, InputSettings()), watch.entities)
    given = batches(size)
    rounds: list[Cost] = []
    until = time.monotonic() + seconds
    while time.monotonic() < until or len(rounds) < 3:
        decode = score = 0.0
        for batch in given:
            start = time.process_time()
            decoded = decoder.decode([batch])
            between = time.process_time()
            watch.process(decoded.batch)
            decode, score = decode + between - start, score + time.process_time() - between
        rounds.append(Cost(*(part / (BATCHES * size.batch) * 1e6 for part in (decode, score))))
    return Cost(min(r.decode for r in rounds), min(r.score for r in rounds))


def table(found: dict[str, dict[int, Cost]]) -> str:
    lines = ["| varied | is | decode µs | score µs | both |", "|---|---|---|---|---|"]
    lines += [
        f"| {name} | {value:,} | {cost.decode:.2f} | {cost.score:.2f} | {sum(cost):.2f} |"
        for name, costs in found.items() for value, cost in costs.items()
    ]
    return "\n".join(lines)


def draw(found: dict[str, dict[int, Cost]], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(found), figsize=(3 * len(found), 2.8), sharey=True, layout="constrained")
    for axis, (name, costs) in zip(axes, found.items(), strict=True):
        values = list(costs)
        for part in Cost._fields:
            axis.plot(values, [getattr(cost, part) for cost in costs.values()], marker="o", markersize=3, label=part)
        axis.set(xscale="log", yscale="log", xlabel=name)
        axis.axvline(getattr(BASE, name), color="0.85", zorder=0)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("µs of CPU a reading")
    axes[0].legend(frameon=False)
    plt.rcParams["svg.hashsalt"] = "zmu"
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)


def main(args: Sequence[str] | None = None) -> int:
    parser = figures.parser("cost", __doc__)
    parser.add_argument("--seconds", type=float, default=1.0, help="for each size (%(default)s)")
    parser.add_argument("--draw", type=Path, help="where to draw the curves, .svg or .png")
    asked = parser.parse_args(args)
    torch.set_num_threads(1)
    compiled.choose("auto")
    where = f"{figures.machine()}, core {'compiled' if compiled.built() else 'in Python'}"
    print(where)
    found: dict[str, dict[int, Cost]] = {}
    for name, values in VARIED.items():
        found[name] = {value: measured(BASE._replace(**{name: value}), asked.seconds) for value in values}
    print(table(found))
    figures.keep(asked.json, machine=where, cost=found)
    if asked.draw:
        draw(found, asked.draw)
    return 0
