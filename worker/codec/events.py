"""Anomaly events and dead letters → Kafka messages. An event is JSON, its envelope CloudEvents 1.0, binary mode."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from worker.kafka.sink import Message
from worker.records import Event, Record, Refusal

CE_TYPE = "io.zmu.anomaly.v1"
NOTE_KEY_BYTES = 256
OMITTED = "value.omitted_bytes"
MOST_SPANS = 100                        # of rows, that are named

_encoder = msgspec.json.Encoder()


def event_message(topic: str, event: Event) -> Message:
    headers = [
        ("ce_specversion", b"1.0"),
        ("ce_id", str(event.event_id).encode()),
        ("ce_source", f"kafka:{event.source.topic}/{event.source.partition}".encode()),
        ("ce_type", CE_TYPE.encode()),
        ("ce_time", event.timestamp.encode()),
        ("content-type", b"application/json"),
    ]
    return Message(topic, event.entity.encode(), _encoder.encode(event), headers, source=event.source)


def dead_letter(topic: str, refusal: Refusal) -> Message:
    """The record as received, its own headers kept, and after them why it is here and where it came from. Of rows of a
    record, these rows only: its other ones were readings.
    """
    record = refusal.record
    why = [("error.code", refusal.code.encode()), ("error.message", refusal.message.encode("utf-8", "replace"))]
    if refusal.feature is not None:
        why.append(("error.feature", refusal.feature.encode("utf-8", "replace")))
    why += [
        ("source.topic", record.topic.encode()),
        ("source.partition", str(record.partition).encode()),
        ("source.offset", str(record.offset).encode()),
        ("source.timestamp", str(record.timestamp).encode()),
    ]
    if refusal.rows:
        why.append(("source.row", _spans(refusal.rows).encode()))
    # A tombstone stays one; Kafka wants a key beside it, and a tombstone without a key becomes an empty value.
    value = b"" if record.value is None and record.key is None else record.value
    # The record still lies at its source: where this topic takes none so large, only the note of it goes there.
    note = Message(topic, (record.key or b"")[:NOTE_KEY_BYTES], b"", [*why, (OMITTED, str(len(value or b"")).encode())])
    return Message(topic, record.key, value, [*_received(record), *why], note)


def _spans(rows: Sequence[int]) -> str:
    """Ascending rows: 3,7-9,12."""
    spans: list[list[int]] = []
    for row in rows:
        if spans and row == spans[-1][1] + 1:
            spans[-1][1] = row
        else:
            spans.append([row, row])
    said = [str(first) if first == last else f"{first}-{last}" for first, last in spans[:MOST_SPANS]]
    return ",".join([*said, "…"] if len(spans) > MOST_SPANS else said)


def _received(record: Record) -> list[tuple[str, bytes]]:
    return [(name, value if value is not None else b"") for name, value in record.headers]
