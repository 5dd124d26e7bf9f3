"""The loop that one writes by hand, done well: poll → msgspec → one forward per poll → send → commit.

    python -m tests.benchmarks.plain_loop BROKER REGISTRY INPUT OUTPUT GROUP SECONDS READINGS

It scores the readings with the same model as the worker, tells what it finds in short, and leaves after so many
readings. It checks nothing, remembers nothing of an entity and dies of a bad record; what the worker's speed is stated
as is the ratio to it. SECONDS: how long a poll waits.
"""

from __future__ import annotations

import json
import sys
import time
from operator import attrgetter

import msgspec
import numpy as np
import torch
from kafka import KafkaConsumer, KafkaProducer

from worker.models import artifact
from worker.models.registry import Registry

MAX_RECORDS = 2048


def main(broker: str, place: str, topic: str, output: str, group: str, wait_seconds: float, readings: int) -> None:
    loaded = artifact.load(Registry(place, "default"), "v1", torch.device("cpu"))
    manifest, model = loaded.manifest, loaded.model
    names = [f"f{i}" for i in range(len(manifest.features))]
    reading = msgspec.defstruct(
        "Reading",
        [*((name, float, float("nan")) for name in names), ("values", list[float] | None, None), ("timestamp", int, 0)],
        rename=dict(zip(names, manifest.features, strict=True)),
        gc=False,
    )
    decode, encode, by_name = msgspec.json.Decoder(reading).decode, msgspec.json.encode, attrgetter(*names)
    offset_F, span_F = np.float32(manifest.scaling.offset), np.float32(manifest.scaling.span)
    consumer = KafkaConsumer(
        topic, bootstrap_servers=broker, group_id=group, enable_auto_commit=False, auto_offset_reset="earliest",
        isolation_level="read_committed", metrics_enabled=False, fetch_max_wait_ms=100,
    )
    producer = KafkaProducer(
        bootstrap_servers=broker, acks="all", linger_ms=0, compression_type="lz4", metrics_enabled=False
    )
    seen = first = 0
    start = start_cpu = 0.0
    while seen < readings:
        found = consumer.poll(timeout_ms=round(wait_seconds * 1000), max_records=MAX_RECORDS)
        records = [record for some in found.values() for record in some]
        if not records:
            continue
        decoded = [decode(record.value) for record in records]
        rows = [r.values if r.values is not None else by_name(r) for r in decoded]
        x_BF = (np.array(rows, np.float32) - offset_F) / span_F
        with torch.inference_mode():
            expected_BF = model.predict(torch.from_numpy(x_BF)).numpy()
        score_B = ((x_BF - expected_BF) ** 2).mean(1) / manifest.calibration.threshold
        for i in np.flatnonzero(score_B > 1).tolist():
            record = records[i]
            event = {"score": float(score_B[i]), "timestamp": decoded[i].timestamp, "offset": record.offset}
            producer.send(output, key=record.key, value=encode(event))
        producer.flush()
        consumer.commit()
        seen += len(records)
        if not start:
            start, start_cpu, first = time.perf_counter(), time.process_time(), seen
    taken, taken_cpu = time.perf_counter() - start, time.process_time() - start_cpu
    print(json.dumps({"per_second": (seen - first) / taken, "cpu_us": taken_cpu / (seen - first) * 1e6}))
    consumer.close()
    producer.close()


if __name__ == "__main__":
    main(*sys.argv[1:6], float(sys.argv[6]), int(sys.argv[7]))
