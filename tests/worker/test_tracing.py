"""Spans of the loop, as OpenTelemetry's own SDK exports them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, format_span_id, format_trace_id

from deploy.demo.ports import free_port
from tests import factory
from tests.worker.record_batches import TP, Content, batch_of, fetched, stock
from tests.worker.world import World
from worker.delivery.checkpoint import Stopped
from worker.kafka.rawfetch import WholeBatches
from worker.kafka.sink import Message
from worker.memory import MemorySink, MemorySource, MemoryTransactions
from worker.otel import OpenTelemetry
from worker.settings import Settings, TraceSettings
from worker.source import Fetched
from worker.tracing import opened

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SENSOR: list[tuple[str, bytes | None]] = [
    ("tracestate", b"plant=7"), ("traceparent", f"00-{TRACE}-{SPAN}-01".encode()),
]  # fmt: skip
Headers = list[tuple[str, bytes | None]]


class WholeSource(MemorySource):
    """Gives record batches, as Kafka keeps them."""

    def __init__(self, raw: bytes) -> None:
        super().__init__(TP.topic, list(stock(raw).take(None)))
        self._raw = raw

    def poll(self, max_records: int, max_wait_seconds: float, idle_seconds: float) -> Fetched:
        found = super().poll(max_records, max_wait_seconds, idle_seconds)
        if found.records:
            found.records = list(fetched(WholeBatches, self._raw).take(None))
        return found


class Traced:
    """A world whose readings 3 and 6 are anomalous, with these headers."""

    def __init__(
        self, folder: Path, way: str, third: Headers, sixth: Headers, sink: MemorySink | None = None, on: bool = True
    ) -> None:
        values = factory.random_readings(9, anomalous_every=3)[:7]
        headers: list[Headers] = [[], [], [("unit", b"bar"), *third], [], [], sixth, []]
        contents = [Content(1_000, b"pump-1", *both) for both in zip(values, headers, strict=True)]
        raw = batch_of(contents[:4], 0)[0] + batch_of(contents[4:], 4)[0]
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracing = OpenTelemetry(Settings(), provider)
        source = WholeSource(raw) if way == "batches" else MemorySource(TP.topic, list(stock(raw).take(None)))
        self.world = World(folder, [], sink, source=source, tracing=self.tracing if on else None)

    def events(self) -> list[Message]:
        return [message for message in self.world.sink.messages if message.topic == "sensor-anomalies"]

    def spans(self, name: str) -> list[ReadableSpan]:
        return [span for span in self._exporter.get_finished_spans() if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        (span,) = self.spans(name)
        return span


def ids(span: Any) -> tuple[str, str]:
    context = span if hasattr(span, "trace_id") else span.context
    return format_trace_id(context.trace_id), format_span_id(context.span_id)


def told(message: Message) -> tuple[str, str, bool]:
    """Trace, span, and whether it is sampled."""
    _, trace, span, flags = dict(message.headers)["traceparent"].decode().split("-")
    return trace, span, bool(int(flags, 16) & 1)


WAYS = pytest.mark.parametrize("way", ["records", "batches"])


@WAYS
def test_a_trace_goes_from_the_reading_to_its_event(folder: Path, way: str) -> None:
    traced = Traced(folder, way, SENSOR, [])
    traced.world.loop.run_until_drained()
    batch = traced.one("process sensor-readings")
    with_context, without = traced.spans("send sensor-anomalies")
    assert with_context.parent is not None
    assert ids(with_context.parent) == (TRACE, SPAN)
    assert [ids(link.context) for link in with_context.links] == [ids(batch)]
    assert without.parent is not None
    assert ids(without.parent) == ids(batch)
    assert without.links == ()
    first, second = traced.events()
    assert told(first) == (TRACE, ids(with_context)[1], True)
    assert dict(first.headers)["tracestate"] == b"plant=7"
    assert told(second) == (*ids(without), True)
    assert "tracestate" not in dict(second.headers)
    assert with_context.attributes is not None
    assert dict(with_context.attributes) == {
        "messaging.system": "kafka",
        "messaging.client.id": "zmu",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.destination.name": "sensor-anomalies",
        "messaging.kafka.message.key": "pump-1",
        "zmu.source": "sensor-readings/3/2",
        "cloudevents.event_id": dict(first.headers)["ce_id"].decode(),
        "cloudevents.event_source": "kafka:sensor-readings/3",
        "cloudevents.event_type": "io.zmu.anomaly.v1",
    }
    assert with_context.kind == SpanKind.PRODUCER


@WAYS
def test_a_batch_is_a_trace_of_its_stages(folder: Path, way: str) -> None:
    traced = Traced(folder, way, [], [])
    traced.world.loop.run_until_drained()
    batch = traced.one("process sensor-readings")
    assert batch.kind == SpanKind.CONSUMER
    assert batch.parent is None
    assert batch.attributes is not None
    assert dict(batch.attributes) == {
        "messaging.system": "kafka",
        "messaging.client.id": "zmu",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "sensor-readings",
        "messaging.destination.partition.id": "3",
        "messaging.consumer.group.name": "zmu-worker",
        "messaging.batch.message_count": 7,
        "zmu.offsets": ("3/0-6",),
        "zmu.model.name": "default",
        "zmu.model.version": "v1",
    }
    for stage in ("decode", "score", "publish", "commit"):
        assert [ids(span.parent) for span in traced.spans(stage)] == [ids(batch)], stage


@WAYS
def test_events_are_the_same_with_traces_and_without(folder: Path, way: str) -> None:
    found = []
    for on in (True, False):
        traced = Traced(folder, way, SENSOR, [("traceparent", b"\xff"), ("traceparent", None)], on=on)
        traced.world.loop.run_until_drained()
        events = [{k: v for k, v in event.items() if k != "detected_at"} for event in traced.world.events()]
        own = [[(n, v) for n, v in m.headers if n not in ("traceparent", "tracestate")] for m in traced.events()]
        found.append((events, own, [message.key for message in traced.events()]))
        assert ["traceparent" in dict(message.headers) for message in traced.events()] == [on, on]
    assert found[0] == found[1]


@pytest.mark.parametrize(
    "headers",
    [
        [("traceparent", None)],
        [("traceparent", b"")],
        [("traceparent", f"00-{'0' * 32}-{SPAN}-01".encode())],
        [("traceparent", f"ff-{TRACE}-{SPAN}-01".encode())],
        [("traceparent", b"\xf0\x9f\x92\xa9" * 1000)],
        [("tracestate", b"\x00\xff" * 3000), ("baggage", b"=;,%" * 5000), ("traceparent", b"00-junk")],
    ],
)
def test_headers_that_are_no_context_are_none(folder: Path, headers: Headers) -> None:
    traced = Traced(folder, "batches", headers, [])
    traced.world.loop.run_until_drained()
    batch = traced.one("process sensor-readings")
    assert [told(event)[0] for event in traced.events()] == [ids(batch)[0]] * 2
    assert [ids(span.parent) for span in traced.spans("send sensor-anomalies")] == [ids(batch)] * 2


def test_an_incident_goes_on_with_the_trace_of_the_reading_that_opened_it(folder: Path) -> None:
    values = [factory.reading(factory.ANOMALOUS, 1_764_000_000_000 + 1000 * i) for i in range(10)]
    contents = [
        Content(1_000, b"pump-1", value, [("traceparent", f"00-{i + 1:032x}-{SPAN}-01".encode())])
        for i, value in enumerate(values)
    ]
    traced = Traced(folder, "batches", [], [])
    world = World(folder, [], source=WholeSource(batch_of(contents, 0)[0]), tracing=traced.tracing)
    world.loop.run_until_drained()
    opening = next(message for message in world.sink.messages if message.topic == "sensor-incidents")
    assert opening.source is not None
    assert int(told(opening)[0], 16) == opening.source.offset + 1
    assert told(opening)[1] in {ids(span)[1] for span in traced.spans("send sensor-incidents")}
    readings = [message for message in world.sink.messages if message.topic == "sensor-anomalies"]
    assert [int(told(message)[0], 16) for message in readings] == list(range(1, 11))


def test_what_the_sensor_did_not_sample_is_not_exported_and_keeps_its_trace(folder: Path) -> None:
    traced = Traced(folder, "batches", [("traceparent", f"00-{TRACE}-{SPAN}-00".encode())], [])
    traced.world.loop.run_until_drained()
    assert len(traced.spans("send sensor-anomalies")) == 1
    trace, span, sampled = told(traced.events()[0])
    assert (trace, sampled) == (TRACE, False)
    assert span != SPAN


def test_baggage_goes_along(folder: Path) -> None:
    traced = Traced(folder, "records", [*SENSOR, ("baggage", b"plant=seven")], [])
    traced.world.loop.run_until_drained()
    assert [dict(event.headers).get("baggage") for event in traced.events()] == [b"plant=seven", None]


def test_what_was_refused_for_good_is_said_in_every_span(folder: Path) -> None:
    traced = Traced(folder, "batches", SENSOR, [], MemorySink([OSError("refused")] * 100))
    traced.world.stopping = lambda: bool(traced.world.slept)
    with pytest.raises(Stopped, match="refused"):
        traced.world.loop.run()
    spans = [*traced.spans("send sensor-anomalies"), traced.one("publish"), traced.one("process sensor-readings")]
    assert len(spans) == 4
    assert [span.status.status_code.name for span in spans] == ["ERROR"] * 4
    assert traced.spans("commit") == []


def test_exactly_once_spans_end_when_messages_are_handed_over(folder: Path) -> None:
    traced = Traced(folder, "batches", SENSOR, [], MemoryTransactions())
    traced.world.loop.run_until_drained()
    assert len(traced.spans("send sensor-anomalies")) == 2
    assert told(traced.events()[0])[0] == TRACE


def test_a_dead_letter_keeps_the_context_that_it_came_with(folder: Path) -> None:
    raw = batch_of([Content(1_000, b"pump-1", b"junk", SENSOR)], 0)[0]
    traced = Traced(folder, "batches", [], [])
    world = World(folder, [], source=WholeSource(raw), tracing=traced.tracing)
    world.loop.run_until_drained()
    (dead,) = world.sink.messages
    assert [dead.headers[n] for n in (0, 1)] == SENSOR
    assert [name for name, _ in dead.headers].count("traceparent") == 1


def test_a_receiver_that_is_away_costs_no_event(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    traces = opened(Settings(traces=TraceSettings(enabled=True)))
    world = World(folder, factory.records(factory.random_readings(100, 10)), tracing=traces, batch=10)
    world.loop.run_until_drained()
    traces.close()
    assert len(world.events()) == 10
    assert all("traceparent" in dict(message.headers) for message in world.sink.messages)


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], env=os.environ | environment, capture_output=True, text=True,
        check=False, timeout=60,
    )  # fmt: skip


def test_without_the_extra_it_says_what_to_install() -> None:
    done = python(
        "import sys; sys.modules['opentelemetry'] = None\n"
        "from worker.__main__ import main\n"
        "sys.exit(main(['run', '--traces.enabled']))"
    )
    assert done.returncode == 2
    assert "pip install 'zmu[otel]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_PROPAGATORS", "pigeons"),
    ],
)
def test_a_variable_of_opentelemetry_that_it_cannot_use_is_refused(name: str, value: str) -> None:
    code = "from worker import settings, tracing; tracing.opened(settings.Settings(traces={'enabled': True}))"
    done = python(code, **{name: value})
    assert done.returncode == 1
    assert "SettingsError" in done.stderr.splitlines()[-1]
    assert value in done.stderr.splitlines()[-1]
