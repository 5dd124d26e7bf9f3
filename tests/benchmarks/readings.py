"""The readings that the benchmarks send: 20 features, 1 % anomalous, 50 entities, 4 partitions, lz4."""

from __future__ import annotations

import json

import numpy as np
from kafka import KafkaProducer

FEATURES = tuple(f"sensor_{i:02d}" for i in range(20))
FORMS = ("named", "values")             # features by name, about 440 bytes; all as one array, about 230
PARTITIONS, ENTITIES, KINDS = 4, 50, 10_000


def payloads(form: str) -> list[bytes]:
    """Ten thousand different readings; one in a hundred is anomalous."""
    rng = np.random.default_rng(0)
    made = []
    for i in range(KINDS):
        values = (rng.normal(0, 0.3, len(FEATURES)) + (8 if i % 100 == 99 else 0)).round(6).tolist()
        row = dict(zip(FEATURES, values, strict=True)) if form == "named" else {"values": values}
        made.append(json.dumps({"timestamp": 1_764_000_000_000 + i, **row}, separators=(",", ":")).encode())
    return made


def fill(broker: str, topic: str, form: str, readings: int) -> int:
    """Writes them; returns the mean size of one in bytes."""
    producer = KafkaProducer(bootstrap_servers=broker, compression_type="lz4", linger_ms=20, batch_size=262_144)
    kinds = payloads(form)
    for i in range(readings):
        producer.send(topic, value=kinds[i % KINDS], key=b"pump-%d" % (i % ENTITIES))
    producer.flush()
    producer.close()
    return sum(map(len, kinds)) // KINDS
