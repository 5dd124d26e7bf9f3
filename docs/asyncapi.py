"""The topics as an AsyncAPI 3.0 document; docs/make.py writes it."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import training.settings
from worker.cli import variables
from worker.codec.events import dead_letter
from worker.codec.incidents import incident_message
from worker.incidents.incidents import Incident
from worker.kafka.sink import Message
from worker.records import Origin, PlainRecord, Refusal

DOCS = Path(__file__).parent
_TIMESTAMP = {
    "description": "Epoch ms, epoch s or RFC 3339. Where it is absent, Kafka's timestamp counts.",
    "type": ["number", "string"],
}
_FEATURE = {"description": "null or absent: missing.", "type": ["number", "boolean", "null"]}
_RECEIVED = ("reading", "feedback", "maintenance")
_KEYS = {"feedback": "Not looked at.", "maintenance": "Of the work: what is told later under it counts."}
_REFUSAL = Refusal(PlainRecord("sensor-readings", 0, 0, 0, b"pump-1", b"junk"), "wrong_type", "why", "pressure", (3,))


def asyncapi() -> dict[str, Any]:
    """Default names, keys, headers and values."""
    topics = {name: field.default for name, field in variables(training.settings.Settings) if name.endswith("_TOPIC")}
    channels = {
        name: {
            "address": topics[setting],
            "description": f"{setting}. {text}",
            "messages": {name: {"$ref": f"#/components/messages/{name}"}},
            "bindings": {"kafka": {"topicConfiguration": {"cleanup.policy": [policy]}}},
        }
        for name, setting, text, policy in (
            ("reading", "ZMU_INPUT__TOPIC", "Readings of sensors.", "delete"),
            ("anomaly", "ZMU_OUTPUT__TOPIC", "Anomalies, and faults of sensors.", "delete"),
            ("incident", "ZMU_INCIDENTS__TOPIC", "Consecutive anomalies as one thing: open, update, close.", "compact"),
            ("deadLetter", "ZMU_DEAD_LETTERS__TOPIC", "Records that are no readings.", "delete"),
            ("feedback", "ZMU_TRAINING__FEEDBACK__TOPIC", "What people say of anomalies; for training.", "delete"),
            ("maintenance", "ZMU_TRAINING__MAINTENANCE_TOPIC", "Times not to learn from; for training.", "compact"),
        )
    }
    message = {
        "reading": {
            "contentType": "application/json",
            "description": "Features by name, or as one array: numbers, booleans, or null (missing). Other fields are "
            "passed over. Or an Arrow IPC stream of many readings (application/vnd.apache.arrow.stream).",
            "payload": {"anyOf": [
                {"type": "object", "properties": {"timestamp": _TIMESTAMP}, "additionalProperties": True},
                {"type": "object", "properties": {
                    "timestamp": _TIMESTAMP, "values": {"type": "array", "items": _FEATURE},
                }, "required": ["values"]},
            ]},
        },
        "anomaly": {
            "contentType": "application/json",
            "headers": {"$ref": "./event-headers.schema.json"},
            "payload": {"$ref": "./event.schema.json"},
        },
        "incident": {
            "contentType": "application/json",
            "headers": _headers(incident_message("", _incident())),
            "payload": {"$ref": "./incident.schema.json"},
        },
        "deadLetter": {
            "contentType": "application/octet-stream",
            "description": "Key, value and headers as received, and these headers after them; of an Arrow stream, "
            "the rows that source.row names.",
            "headers": _headers(dead_letter("", _REFUSAL), optional=("error.feature", "source.row")),
            "payload": {},
        },
        "feedback": {
            "contentType": "application/json",
            "description": "The last word on an event counts. Other fields are welcome.",
            "payload": {"$ref": "./feedback.schema.json"},
        },
        "maintenance": {
            "contentType": "application/json",
            "description": "By key the last word counts; no value takes it back. Other fields are welcome.",
            "payload": {"$ref": "./maintenance.schema.json"},
        },
    }  # fmt: skip
    return {
        "asyncapi": "3.0.0",
        "id": "urn:zmu",
        "info": {
            "title": "zmu",
            "version": tomllib.loads((DOCS.parent / "pyproject.toml").read_text())["project"]["version"],
            "description": "Reads readings, writes what is anomalous; training reads what people say. "
            "At least once: drop repeats by event_id.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": {
            f"{'receive' if name in _RECEIVED else 'send'}{name[0].upper()}{name[1:]}": {
                "action": "receive" if name in _RECEIVED else "send",
                "channel": {"$ref": f"#/channels/{name}"},
            }
            for name in channels
        },
        "components": {
            "messages": {
                name: {"name": name, **fields, "bindings": {"kafka": {
                    "key": {"type": "string", "description": _KEYS.get(name, "The entity.")},
                }}}
                for name, fields in message.items()
            }
        },
    }  # fmt: skip


def _incident() -> Incident:
    return Incident(
        state="open",
        incident_id=UUID(int=1),
        entity="pump-1",
        opened_at="2026-01-01T00:00:00.000Z",
        updated_at="2026-01-01T00:00:00.000Z",
        severity="warning",
        peak_score=1.5,
        readings=3,
        first_event_id=UUID(int=2),
        last_event_id=UUID(int=3),
        features=(),
        group_id=UUID(int=1),
        source=Origin("sensor-readings", 0, 0),
    )


def _headers(message: Message, optional: Sequence[str] = ()) -> dict[str, Any]:
    names = [name for name, _ in message.headers]
    return {
        "type": "object",
        "properties": {name: {"type": "string"} for name in names},
        "required": [name for name in names if name not in optional],
    }
