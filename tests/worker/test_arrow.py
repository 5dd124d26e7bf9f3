"""A record that is an Arrow stream: each row means what the same reading in JSON means, and is refused for the same."""

from __future__ import annotations

import datetime
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.factory import FEATURES
from tests.worker.record_batches import Content, batch_of, fetched
from tests.worker.streams import NOW_MS, SCHEMA, decoded, lists_of, refused_whole, stream
from worker.codec.columns import ColumnDecoder
from worker.codec.readings import ReadingDecoder, ReadingSchema
from worker.entities import Entities
from worker.kafka.rawfetch import WholeBatches
from worker.records import PlainRecord

NUMBERS = {"temperature": [20.0, 21.5], "pressure": [3.0, None], "flow": [50, 51]}


def test_rows_are_readings() -> None:
    stamps = pa.array([NOW_MS, NOW_MS + 7], pa.timestamp("ms"))
    batch, refused, names = decoded(stream({**NUMBERS, "entity": ["pump-1", "pump-2"], "timestamp": stamps, "x": "ab"}))
    assert refused == []
    np.testing.assert_array_equal(batch.x_BF, np.array([[20, 3, 50], [21.5, np.nan, 51]], np.float32))
    assert batch.timestamp_ms_B.tolist() == [NOW_MS, NOW_MS + 7]
    assert names == ["pump-1", "pump-2"]
    assert (batch.partition_B.tolist(), batch.offset_B.tolist(), batch.rows_B.tolist()) == ([2, 2], [41, 41], [0, 1])


@pytest.mark.parametrize("codec", [None, "lz4", "zstd"])
def test_several_record_batches_are_one_run_of_rows(codec: str | None) -> None:
    names = pa.array([f"pump-{i % 3}" for i in range(9)]).dictionary_encode()
    whole, *_ = decoded(stream({"flow": list(range(9)), "entity": names}, codec))
    parts, _, said = decoded(stream({"flow": list(range(9)), "entity": names}, codec, cuts=(2, 2, 7)))
    assert parts.rows_B.tolist() == list(range(9))
    assert parts.x_BF.tobytes() == whole.x_BF.tobytes()
    assert said == [f"pump-{i % 3}" for i in range(9)]


@pytest.mark.parametrize(
    "kind",
    [pa.int8(), pa.uint8(), pa.int16(), pa.uint16(), pa.int32(), pa.uint32(), pa.int64(), pa.uint64(), pa.float16(),
     pa.float32(), pa.float64()],
    ids=str,
)
def test_numbers_of_every_width(kind: Any) -> None:
    column = pa.array([1, None, 3], pa.float64()).cast(kind)
    batch, refused, _ = decoded(stream({"temperature": column, "flow": pa.array([1, None, 3], kind)}))
    assert refused == []
    expected = [[1, np.nan, 1], [np.nan] * 3, [3, np.nan, 3]]
    np.testing.assert_array_equal(batch.x_BF, np.array(expected, np.float32))


def test_booleans_count_and_a_column_of_nulls_is_missing() -> None:
    batch, *_ = decoded(stream({"flow": [True, False, None], "pressure": pa.nulls(3)}))
    np.testing.assert_array_equal(batch.x_BF[:, 2], np.array([1, 0, np.nan], np.float32))
    assert np.isnan(batch.x_BF[:, :2]).all()


@pytest.mark.parametrize("kind", ["fixed", "list", "large"])
def test_all_features_as_lists(kind: str) -> None:
    batch, refused, _ = decoded(stream({"values": lists_of(kind, [[1, 2, 3], [4, None, 6]]), "flow": [9, 9]}))
    assert refused == []
    np.testing.assert_array_equal(batch.x_BF, np.array([[1, 2, 3], [4, np.nan, 6]], np.float32))


@pytest.mark.parametrize("kind", ["list", "large"])
def test_lists_of_the_wrong_length_are_refused_by_row(kind: str) -> None:
    rows = [[1, 2, 3], [4, 5], [6, 7, float("inf")], None, [7, None, 9], [1, 2, 3, 4]]
    batch, refused, _ = decoded(stream({"values": lists_of(kind, rows)}))
    np.testing.assert_array_equal(batch.x_BF, np.array([[1, 2, 3], [7, np.nan, 9]], np.float32))
    assert batch.rows_B.tolist() == [0, 4]
    assert {why.code: why.rows for why in refused} == {"no_features": (3,), "wrong_length": (1, 5), "non_finite": (2,)}
    assert "row 1: values has 2 numbers; the model has 3 features (2 rows" in refused[1].message


def test_the_entity() -> None:
    numbers = {"flow": [1.0, 2.0]}
    assert decoded(stream(numbers))[2] == ["line-1"] * 2                                # by the key
    assert decoded(stream(numbers), key=None)[2] == ["unkeyed"] * 2
    assert decoded(stream({**numbers, "entity": [7, 8]}))[2] == ["7", "8"]
    named = ReadingSchema(FEATURES, entity_field="machine")
    both = stream({**numbers, "entity": ["a", "b"], "machine": pa.array(["c", "d"], pa.large_string())})
    assert decoded(both, named)[2] == ["c", "d"]
    assert refused_whole(stream({**numbers, "entity": ["a", "b"]}), named).code == "bad_entity"
    assert refused_whole(stream({**numbers, "entity": [1.5, 2.5]})).code == "bad_entity"
    assert refused_whole(stream(numbers), key=b"\xff").message == "the message key is not UTF-8"


def test_a_column_named_entity_that_is_a_feature_names_no_entity() -> None:
    batch, refused, names = decoded(stream({"entity": [1.0, 2.0]}), ReadingSchema(("entity", "flow")))
    assert names == ["line-1"] * 2
    assert batch.x_BF[:, 0].tolist() == [1, 2]
    assert refused == []


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "+02:00"])
def test_timestamps_of_every_unit(unit: str, zone: str | None) -> None:
    moments = [datetime.datetime.fromtimestamp(t, datetime.UTC) for t in (0, 1_764_000_000, 253_402_300_799)]
    column = pa.array(moments, pa.timestamp("us", "UTC")).cast(pa.timestamp(unit, zone), safe=False)
    column = pa.concat_arrays([column.slice(0, 2), pa.nulls(1, column.type)])
    batch, refused, _ = decoded(stream({"flow": [1, 2, 3], "timestamp": column}), stamp=55)
    assert refused == []
    assert batch.timestamp_ms_B.tolist() == [0, NOW_MS, 55]


@pytest.mark.parametrize(
    "column",
    [
        [NOW_MS, NOW_MS // 1000, 0, None, -1, 253_402_300_800_000],
        [NOW_MS + 0.25, 1_764_000_000.2515, -0.0001, None, float("nan"), 1e300],
        ["2025-11-24T16:00:00Z", "2025-11-24T17:00:00.123+01:00", "1970-01-01", None, "soon", "0001-01-01T00:00:00Z"],
    ],
    ids=["integers", "floats", "texts"],
)
def test_times_mean_what_they_mean_in_json(column: list[Any]) -> None:
    batch, refused, _ = decoded(stream({"flow": [1] * 6, "timestamp": column}))
    entities = Entities()
    values = [json.dumps({"flow": 1, "timestamp": None if item != item else item}).encode() for item in column]
    same, _ = ReadingDecoder(SCHEMA, entities).decode(
        [PlainRecord("t", 0, i, NOW_MS, b"k", value) for i, value in enumerate(values[:4])]
    )
    assert batch.timestamp_ms_B.tolist() == same.timestamp_ms_B.tolist()
    (refusal,) = refused
    assert (refusal.code, refusal.rows) == ("bad_timestamp", (4, 5))


def test_a_timestamp_of_half_a_millisecond_goes_to_the_even_one() -> None:
    column = pa.array([500, 1_500, 1_501, 2_499], pa.timestamp("us"))
    assert decoded(stream({"flow": [1] * 4, "timestamp": column}))[0].timestamp_ms_B.tolist() == [0, 2, 2, 2]


def test_bad_times_of_timestamp_columns() -> None:
    column = pa.array([2**62, -(2**62), NOW_MS], pa.timestamp("s"))
    batch, (refusal,), _ = decoded(stream({"flow": [1, 2, 3], "timestamp": column}))
    assert refusal.rows == (0, 1, 2)        # the last one is ms where seconds are said
    assert f"row 0: timestamp is {2**62} s, outside 1970 to 9999" in refusal.message
    assert len(batch) == 0
    late = refused_whole(stream({"flow": [1]}), stamp=2**62)
    assert late.code == "bad_timestamp"
    assert "year 9999" in decoded(stream({"flow": [1], "timestamp": pa.nulls(1)}), stamp=2**62)[1][0].message


def test_streams_among_json_in_order_of_arrival() -> None:
    """By whole record batches, whoever decodes them, and record by record."""
    rows = stream({"flow": [1.0, 2.0, float("nan"), 4.0]})
    json_ = b'{"flow": 9}'
    contents = [Content(NOW_MS, b"k", value) for value in (json_, rows, b"junk", json_, rows, json_)]
    raw, _ = batch_of(contents, 7)
    entities = Entities()
    found = ColumnDecoder(SCHEMA, entities).decode(list(fetched(WholeBatches, raw).take(None)))
    places = list(zip(found.batch.offset_B.tolist(), found.batch.rows_B.tolist(), strict=True))
    assert places == [(7, -1), (8, 0), (8, 1), (8, 3), (10, -1), (11, 0), (11, 1), (11, 3), (12, -1)]
    assert found.batch.x_BF[:, 2].tolist() == [9, 1, 2, 4, 9, 1, 2, 4, 9]
    assert sorted((why.record.offset, why.rows) for why in found.refused) == [(8, (2,)), (9, ()), (11, (2,))]
    assert found.by_partition() == {3: 12}
    only, _ = batch_of([Content(NOW_MS, b"k", rows)] * 2, 20)
    assert ColumnDecoder(SCHEMA, entities).decode(
        list(fetched(WholeBatches, only).take(None))
    ).batch.rows_B.tolist() == [0, 1, 3, 0, 1, 3]


KINDS = {
    "temperature": pa.float64(), "pressure": pa.int64(), "flow": pa.bool_(), "machine": pa.string(),
    "timestamp": pa.int64(),
}  # fmt: skip
reading_ = st.fixed_dictionaries({
    "temperature": st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False)),
    "pressure": st.one_of(st.none(), st.integers(-(2**60), 2**60)),
    "flow": st.one_of(st.none(), st.booleans()),
    "machine": st.one_of(st.none(), st.sampled_from(["pump-1", "pump-2", "", "µ" * 513])),
    "timestamp": st.one_of(st.none(), st.integers(-(2**53), 2**53), st.integers(0, 2**33)),
})  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.lists(reading_, min_size=1, max_size=8), st.sampled_from([None, "lz4", "zstd"]), st.booleans())
def test_a_row_is_what_its_reading_in_json_is(rows: list[dict[str, Any]], codec: Any, encoded: bool) -> None:
    schema = ReadingSchema(FEATURES, entity_field="machine")
    columns = {name: pa.array([row[name] for row in rows], kind) for name, kind in KINDS.items()}
    if encoded:
        columns["machine"] = columns["machine"].dictionary_encode()
    batch, refused, names = decoded(stream(columns, codec), schema)
    entities = Entities()
    texts = [json.dumps(row).encode() for row in rows]
    same, bad = ReadingDecoder(schema, entities).decode(
        [PlainRecord("t", 2, i, NOW_MS, b"line-1", text) for i, text in enumerate(texts)]
    )
    assert batch.rows_B.tolist() == same.offset_B.tolist()
    assert batch.x_BF.tobytes() == same.x_BF.tobytes()
    assert batch.timestamp_ms_B.tolist() == same.timestamp_ms_B.tolist()
    assert names == [entities.names[code] for code in same.entity_B]
    assert {row: why.code for why in refused for row in why.rows} == {why.record.offset: why.code for why in bad}
