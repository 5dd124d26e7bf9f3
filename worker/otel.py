"""Traces by OpenTelemetry. Names of spans and attributes: its semantic conventions for messaging and for Kafka.

    process <input topic>       CONSUMER, one for each batch; a trace of its own
      decode, score, publish, commit
    send <output topic>         PRODUCER, one for each event and incident

`send` goes on with the trace that the reading came with, and links to the batch. Where the reading came with none, it
is the batch's child. Where and what is exported is said by OpenTelemetry's own variables, OTEL_….
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence

from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.propagators.textmap import Getter, Setter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode

from worker import build, log
from worker.hand import Hand
from worker.kafka.batches import Headers
from worker.kafka.sink import Message
from worker.settings import Settings

LEAVE_SECONDS = 3.0                     # for what is not exported yet, when told to stop
QUIET_SECONDS = 60.0
# What says that the receiver is away and that spans are dropped; the last in older versions.
_SELDOM = ("exporter.otlp.proto.http.trace_exporter", "sdk._shared_internal", "sdk.trace.export")
# Variables that others understand in more ways than this one.
_ONLY = {
    "OTEL_TRACES_EXPORTER": "otlp",
    "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
}
_CLOUD_EVENT = {
    "ce_id": "cloudevents.event_id", "ce_source": "cloudevents.event_source", "ce_type": "cloudevents.event_type"
}


def opened(settings: Settings) -> OpenTelemetry:
    """Exports to OTEL_EXPORTER_OTLP_ENDPOINT, in a thread. Raises ValueError for a variable that cannot be used."""
    for name, known in _ONLY.items():
        if os.environ.get(name, known) not in ("", known):
            raise ValueError(f"{name}={os.environ[name]}, where {known} is the only one that zmu knows")
    for part in "trace", "baggage":     # a line for each faulty header of each reading
        logging.getLogger(f"opentelemetry.{part}").setLevel(logging.ERROR)
    for part in _SELDOM:
        logging.getLogger(f"opentelemetry.{part}").addFilter(_Seldom())
    ours = Resource.create({"service.name": "zmu-worker", "service.version": build.facts()["version"]})
    # Ours is closed by the daemon, and is nobody else's: MLflow has one, too.
    provider = TracerProvider(resource=ours.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return OpenTelemetry(settings, provider)


class OpenTelemetry:
    """A worker.tracing.Tracing. One thread's."""

    def __init__(self, settings: Settings, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("zmu", build.facts()["version"])
        self._of_all = {"messaging.system": "kafka", "messaging.client.id": settings.kafka.client_id}
        self._group, self._model = settings.input.group_id, settings.model.name
        self._hand: Hand | None = None
        self._open: list[Span] = []     # sent, and not handed over yet

    @contextlib.contextmanager
    def batch(self, hand: Hand) -> Iterator[None]:
        span = self._tracer.start_span(f"process {hand.topic}", Context(), SpanKind.CONSUMER)
        if span.is_recording():
            span.set_attributes(self._of_batch(hand))
        ids = span.get_span_context()
        told = {"trace_id": trace.format_trace_id(ids.trace_id), "span_id": trace.format_span_id(ids.span_id)}
        self._hand = hand
        try:
            with trace.use_span(span, end_on_exit=True), log.about(lambda: told):
                yield
        finally:
            self._hand = None

    def _of_batch(self, hand: Hand) -> Mapping[str, str | int | Sequence[str]]:
        found: dict[str, str | int | Sequence[str]] = {
            **self._of_all,
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.name": hand.topic,
            "messaging.consumer.group.name": self._group,
            "messaging.batch.message_count": len(hand),
            "zmu.offsets": hand.told(),
            "zmu.model.name": self._model,
            "zmu.model.version": hand.model_version,
        }
        if len(hand.offsets) == 1:
            found["messaging.destination.partition.id"] = str(next(iter(hand.offsets)))
        return found

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        recording = trace.get_current_span().is_recording()
        try:
            with self._tracer.start_as_current_span(name) if recording else contextlib.nullcontext():
                yield
        except BaseException as error:
            self._handed_over(name, Status(StatusCode.ERROR, str(error)))
            raise
        self._handed_over(name)

    def _handed_over(self, stage: str, status: Status | None = None) -> None:
        if stage == "publish":
            for span in self._open:
                if status is not None:
                    span.set_status(status)
                span.end()
            self._open.clear()

    def sent(self, messages: Sequence[Message]) -> list[Message]:
        return [self._sent(message) for message in messages]

    def _sent(self, message: Message) -> Message:
        """A dead letter stays as received: it carries the context that it came with."""
        source = message.source
        if source is None:
            return message
        headers = self._hand.headers(source.partition, source.offset) if self._hand is not None else ()
        parent = propagate.extract(headers, Context(), _READ)
        batch, links = trace.get_current_span(), []
        if not trace.get_current_span(parent).get_span_context().is_valid:
            parent = trace.set_span_in_context(batch, parent)
        elif batch.get_span_context().is_valid:
            links = [Link(batch.get_span_context())]
        span = self._tracer.start_span(f"send {message.topic}", parent, SpanKind.PRODUCER, links=links)
        if span.is_recording():
            span.set_attributes(self._of_message(message, str(source)))
        self._open.append(span)
        carrier = list(message.headers)
        propagate.inject(carrier, trace.set_span_in_context(span, parent), _WRITE)
        return message._replace(headers=carrier)

    def _of_message(self, message: Message, place: str) -> Mapping[str, str]:
        return {
            **self._of_all,
            "messaging.operation.name": "send",
            "messaging.operation.type": "send",
            "messaging.destination.name": message.topic,
            "messaging.kafka.message.key": (message.key or b"").decode(errors="replace"),
            "zmu.source": place,
            **{_CLOUD_EVENT[name]: value.decode() for name, value in message.headers if name in _CLOUD_EVENT},
        }

    def close(self) -> None:
        # By itself it may take as long as its exporter goes on trying.
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(LEAVE_SECONDS)


class _Seldom(logging.Filter):
    """Once a minute is often enough to say that the receiver is away."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        kind = str(record.msg)          # without its arguments
        if time.monotonic() - self._said.get(kind, float("-inf")) < QUIET_SECONDS:
            return False
        self._said[kind] = time.monotonic()
        return True


class _Read(Getter[Headers]):
    """Of a reading's headers, which may hold anything."""

    def get(self, carrier: Headers, key: str) -> list[str] | None:
        found = [value.decode("ascii", "replace") for name, value in carrier if value is not None and name == key]
        return found or None

    def keys(self, carrier: Headers) -> list[str]:
        return [name for name, _ in carrier]


class _Write(Setter[list[tuple[str, bytes]]]):
    def set(self, carrier: list[tuple[str, bytes]], key: str, value: str) -> None:
        carrier.append((key, value.encode()))


_READ, _WRITE = _Read(), _Write()
