"""What a reading costs where a message holds many as an Arrow stream, beside JSON: decoded, and scored.

    python -m tests.benchmarks arrow [--rounds 30]

In one process and without a broker, by the worker's own decoder and watch. 20 features, 50 entities; scored by 2,048
readings, one by one and with memory (windows of 10, chart, following threshold). The floor is the model's pass alone,
of the readings one by one. µs of CPU a reading: the least of the rounds.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from kafka.record.default_records import DefaultRecordBatchBuilder

from tests import factory
from tests.benchmarks import figures
from tests.benchmarks.cost import HEADER_BYTES, Cost
from tests.benchmarks.readings import ENTITIES, FEATURES
from tests.worker.streams import stream
from worker import compiled
from worker.codec.columns import ColumnDecoder
from worker.codec.readings import ReadingSchema
from worker.detection.detector import Detector
from worker.detection.scorer import Scorer, scorer_of
from worker.kafka.batches import RecordBatch
from worker.models import artifact
from worker.models.artifact import Artifact
from worker.records import F32
from worker.settings import InputSettings, Settings
from worker.watch import Watch

READINGS = 16_000                       # of a fetch
AT_ONCE = 2_048
PASSES = 20
POINTWISE, MEMORY = "one by one", "with memory"
MODELS = {POINTWISE: {}, MEMORY: factory.remembering(len(FEATURES)) | {"window": 10}}
Values = Callable[[F32, int], list[bytes]]


def by_name(x_BF: F32, first: int) -> list[bytes]:
    rows = (dict(zip(FEATURES, row, strict=True)) for row in x_BF.astype(float).round(6).tolist())
    return [_json({"timestamp": _stamp(first + i), **row}) for i, row in enumerate(rows)]


def as_array(x_BF: F32, first: int) -> list[bytes]:
    rows = enumerate(x_BF.astype(float).round(6).tolist())
    return [_json({"timestamp": _stamp(first + i), "values": row}) for i, row in rows]


def in_arrow(rows: int, codec: str | None = None, kind: str = "names") -> Values:
    def values(x_BF: F32, first: int) -> list[bytes]:
        return [_stream(x_BF[at : at + rows], first + at, codec, kind) for at in range(0, len(x_BF), rows)]

    return values


FORMS: Mapping[str, Values] = {
    "JSON, features by name": by_name,
    "JSON, one array": as_array,
    "Arrow, 100 rows": in_arrow(100),
    "Arrow, 1,000 rows": in_arrow(1_000),
    "Arrow, 1,000 rows, lists": in_arrow(1_000, kind="lists"),
    "Arrow, 1,000 rows, lz4": in_arrow(1_000, "lz4"),
    "Arrow, 1,000 rows, zstd": in_arrow(1_000, "zstd"),
    "Arrow, 8,000 rows": in_arrow(8_000),
}


def _stamp(i: int) -> int:
    return 1_764_000_000_000 + i


def _json(value: Mapping[str, object]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _stream(x_BF: F32, first: int, codec: str | None, kind: str) -> bytes:
    n = len(x_BF)
    columns = {
        "entity": pa.array([f"pump-{(first + i) % ENTITIES}" for i in range(n)]).dictionary_encode(),
        "timestamp": pa.array(_stamp(first) + np.arange(n), pa.timestamp("ms")),
    }
    if kind == "lists":
        numbers = {"values": pa.FixedSizeListArray.from_arrays(pa.array(x_BF.ravel()), len(FEATURES))}
    else:
        numbers = {name: pa.array(x_BF[:, f]) for f, name in enumerate(FEATURES)}
    return stream({**numbers, **columns}, codec)


def fetched(values: Sequence[bytes], first_offset: int) -> RecordBatch:
    builder = DefaultRecordBatchBuilder(2, 0, False, -1, -1, -1, 2**30)
    for i, value in enumerate(values):
        builder.append(i, _stamp(i), b"pump-%d" % (i % ENTITIES), value, [])
    return RecordBatch(
        0, first_offset, _stamp(0), None, len(values), 0, bytes(builder.build())[HEADER_BYTES:], "readings",
        first_offset + len(values), 0,
    )


class Form:
    """One way to send the same readings."""

    def __init__(self, values: Values, loaded: Artifact) -> None:
        watch = Watch(Settings(), "readings")
        watch.serve(Detector(loaded))
        self._watch, self._decoder = watch, ColumnDecoder(ReadingSchema.of(FEATURES, InputSettings()), watch.entities)
        x_BF = np.random.default_rng(0).normal(0, 0.3, (READINGS, len(FEATURES))).astype(np.float32)
        sent = values(x_BF, 0)
        self.bytes = sum(map(len, sent)) / READINGS
        self._batch = fetched(sent, 0)
        self._rounds: list[Cost] = []

    def round(self) -> None:
        start = time.process_time()
        decoded = self._decoder.decode([self._batch])
        between = time.process_time()
        assert len(decoded.batch) == READINGS
        for part in decoded.batch.slices(AT_ONCE):
            self._watch.process(part)
        scored = time.process_time() - between
        self._rounds.append(Cost((between - start) / READINGS * 1e6, scored / READINGS * 1e6))

    @property
    def cost(self) -> Cost:
        return Cost(min(r.decode for r in self._rounds), min(r.score for r in self._rounds))


def pass_alone(scorer: Scorer) -> float:
    """µs a reading."""
    x_BF = np.zeros((AT_ONCE, len(FEATURES)), np.float32)
    index_BW = np.arange(AT_ONCE)[:, None]
    start = time.process_time()
    for _ in range(PASSES):
        scorer.expected(x_BF, index_BW)
    return (time.process_time() - start) / (AT_ONCE * PASSES) * 1e6


def table(forms: Mapping[tuple[str, str], Form]) -> str:
    each = [f"score µs, {kind} | both | a second and core" for kind in MODELS]
    lines = [f"| readings | bytes | decode µs | {' | '.join(each)} |", "|---" * (3 + 3 * len(MODELS)) + "|"]
    for name in FORMS:
        costs = [forms[name, kind].cost for kind in MODELS]
        decode = min(cost.decode for cost in costs)
        cells = [f"{cost.score:.2f} | {decode + cost.score:.2f} | {1e6 / (decode + cost.score):,.0f}" for cost in costs]
        lines.append(f"| {name} | {forms[name, POINTWISE].bytes:,.0f} | {decode:.2f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(args: Sequence[str] | None = None) -> int:
    parser = figures.parser("arrow", __doc__)
    parser.add_argument("--rounds", type=int, default=30, help="of 16,000 readings in each form (%(default)s)")
    asked = parser.parse_args(args)
    torch.set_num_threads(1)
    compiled.choose("auto")
    where = f"{figures.machine()}; core {'built' if compiled.built() else 'not built'}"
    print(f"{where}\n")
    models: dict[str, Artifact] = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind, more in MODELS.items():
            registry = factory.publish(
                Path(folder) / kind, features=FEATURES, hidden=(64,), latent=10, **more,  # type: ignore[arg-type]
            )
            models[kind] = artifact.load(registry, "v1", torch.device("cpu"))
    forms = {(name, kind): Form(values, loaded) for name, values in FORMS.items() for kind, loaded in models.items()}
    scorer = scorer_of(models[POINTWISE].model, 1, len(FEATURES))
    passes: list[float] = []
    for _ in range(asked.rounds):                       # in turn: what else the machine does disturbs all alike
        for form in forms.values():
            form.round()
        passes.append(pass_alone(scorer))
    print(f"{table(forms)}\n\nThe model's pass alone: {min(passes):.2f} µs")
    figures.keep(
        asked.json, machine=where, bytes={name: forms[name, POINTWISE].bytes for name in FORMS}, pass_us=min(passes),
        cost={kind: {name: forms[name, kind].cost for name in FORMS} for kind in MODELS},
    )
    return 0
