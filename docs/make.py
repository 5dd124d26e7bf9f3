"""Makes what docs/ repeats of the code: tables of settings and metrics, schemas, the AsyncAPI document of the topics.

    python docs/make.py

tests/test_docs.py fails where a page and the code differ.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import runpy
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_origin
from uuid import UUID

import msgspec
from prometheus_client import CollectorRegistry
from pydantic.fields import FieldInfo

import training.__main__
import training.metrics
import training.settings
import worker.__main__
from training.history.feedback import Verdict
from training.history.maintenance import Work
from worker.cli import Command, variables
from worker.codec.events import event_message
from worker.incidents.incidents import Incident
from worker.metrics import Metrics
from worker.records import Event, ModelRef, Origin

DOCS = Path(__file__).parent
HEADERS = {
    "ce_specversion": "Version of CloudEvents.",
    "ce_id": "The event's event_id: equal on replay.",
    "ce_source": "Topic and partition of the reading: kafka:<topic>/<partition>.",
    "ce_type": "Kind and version of the event.",
    "ce_time": "The reading's timestamp.",
    "content-type": "Of the value.",
}
TRACE = {                               # W3C Trace Context; of events that are traced
    "traceparent": {
        "type": "string",
        "description": "Only with ZMU_TRACES__ENABLED: goes on with the reading's trace, where it came with one.",
        "pattern": "^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$",
    },
    "tracestate": {"type": "string", "description": "The reading's, where it came with one."},
}
FORMATS = {
    "ce_id": {"format": "uuid"},
    "ce_source": {"pattern": "^kafka:.+/[0-9]+$"},
    "ce_time": {"format": "date-time"},
}


class Series(NamedTuple):
    """One metric as Prometheus sees it."""

    name: str
    kind: str
    labels: tuple[str, ...]
    text: str
    buckets: tuple[float, ...]


def series(registry: CollectorRegistry) -> Iterator[Series]:
    """Every zmu_ metric of a registry, with its labels also where it has no sample yet."""
    suffix = {"counter": "_total", "info": "_info"}
    for collector in registry._collector_to_names:
        name, kind = getattr(collector, "_name", None), getattr(collector, "_type", None)
        if name is None or kind is None:                    # prometheus-client's own, of process and interpreter
            continue
        buckets = tuple(collector._kwargs.get("buckets", ()))   # type: ignore[attr-defined]
        labels = tuple(collector._labelnames)                   # type: ignore[attr-defined]
        yield Series(name + suffix.get(kind, ""), kind, labels, collector._documentation, buckets)  # type: ignore[attr-defined]


def own_flags_table() -> str:
    """What a command takes beside the settings."""
    rows = []
    for program, module in ("zmu-worker", worker.__main__), ("zmu-training", training.__main__):
        for name, command in vars(module).items():
            if isinstance(command, type) and issubclass(command, Command) and command.summary:
                own = command.model_fields.keys() - training.settings.Settings.model_fields.keys()
                for field in (name for name in command.model_fields if name in own):
                    rows.append((program, name.lower(), field, command.model_fields[field]))
    return _head("command", "argument", "what it is") + "".join(
        f"| `{program} {command}` | `{_argument(name, field)}` | {_said(field)} |\n"
        for program, command, name, field in rows
    )


def settings_table() -> str:
    """A table for each section, of every setting of both programs."""
    rows: dict[tuple[str, ...], str] = {}
    for variable, field in variables(training.settings.Settings):
        *section, _ = variable.removeprefix("ZMU_").lower().split("__")
        rows[tuple(section)] = rows.get(tuple(section), "") + f"| `{variable}` | {_default(field)} | {_said(field)} |\n"
    titles = {section: f"`[{'.'.join(section)}]`" if section else "Top level" for section in rows}
    head = _head("setting", "default", "what it is")
    return "\n".join(f"## {titles[section]}\n\n{head}{table}" for section, table in rows.items())


def metrics_table(registry: CollectorRegistry) -> str:
    return _head("name", "kind", "labels", "what it is") + "".join(
        f"| `{s.name}` | {s.kind} | {', '.join(f'`{label}`' for label in s.labels)} | {s.text} |\n"
        for s in series(registry)
    )


def buckets_table() -> str:
    return _head("histogram", "upper edges") + "".join(
        f"| `{s.name}` | {', '.join(f'{edge:g}' for edge in s.buckets)} |\n"
        for registry in registries()
        for s in series(registry)
        if s.buckets
    )


def registries() -> tuple[CollectorRegistry, CollectorRegistry]:
    """The worker's and the training's."""
    return Metrics().registry, training.metrics.Metrics().registry


def value_schema(kind: type[msgspec.Struct], title: str) -> str:
    """A JSON Schema of a topic's values. Readers must take fields that they do not know: none is forbidden."""
    schema: dict[str, Any] = msgspec.json.schema(kind)
    return _json({"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title, **schema})


def headers_schema() -> str:
    """The event's Kafka headers, each as text. What two quite different events have in common is constant."""
    one, other = _headers_of(_event(1)), _headers_of(_event(2))
    properties = {
        name: {"type": "string", "description": HEADERS[name]}
        | ({"const": one[name]} if one[name] == other[name] else FORMATS[name])
        for name in one
    }
    return _json(
        {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": "Kafka headers of a zmu anomaly event: CloudEvents 1.0, binary mode",
            "type": "object",
            "properties": properties | TRACE,
            "required": list(properties),
        }
    )


_asyncapi: Callable[[], dict[str, Any]] = runpy.run_path(str(DOCS / "asyncapi.py"))["asyncapi"]   # docs/ is no package

PARTS: Mapping[str, Callable[[], str]] = {
    "worker commands": lambda: _usage(worker.__main__.main),
    "training commands": lambda: _usage(training.__main__.main),
    "own flags": own_flags_table,
    "settings": settings_table,
    "worker metrics": lambda: metrics_table(registries()[0]),
    "training metrics": lambda: metrics_table(registries()[1]),
    "buckets": buckets_table,
}


def with_parts(page: str) -> str:
    """The page with each marked part as the code has it now."""
    marked = re.compile(r"(<!-- docs/make.py: (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)
    return marked.sub(lambda found: found[1] + PARTS[found[2]]() + found[3], (DOCS / page).read_text())


PAGES: Mapping[str, Callable[[], str]] = {
    "settings.md": lambda: with_parts("settings.md"),
    "metrics.md": lambda: with_parts("metrics.md"),
    "event.schema.json": lambda: value_schema(Event, "zmu anomaly event"),
    "incident.schema.json": lambda: value_schema(Incident, "zmu incident"),
    "event-headers.schema.json": headers_schema,
    "feedback.schema.json": lambda: value_schema(Verdict, "zmu feedback"),
    "maintenance.schema.json": lambda: value_schema(Work, "zmu maintenance"),
    "asyncapi.json": lambda: _json(_asyncapi()),
}


def _usage(main: Callable[[list[str]], int]) -> str:
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        main(["--help"])
    return f"```text\n{shown.getvalue().strip()}\n```\n"


def _argument(name: str, field: FieldInfo) -> str:
    positional = any(getattr(mark, "__name__", "") == "_CliPositionalArg" for mark in field.metadata)
    return name.upper() if positional else f"--{name.replace('_', '-')}"


def _head(*columns: str) -> str:
    return f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}\n"


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if value is None or value == () or value == {}:
        return ""
    if hasattr(value, "get_secret_value"):
        return "a secret"
    return f"`{json.dumps(value) if isinstance(value, list | tuple | bool) else value}`"


def _said(field: FieldInfo) -> str:
    choices = [str(choice) for choice in _choices(field.annotation)]
    said = (field.description or "").replace("|", "\\|")
    return f"{said} One of {', '.join(f'`{choice}`' for choice in choices)}." if len(choices) > 1 else said


def _choices(annotation: Any) -> Iterator[object]:
    if get_origin(annotation) is Literal:
        yield from get_args(annotation)
    else:
        for part in get_args(annotation):
            yield from _choices(part)


def _event(n: int) -> Event:
    return Event(
        kind="anomaly" if n == 1 else "stuck",
        event_id=UUID(int=n),
        entity=f"pump-{n}",
        timestamp=f"2026-01-01T00:00:00.00{n}Z",
        detected_at=f"2026-01-01T00:00:01.00{n}Z",
        anomaly_score=1.0 + n,
        p_value=0.1 / n,
        severity="warning" if n == 1 else "critical",
        contributions=(),
        model=ModelRef(f"name-{n}", f"v{n}", "0" * 64),
        source=Origin(f"topic-{n}", n, n),
    )


def _headers_of(event: Event) -> dict[str, str]:
    return {name: value.decode() for name, value in event_message("sensor-anomalies", event).headers}


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    for name, page in PAGES.items():
        (DOCS / name).write_text(page())


if __name__ == "__main__":
    main()
