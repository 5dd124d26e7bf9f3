"""Traces by a real broker, as a real OTLP receiver gets them: from the sensor, through the worker, to the event."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jsonschema
import pytest
from kafka import KafkaProducer
from opentelemetry import propagate, trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.trace import TracerProvider

from tests import factory
from tests.integration.conftest import Plant
from tests.programs import ROOT, Program, parsed


class Receiver(ThreadingHTTPServer):
    """POST /v1/traces of the OTLP specification; spans by their service."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Take)
        self.spans: list[tuple[str, Span]] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def named(self, name: str) -> list[Span]:
        return [span for _, span in self.spans if span.name == name]


class _Take(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Receiver)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        request = ExportTraceServiceRequest()
        request.ParseFromString(gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body)
        for resource in request.resource_spans:
            service = attributes(resource.resource.attributes)["service.name"]
            self.server.spans += [(str(service), span) for scope in resource.scope_spans for span in scope.spans]
        answer = ExportTraceServiceResponse().SerializeToString()
        self.send_response(200 if self.path == "/v1/traces" else 404)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:
        return None


def attributes(found: Iterable[KeyValue]) -> dict[str, object]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value") or "string_value") for one in found}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.shutdown()
    made.server_close()


def send_traced(plant: Plant, values: list[bytes]) -> str:
    """By a sensor that knows OpenTelemetry. Returns its trace."""
    provider = TracerProvider(shutdown_on_exit=False)
    producer = KafkaProducer(bootstrap_servers=plant.broker)
    topic = plant.topics["input"]
    with provider.get_tracer("sensor").start_as_current_span(f"send {topic}", kind=trace.SpanKind.PRODUCER) as span:
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        headers = [(name, value.encode()) for name, value in carrier.items()]
        for value in values:
            producer.send(topic, value, key=b"pump-1", headers=headers)
    producer.close()
    return trace.format_trace_id(span.get_span_context().trace_id)


@pytest.mark.parametrize(("fetch", "service"), [("batches", "zmu-worker"), ("records", "plant-7")])
def test_one_trace_from_the_sensor_to_the_event(
    plant: Plant, receiver: Receiver, fetch: str, service: str
) -> None:
    values = factory.random_readings(20, anomalous_every=20)
    trace_id = send_traced(plant, [*values, b"junk"])
    environment = {
        **plant.environment,
        "ZMU_INPUT__FETCH": fetch,
        "ZMU_TRACES__ENABLED": "true",
        "ZMU_LOG__LEVEL": "debug",
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
        **({} if service == "zmu-worker" else {"OTEL_SERVICE_NAME": service}),
    }
    with Program("worker", "run", "--until-drained", **environment) as worker:
        assert worker.wait() == 0, worker.stderr
    (event,) = plant.read("output")
    (sent,) = receiver.named(f"send {plant.topics['output']}")
    (batch,) = receiver.named(f"process {plant.topics['input']}")
    assert {name for name, _ in receiver.spans} == {service}
    version, *ids, _ = dict(event.headers)["traceparent"].decode().split("-")
    assert (version, *ids) == ("00", trace_id, sent.span_id.hex())
    assert sent.trace_id.hex() == trace_id
    assert [link.span_id for link in sent.links] == [batch.span_id]
    assert attributes(sent.attributes)["cloudevents.event_id"] == parsed(event.value)["event_id"]
    assert attributes(batch.attributes)["messaging.batch.message_count"] == 21
    assert {span.parent_span_id for _, span in receiver.spans if span.name in ("decode", "score")} == {batch.span_id}

    schema = json.loads((ROOT / "docs/event-headers.schema.json").read_text())
    jsonschema.validate({name: value.decode() for name, value in event.headers}, schema)

    (dead,) = plant.read("dead")
    assert dict(dead.headers)["traceparent"].decode().split("-")[1] == trace_id
    (line,) = (json.loads(line) for line in worker.lines if '"record refused"' in line)
    assert line["offset"] == 20
    assert line["offsets"] == [f"{line['partition']}/0-20"]
    assert line["model_version"] == "v1"
    assert (line["trace_id"], line["span_id"]) == (batch.trace_id.hex(), batch.span_id.hex())
