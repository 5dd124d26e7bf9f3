"""Incidents → Kafka messages. An incident is JSON, its envelope CloudEvents 1.0, binary mode."""

from __future__ import annotations

from uuid import uuid5

import msgspec

from worker.incidents.incidents import Incident
from worker.kafka.sink import Message

CE_TYPE = "io.zmu.incident.v1"

_encoder = msgspec.json.Encoder()


def incident_message(topic: str, incident: Incident) -> Message:
    """Keyed by entity: on a compacted topic the entity's last state stays."""
    headers = [
        ("ce_specversion", b"1.0"),
        ("ce_id", _record_id(incident).encode()),
        ("ce_source", f"kafka:{incident.source.topic}/{incident.source.partition}".encode()),
        ("ce_type", CE_TYPE.encode()),
        ("ce_time", incident.updated_at.encode()),
        ("content-type", b"application/json"),
    ]
    return Message(topic, incident.entity.encode(), _encoder.encode(incident), headers, source=incident.source)


def _record_id(incident: Incident) -> str:
    """CloudEvents wants an id for each record. Between two records of one state there is always another anomaly."""
    return str(uuid5(incident.incident_id, f"{incident.state}/{incident.readings}"))
