"""The figures of docs/scaling.md that a machine's load does not change:  python -m tests.deploy.scaling

Memory of a worker's state with one million entities, and how Kafka's assignor spreads 10,000 partitions.
"""

from __future__ import annotations

import resource
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from kafka import KafkaConsumer

from tests import factory
from worker.detection.detector import Detector
from worker.models import artifact
from worker.records import Batch
from worker.settings import Settings
from worker.watch import Watch

MIB = 2**20
ENTITIES = 1_000_000
BATCH = 2_000


def main() -> None:
    print("bytes of state for each entity, by features and window")
    for features in (3, 10, 30, 100):
        sizes = [f"{window}: {watching(features, window).states.dtype.itemsize:,}" for window in (1, 10, 20)]
        print(f"  {features:>3} features   window {'   '.join(sizes)}")
    print(f"resident memory, {ENTITIES:,} entities of 10 features, window 10")
    for row in resident(watching(10, 10)):
        print(f"  {row}")
    print("10,000 partitions, by the assignor that the worker uses")
    for row in assignments(10_000, (10, 100, 999, 1000)):
        print(f"  {row}")


def watching(features: int, window: int) -> Watch:
    """With a model that remembers: chart, threshold and window, incidents and sensor faults."""
    names = [f"f{i}" for i in range(features)]
    with tempfile.TemporaryDirectory() as folder:
        registry = factory.publish(
            Path(folder), features=names, **factory.remembering(features) | {"window": window}  # type: ignore[arg-type]
        )
        loaded = artifact.load(registry, "v1", torch.device("cpu"))
    watch = Watch(Settings(), "sensor-readings")
    watch.serve(Detector(loaded, 0.01))
    return watch


def resident(watch: Watch) -> list[str]:
    features = len(watch._detector.manifest.features)
    before = _resident_bytes()
    rng = np.random.default_rng(1)
    rows = []
    for first in range(0, ENTITIES, BATCH):
        codes = [watch.entities.code(i % 6, f"site-{i // 1000}/pump-{i}") for i in range(first, first + BATCH)]
        batch = Batch(
            rng.normal(size=(BATCH, features)).astype(np.float32),
            np.array(codes, np.int32),
            np.full(BATCH, 1_764_000_000_000),
            np.array([i % 6 for i in range(first, first + BATCH)], np.int32),
            np.arange(BATCH),
        )
        watch.process(batch)
        done = first + BATCH
        if done in (1_000, 10_000, 100_000, ENTITIES):
            more = _resident_bytes() - before
            rows.append(f"{done:>9,} entities: {more / MIB:,.0f} MiB, {more / done:,.0f} bytes each")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    return [*rows, f"{'at most':>9} {peak / MIB:,.0f} MiB, while the table grew"]


def assignments(partitions: int, members: tuple[int, ...]) -> list[str]:
    """Spread, time on this machine, and what moves when one member leaves."""
    rows = []
    for number in members:
        begin = time.perf_counter()
        before = _assigned(partitions, number)
        seconds = time.perf_counter() - begin
        after = _assigned(partitions, number - 1)
        sizes = [len(held) for held in before.values()]
        moved = sum(len(set(held) - set(before[member])) for member, held in after.items())
        rows.append(
            f"{number:>5} workers: {min(sizes)} to {max(sizes)} each, computed in {seconds:.3f} s; "
            f"{moved:,} move when one leaves"
        )
    return rows


def _assigned(partitions: int, members: int) -> dict[str, list[int]]:
    """By member. It is the group's leader that computes this, in the worker's own process."""
    assignor = KafkaConsumer.DEFAULT_CONFIG["partition_assignment_strategy"][0]
    cluster = SimpleNamespace(partitions_for_topic=lambda _: set(range(partitions)))
    subscription = SimpleNamespace(topics=["t"])
    group = [
        SimpleNamespace(member_id=f"worker-{i:04}", group_instance_id=None, metadata=subscription)
        for i in range(members)
    ]
    found = assignor.assign(cluster, group)
    return {member: [p for _, held in given.assigned_partitions for p in held] for member, given in found.items()}


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


if __name__ == "__main__":
    main()
