"""Readings into a topic: one JSON record each, the entity as its key."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Self

import msgspec
from kafka import KafkaProducer
from kafka.errors import KafkaError

from deploy.demo.faults import SENSORS
from deploy.demo.pumps import Tick
from worker.errors import BrokerError
from worker.kafka.brokers import client_options, explain, explained
from worker.kafka.needs import require_topic
from worker.kafka.rights import Right
from worker.settings import KafkaSettings

_MOST_IN_FLIGHT = 10_000        # kafka-python's own buffer has no bound


class Reading(NamedTuple):
    entity: str
    timestamp_ms: int
    values: Mapping[str, float | None]      # None = the sensor gave nothing


class Feed:
    """Writes readings in order; none is lost silently.

    Raises BrokerError where Kafka or the topic is not there, and, from any call, once a reading is refused for good.
    """

    def __init__(self, kafka: KafkaSettings, topic: str) -> None:
        self.topic = topic
        self.sent = 0
        self._kafka = kafka
        self._in_flight = 0
        self._refused: BaseException | None = None
        require_topic(kafka, Right("Write", "topic", topic))
        with explained(kafka):
            self._producer = KafkaProducer(
                **client_options(kafka),
                allow_auto_create_topics=False,
                linger_ms=5,
                batch_size=65_536,
                compression_type="lz4",
            )

    def send(self, reading: Reading, kafka_timestamp_ms: int | None = None) -> None:
        """Kafka stamps the record with the time of sending unless told otherwise."""
        self._raise_refused()
        if self._in_flight >= _MOST_IN_FLIGHT:
            self.flush()
        record: dict[str, Any] = {"timestamp": reading.timestamp_ms, **reading.values}
        with explained(self._kafka):
            future = self._producer.send(
                self.topic,
                key=reading.entity.encode(),
                value=msgspec.json.encode(record),
                timestamp_ms=kafka_timestamp_ms,
            )
        self._in_flight += 1
        self.sent += 1
        future.add_errback(self._refuse)

    def flush(self) -> None:
        """Returns when everything sent is on the topic."""
        with explained(self._kafka):
            self._producer.flush()
        self._in_flight = 0
        self._raise_refused()

    def close(self) -> None:
        self._producer.close(timeout=10)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self.flush()
        finally:
            self.close()

    def _refuse(self, error: BaseException) -> None:
        self._refused = self._refused or error

    def _raise_refused(self) -> None:
        error = self._refused
        if error is not None:
            told = explain(error, self._kafka) if isinstance(error, KafkaError) else str(error)
            raise BrokerError(f"a reading could not be written to topic {self.topic!r}: {told}") from error


def readings(entities: tuple[str, ...], tick: Tick) -> list[Reading]:
    """A plant's tick as readings, one a pump."""
    return [
        Reading(
            entity,
            tick.timestamp_ms,
            {s: None if math.isnan(x) else round(x, 4) for s, x in zip(SENSORS, x_F, strict=True)},
        )
        for entity, x_F in zip(entities, tick.x_EF.tolist(), strict=True)
    ]


class Pace:
    """Makes recorded time pass at `speed` times the clock's, from now on; infinite speed never waits."""

    def __init__(
        self,
        speed: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._speed = speed
        self._clock = clock
        self._sleep = sleep
        self._first: tuple[int, float] | None = None

    def wait_for(self, timestamp_ms: int) -> None:
        """Returns when it is time for a reading of that timestamp. The first one sets the start."""
        if self._first is None:
            self._first = timestamp_ms, self._clock()
        if math.isinf(self._speed):
            return
        first_ms, start_seconds = self._first
        due_seconds = start_seconds + (timestamp_ms - first_ms) / 1000 / self._speed
        if (rest_seconds := due_seconds - self._clock()) > 0:
            self._sleep(rest_seconds)
