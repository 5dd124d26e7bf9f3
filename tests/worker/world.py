"""The loop on its in-memory ports: a worker without its process, that can vanish at any point."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from prometheus_client import generate_latest

from tests import factory
from worker.delivery.at_least_once import AtLeastOnce
from worker.delivery.checkpoint import Checkpoint
from worker.delivery.exactly_once import ExactlyOnce
from worker.heartbeat import Heartbeat
from worker.kafka.sink import Message, Receipt, Sends
from worker.loop import Loop
from worker.memory import MemorySink, MemorySource, MemoryStateStore, MemoryTransactions
from worker.metrics import Metrics
from worker.models.registry import Registry
from worker.models.reload import Models
from worker.records import PlainRecord, Record
from worker.settings import BatchSettings, ModelSettings, Settings, StateSettings
from worker.state.restore import Loaded
from worker.state.snapshots import Row, pack
from worker.tracing import Tracing


class World:
    made: ClassVar[list[World]] = []

    def __init__(
        self,
        folder: Path,
        records: Sequence[Record],
        sink: MemorySink | None = None,
        batch: int = 64,
        store: MemoryStateStore | None = None,
        source: MemorySource | None = None,
        interval_seconds: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        tracing: Tracing | None = None,
    ) -> None:
        """sink: MemoryTransactions for exactly-once; interval_seconds: of commits."""
        self.made.append(self)
        self.registry = Registry(str(folder), "default")
        self.source = source or MemorySource("sensor-readings", records)
        self.sink = sink or MemorySink()
        self.metrics = Metrics(tracing)
        self.slept: list[float] = []
        self.stopping: Callable[[], bool] = lambda: False
        settings = Settings(
            batch=BatchSettings(max_records=batch, max_wait_ms=0),
            state=StateSettings(snapshot_seconds=1e-6),         # one whenever the one before is done
        )
        self.models = Models(
            self.registry, ModelSettings(registry=str(folder)), None, torch.device("cpu"), self.metrics
        )
        self.settings = settings
        self.heartbeat = heartbeat = Heartbeat(10, clock)
        self.models.first(heartbeat)
        self.checkpoint: Checkpoint
        if isinstance(self.sink, MemoryTransactions):
            self.checkpoint = ExactlyOnce(
                self.source, self.sink, interval_seconds, self.metrics, heartbeat, lambda: self.stopping(),
                sleep=self.slept.append,
            )
        else:
            self.checkpoint = AtLeastOnce(
                self.source, self.sink, interval_seconds, self.metrics, heartbeat, lambda: self.stopping(),
                sleep=self.slept.append,
            )
        if isinstance(store, Sending):
            store.rows = self.checkpoint
        self.loop = Loop(
            settings, self.source, self.checkpoint, self.models, store, self.metrics, heartbeat,
            lambda: self.stopping(), clock=clock,
        )

    def events(self) -> list[dict[str, object]]:
        return [json.loads(m.value or b"") for m in self.sink.messages if m.topic == "sensor-anomalies"]

    def exposition(self) -> str:
        return generate_latest(self.metrics.registry).decode()


class Sending(MemoryStateStore):
    """Sends rows as the real store does: by the checkpoint. They land on `topic`, which outlives the worker."""

    rows: Sends

    def __init__(self, topic: MemoryStateStore) -> None:
        super().__init__()
        self._topic = topic

    def load(self, partition: int) -> Loaded:
        return self._topic.load(partition)

    def publish(self, partition: int, rows: Sequence[Row]) -> list[Receipt]:  # type: ignore[override]
        return [
            self.rows.send(Message("state", key, value, list(headers), partition=partition))
            for key, value, headers in map(pack, rows)
        ]


def landed(message: Message, topic: MemoryStateStore) -> None:
    """A row of state that the broker has taken."""
    assert message.partition is not None
    topic.append(message.partition, message.key, message.value, message.headers)


def remembered(n: int) -> list[Record]:
    """Three entities on two partitions, with shifts that come and go, and values that are missing now and then."""
    rng = np.random.default_rng(7)
    found: list[Record] = []
    offsets = [0, 0]
    for i in range(n):
        entity = int(rng.integers(0, 3))
        partition = int(entity == 2)
        shift = 4.0 if (i // 60 + entity) % 3 == 0 else 0.0
        values: dict[str, float | None] = {
            name: value + float(rng.normal(0, 1)) + shift for name, value in factory.NORMAL.items()
        }
        if rng.random() < 0.2:
            values["flow"] = None
        value = factory.reading(values, 1_764_000_000_000 + 1000 * i)
        key = f"pump-{entity}".encode()
        found.append(PlainRecord("sensor-readings", partition, offsets[partition], 0, key, value))
        offsets[partition] += 1
    return found


def said(*worlds: World) -> dict[str, dict[str, object]]:
    """Everything on the output, by id; what is repeated must be the same."""
    found: dict[str, dict[str, object]] = {}
    for world in worlds:
        for message in world.sink.messages:
            document = {k: v for k, v in json.loads(message.value or b"").items() if k != "detected_at"}
            identity = document.get("event_id") or dict(message.headers)["ce_id"].decode()
            assert found.setdefault(str(identity), document) == document
    return found
