"""Where events and dead letters go: the port, and Kafka behind it."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

from kafka import KafkaProducer, TopicPartition
from kafka.errors import KafkaError

from worker.kafka.brokers import client_options, explained, opened
from worker.kafka.handover import Handover
from worker.records import Origin
from worker.settings import KafkaSettings, OutputSettings

BATCH_BYTES = 131_072                   # by default 16 KiB: many requests for what a batch has to say


class Message(NamedTuple):
    """One record to produce. `smaller` goes in its place where the topic takes no record of its size.

    partition: by default, the one that the key chooses.
    source: the reading that it is about, whose trace goes on with it (worker/tracing.py).
    """

    topic: str
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]
    smaller: Message | None = None
    partition: int | None = None
    source: Origin | None = None


class Receipt(Protocol):
    """The broker's answer to one message, when it comes."""

    def done(self) -> bool: ...

    def error(self) -> Exception | None:
        """What went wrong, once done; None where the message is on the topic for good."""


class Sends(Protocol):
    def send(self, message: Message) -> Receipt:
        """Hands a message over; its fate is in the receipt. Never raises for what the broker may say."""


class Sink(Sends, Protocol):
    def together(self) -> AbstractContextManager[None]:
        """What is sent within goes out at the end of it, in as few requests as may be; or sooner, where it is much."""

    def flush(self, timeout_seconds: float) -> None:
        """Presses for answers for up to that long; receipts tell which came."""

    def renew(self) -> None:
        """After a failure: whatever is open is given up, and its messages may be sent again.

        Raises BrokerError where the broker does not answer.
        """

    def close(self) -> None: ...


class KafkaSink:
    """An idempotent producer that waits for all in-sync replicas.

    Raises BrokerError where the broker does not answer or the client's settings are wrong.
    """

    def __init__(self, kafka: KafkaSettings, settings: OutputSettings, max_message_bytes: int) -> None:
        self._kafka, self._settings, self._max_message_bytes = kafka, settings, max_message_bytes
        self._begin_with(self._built())

    def _begin_with(self, producer: KafkaProducer) -> None:
        self._producer, self._handover = producer, Handover(producer)

    def _built(self) -> KafkaProducer:
        with explained(self._kafka):
            return opened(KafkaProducer, **self._options())

    def _options(self) -> dict[str, Any]:
        kafka, settings = self._kafka, self._settings
        return {
            **client_options(kafka),
            "acks": "all",
            "enable_idempotence": True,
            "compression_type": None if settings.compression == "none" else settings.compression,
            "delivery_timeout_ms": max(settings.delivery_timeout_ms, kafka.request_timeout_ms + 1_000),
            # A dead letter is the record as received, plus headers.
            "max_request_size": self._max_message_bytes + 65_536,
            "max_block_ms": kafka.request_timeout_ms,
            "allow_auto_create_topics": False,
            "linger_ms": 0,
            "batch_size": BATCH_BYTES,
            "metrics_enabled": False,
        }

    def renew(self) -> None:
        # An idempotent producer that has lost its place in the sequence refuses everything from then on.
        shut(self._producer, 0)
        self._begin_with(self._built())

    def send(self, message: Message) -> Receipt:
        try:
            future = self._handover.send(message)
            if future is None:
                future = self._producer.send(
                    message.topic,
                    key=message.key,
                    value=message.value,
                    headers=message.headers,
                    partition=message.partition,
                )
        except (KafkaError, ValueError) as error:       # ValueError: a partition that it has not heard of yet
            return Failed(error)
        return Sent(future)

    def together(self) -> AbstractContextManager[None]:
        return self._handover.together()

    def flush(self, timeout_seconds: float) -> None:
        try:
            self._producer.flush(timeout=timeout_seconds)
        except KafkaError:
            return                          # the receipts say what is open; their reader decides

    def close(self) -> None:
        shut(self._producer, 5)


def shut(producer: KafkaProducer, timeout_seconds: float) -> None:
    """Whatever is still open then fails. kafka-python's own close() raises instead, and leaves the producer running."""
    try:
        producer.close(timeout=timeout_seconds)
    except KafkaError:
        producer._sender.force_close()
        producer._sender.join(timeout_seconds + 1)
        with contextlib.suppress(KafkaError):
            producer.close(timeout=0)


class Failed:
    """A message that did not get as far as the broker."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def done(self) -> bool:
        return True

    def error(self) -> Exception | None:
        return self._error


class Sent:
    """A message that kafka-python has taken."""

    def __init__(self, future: object) -> None:
        self._future = future

    @property
    def partition(self) -> TopicPartition:
        return self._future._produce_future.topic_partition  # type: ignore[attr-defined]

    def done(self) -> bool:
        return bool(self._future.is_done)  # type: ignore[attr-defined]

    def error(self) -> Exception | None:
        error = self._future.exception  # type: ignore[attr-defined]
        assert error is None or isinstance(error, Exception)
        return error
