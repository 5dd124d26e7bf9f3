"""The worker's detector on recordings, without Kafka: a row out for every reading in."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TextIO

from worker.codec.readings import ReadingSchema
from worker.detection.detector import AT_ONCE, Detector
from worker.entities import Entities
from worker.recordings import files
from worker.records import Refusal, rfc3339
from worker.settings import InputSettings

COLUMNS = ("entity", "timestamp", "offset", "anomaly_score", "p_value", "is_anomaly")
SHOWN = 5


def score_files(paths: Sequence[Path], detector: Detector, settings: InputSettings, out: TextIO) -> list[Refusal]:
    """Writes CSV with a header; offset is the 0-based row of its file. Returns the rows that are no readings.

    Raises InputError where a file cannot be used.
    """
    table = csv.writer(out, lineterminator="\n")
    table.writerow(COLUMNS)
    schema = ReadingSchema.of(detector.manifest.features, settings)
    refused: list[Refusal] = []
    for path in paths:
        entities = Entities()
        batch, bad = files.read(path, schema, entities)
        refused += bad
        states = detector.states()
        states.reserve(entities.capacity)
        for start in range(0, len(batch), AT_ONCE):
            part = batch.take(slice(start, start + AT_ONCE))
            scores = detector.score(part, states)
            for code, timestamp_ms, offset, score, p_value in zip(
                part.entity_B.tolist(),
                part.timestamp_ms_B.tolist(),
                part.offset_B.tolist(),
                scores.anomaly_score_B.tolist(),
                scores.p_value_B.tolist(),
                strict=True,
            ):
                stamp = rfc3339(timestamp_ms) if timestamp_ms >= 0 else ""
                table.writerow((entities.names[code], stamp, offset, repr(score), repr(p_value), int(score > 1)))
    return refused


def say_refused(refused: Iterable[Refusal]) -> None:
    """The first few on stderr, and how many in all."""
    all_refused = list(refused)
    for refusal in all_refused[:SHOWN]:
        print(f"row {refusal.record.offset}: {refusal.code}: {refusal.message}", file=sys.stderr)
    if all_refused:
        print(f"{len(all_refused)} rows are no readings and have no score", file=sys.stderr)
