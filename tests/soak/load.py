"""Readings at a steady pace, and which of them have to be found: what the oracle knows."""

from __future__ import annotations

import random
import threading
import time
from typing import NamedTuple

from kafka import KafkaProducer

from tests import factory
from tests.faults.site import POISON
from worker.records import event_id

ENTITIES = 60
SPIKE_EVERY = 41                        # of an entity's readings, one is far off
POISON_EVERY = 499
TICK_SECONDS = 0.05


class Place(NamedTuple):
    partition: int
    offset: int


class Load:
    """A context manager: a thread that sends until it is left."""

    def __init__(self, servers: str, topic: str, partitions: int, per_second: float) -> None:
        self._topic, self._partitions, self._per_second = topic, partitions, per_second
        self._producer = KafkaProducer(bootstrap_servers=servers, acks="all", linger_ms=5)
        self._chance = random.Random(3)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send, name="load")
        self.sent = 0
        self.spikes: set[Place] = set()
        self.poison: set[Place] = set()

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._producer.close(timeout=30)

    def event_ids(self) -> set[str]:
        """Of the events that there must be."""
        return {str(event_id(self._topic, place.partition, place.offset)) for place in self.spikes}

    def _send(self) -> None:
        began = time.monotonic()
        while not self._stop.wait(TICK_SECONDS):
            due = int((time.monotonic() - began) * self._per_second)
            while self.sent < due:
                self._one(self.sent)
                self.sent += 1
        self._producer.flush(timeout=60)

    def _one(self, i: int) -> None:
        entity = i % ENTITIES
        if i % POISON_EVERY == POISON_EVERY - 1:
            value, noted = POISON[i // POISON_EVERY % len(POISON)], self.poison
        else:
            # Not all entities at once; and late enough for a chart to have begun.
            spike = (i // ENTITIES + entity) % SPIKE_EVERY == SPIKE_EVERY - 1
            values = {
                name: round(normal + self._chance.gauss(0, 0.3) + 40.0 * spike, 4)
                for name, normal in factory.NORMAL.items()
            }
            value, noted = factory.reading(values, int(time.time() * 1000)), self.spikes if spike else None
        sent = self._producer.send(
            self._topic, key=f"pump-{entity}".encode(), value=value, partition=entity % self._partitions
        )
        if noted is not None:
            sent.add_callback(lambda told: noted.add(Place(told.partition, told.offset)))
