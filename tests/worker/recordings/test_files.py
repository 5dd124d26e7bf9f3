"""Files and Kafka mean the same."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from worker.codec.readings import ReadingDecoder, ReadingSchema
from worker.entities import Entities
from worker.errors import InputError
from worker.recordings import files
from worker.records import Batch, PlainRecord, Refusal

AB = ReadingSchema(("a", "b"))


def read(path: Path, schema: ReadingSchema = AB) -> tuple[Batch, list[Refusal], list[str]]:
    entities = Entities()
    batch, refused = files.read(path, schema, entities)
    return batch, refused, [entities.names[code] for code in batch.entity_B]


def written(path: Path, text: str) -> Path:
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


@pytest.mark.parametrize("name", ["m.csv", "m.csv.gz", "m.jsonl", "m.jsonl.gz", "m.parquet"])
def test_every_format_gives_the_numbers_that_kafka_would(tmp_path: Path, name: str) -> None:
    rng = np.random.default_rng(0)
    rows = [
        {"timestamp": 1_764_000_000_000 + i, "a": float(x), "b": None if i % 7 == 0 else float(x) * 1e-9}
        for i, x in enumerate(rng.normal(0, 1e5, 500))
    ]
    path = tmp_path / name
    if name == "m.parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif "csv" in name:
        lines = [",".join("" if v is None else repr(v) for v in row.values()) for row in rows]
        written(path, "\n".join(["timestamp,a,b", *lines]))
    else:
        written(path, "\n".join(map(json.dumps, rows)))
    records = [PlainRecord("t", 0, i, 0, b"m", json.dumps(row).encode()) for i, row in enumerate(rows)]
    kafka, _ = ReadingDecoder(AB, Entities()).decode(records)

    batch, refused, names = read(path)
    assert not refused
    assert batch.x_BF.tobytes() == kafka.x_BF.tobytes()
    assert np.array_equal(batch.timestamp_ms_B, kafka.timestamp_ms_B)
    assert np.array_equal(batch.offset_B, np.arange(500))
    assert set(names) == {"m"}


def test_what_is_no_reading_is_refused_with_its_row(tmp_path: Path) -> None:
    path = written(tmp_path / "m.csv", "a;b\n1;2\n1\n\nhigh;1\n3;inf\n1e39;1\nTRUE;nan\n1;2;3\n5;\n")
    batch, refused, _ = read(path)
    found = [(r.record.offset, r.code, r.feature) for r in refused]
    assert found == [
        (1, "wrong_length", None),
        (2, "wrong_type", "a"),
        (3, "non_finite", "b"),
        (4, "non_finite", "a"),
        (6, "wrong_length", None),
    ]
    assert batch.offset_B.tolist() == [0, 5, 7]
    np.testing.assert_array_equal(batch.x_BF, np.array([[1, 2], [1, np.nan], [5, np.nan]], np.float32))


def test_overflow_alone_is_refused_too(tmp_path: Path) -> None:
    batch, refused, _ = read(written(tmp_path / "m.csv", "a,b\n1,2\n1e39,1\n"))
    assert batch.offset_B.tolist() == [0]
    assert [(r.record.offset, r.code) for r in refused] == [(1, "non_finite")]


@pytest.mark.parametrize(
    ("column", "text", "stamp"),
    [
        ("timestamp", "1764000000000", 1_764_000_000_000),
        ("timestamp", "1764000000.5", 1_764_000_000_500),
        ("timestamp", "2025-11-24T16:00:00Z", 1_764_000_000_000),
        ("datetime", "2025-11-24 16:00:00", 1_764_000_000_000),
        ("when", "2025-11-24T17:00:00+01:00", 1_764_000_000_000),
        ("label", "pump", -1),
        ("timestamp", "", -1),
    ],
)
def test_the_time_of_a_row(tmp_path: Path, column: str, text: str, stamp: int) -> None:
    batch, refused, _ = read(written(tmp_path / "m.csv", f"{column},a,b\n{text},1,2\n"))
    assert batch.timestamp_ms_B.tolist() == [stamp]
    assert not refused


def test_a_time_that_is_none_is_refused(tmp_path: Path) -> None:
    _, refused, _ = read(written(tmp_path / "m.csv", "timestamp,a,b\n2025-11-24,1,2\nnoon,1,2\n"))
    assert [(r.record.offset, r.code) for r in refused] == [(1, "bad_timestamp")]


def test_json_lines_without_a_time_have_none(tmp_path: Path) -> None:
    batch, _, _ = read(written(tmp_path / "m.jsonl", '{"a": 1, "b": true}\n\n{"values": [1, null]}\n'))
    assert batch.timestamp_ms_B.tolist() == [-1, -1]
    assert batch.offset_B.tolist() == [0, 1]


def test_the_entity_is_a_column_or_the_file(tmp_path: Path) -> None:
    path = written(tmp_path / "press.7.csv", "machine,a,b\np1,1,2\n,1,2\n7,1,2\np1,1,2\n")
    assert set(read(path)[2]) == {"press.7"}
    batch, refused, names = read(path, ReadingSchema(("a", "b"), entity_field="machine"))
    assert names == ["p1", "7", "p1"]
    assert [(r.record.offset, r.code) for r in refused] == [(1, "bad_entity")]
    assert batch.entity_B.tolist() == [0, 1, 0]


def test_parquet_of_other_types(tmp_path: Path) -> None:
    table = pa.table(
        {
            "a": pa.array([1, 2], pa.int64()),
            "b": pa.array([True, None]),
            "at": pa.array([1_764_000_000_123_456, 0], pa.timestamp("us", "UTC")),
            "machine": pa.array(["x", "y"]).dictionary_encode(),
        }
    )
    pq.write_table(table, tmp_path / "m.parquet")
    batch, _, names = read(tmp_path / "m.parquet", ReadingSchema(("a", "b"), entity_field="machine"))
    np.testing.assert_array_equal(batch.x_BF, np.array([[1, 1], [2, np.nan]], np.float32))
    assert batch.timestamp_ms_B.tolist() == [1_764_000_000_123, 0]
    assert names == ["x", "y"]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("m.csv", None, "does not exist"),
        ("m.csv", "", "is empty"),
        ("m.csv", "a,c\n1,2\n", "no column 'b'"),
        ("m.csv", "a,b\n", "holds no readings"),
        ("m.csv", "a,b\nx,y\n", "row 0: a is 'x'"),
        ("m.csv", "a,a\n1,2\n", "'a' twice"),
        ("m.csv.gz", "not gzip", "not readable"),
        ("m.jsonl.gz", "not gzip", "not readable"),
        ("m.jsonl", '{"c": 1}\n', "none of the model's features"),
        ("m.parquet", "not parquet", "not readable as Parquet"),
        ("m.xlsx", "a", "recordings end in"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(tmp_path: Path, name: str, text: str | None, said: str) -> None:
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=said):
        read(path)
