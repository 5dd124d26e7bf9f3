"""Decoding: what counts as a reading, what is refused and why, and that nothing ever crashes or passes NaN off."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.factory import FEATURES, records
from worker.codec.readings import ReadingDecoder, ReadingSchema
from worker.codec.rules import UNKEYED
from worker.entities import Entities
from worker.records import PlainRecord


def decode(value: bytes | None, key: bytes | None = b"pump-1", **schema: Any) -> tuple[Any, Any, Entities]:
    entities = Entities()
    decoder = ReadingDecoder(ReadingSchema(FEATURES, **schema), entities)
    batch, refused = decoder.decode([PlainRecord("t", 3, 7, 1_000, key, value)])
    return batch, refused, entities


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"temperature": 1.5, "pressure": 2, "flow": 3.25}, [1.5, 2, 3.25]),
        ({"values": [1.5, 2, 3.25]}, [1.5, 2, 3.25]),
        ({"temperature": 1.5, "flow": None}, [1.5, np.nan, np.nan]),
        ({"values": [1.5, None, 3]}, [1.5, np.nan, 3]),
        ({"temperature": True, "pressure": False, "flow": 1}, [1, 0, 1]),
        ({"temperature": 1, "pressure": 2, "flow": 3, "unit": {"of": ["anything"]}}, [1, 2, 3]),
        ({"temperature": None}, [np.nan, np.nan, np.nan]),
    ],
)
def test_readings(document: dict[str, object], expected: list[float]) -> None:
    batch, refused, entities = decode(json.dumps(document).encode())
    assert not refused
    np.testing.assert_array_equal(batch.x_BF, np.array([expected], np.float32))
    assert (batch.partition_B.tolist(), batch.offset_B.tolist()) == ([3], [7])
    assert entities.names[batch.entity_B[0]] == "pump-1"


@pytest.mark.parametrize(
    ("value", "code", "feature", "says"),
    [
        (None, "empty", None, "no value"),
        (b"", "empty", None, "no value"),
        (b"{", "invalid_json", None, "not JSON"),
        (b"\xff\xfe", "invalid_json", None, "not JSON"),
        (b"[" * 100_000, "too_deep", None, "nested 100000 deep; at most 32"),
        (b'{"temperature": 1, "x": ' + b"[" * 32 + b"]" * 32 + b"}", "too_deep", None, "ZMU_INPUT__MAX_DEPTH"),
        (b"[" + b"0," * 20_000, "too_many_fields", None, "ZMU_INPUT__MAX_FIELDS"),
        (b"[1, 2, 3]", "wrong_type", None, "an array"),
        (b'{"temperature": NaN}', "invalid_json", None, "not JSON"),
        (b'{"temperature": Infinity}', "invalid_json", None, "not JSON"),
        (b'{"temperature": 1e300}', "non_finite", "temperature", "32-bit"),
        (b'{"temperature": 1' + b"0" * 50 + b"}", "non_finite", "temperature", "32-bit"),
        (b'{"temperature": "warm"}', "wrong_type", "temperature", "'warm'"),
        (b'{"temperature": {}}', "wrong_type", "temperature", "an object"),
        (b'{"values": [1, 2]}', "wrong_length", None, "2 numbers"),
        (b'{"values": {"a": 1}}', "wrong_type", None, "must be an array"),
        (b'{"values": [1, 2, "3"]}', "wrong_type", "flow", "'3'"),
        (b'{"unrelated": 1}', "no_features", None, "'temperature'"),
        (b'{"temperature": 1, "timestamp": "yesterday"}', "bad_timestamp", None, "'yesterday'"),
        (b'{"temperature": 1, "timestamp": -1}', "bad_timestamp", None, "1970"),
        (b'{"temperature": 1, "timestamp": 1e30}', "bad_timestamp", None, "9999"),
        (b'{"temperature": 1, "timestamp": true}', "bad_timestamp", None, "boolean"),
        (b'{"temperature": 1, "x": "' + b"a" * 5_000 + b'"}', "too_large", None, "ZMU_INPUT__MAX_RECORD_BYTES"),
    ],
)
def test_refusals_say_what_and_why(value: bytes | None, code: str, feature: str | None, says: str) -> None:
    batch, (refusal,), _ = decode(value, max_record_bytes=200_000 if value and value[:1] == b"[" else 4_096)
    assert len(batch) == 0
    assert (refusal.code, refusal.feature) == (code, feature)
    assert says in refusal.message
    assert refusal.record.value == value


def test_a_refused_record_takes_nothing_else_with_it() -> None:
    good = b'{"temperature": 1, "pressure": 2, "flow": 3}'
    decoder = ReadingDecoder(ReadingSchema(FEATURES), Entities())
    batch, refused = decoder.decode(records([good, b"junk", good, b'{"flow": 1e39}', good]))
    assert batch.offset_B.tolist() == [0, 2, 4]
    assert batch.x_BF.tolist() == [[1, 2, 3]] * 3
    assert sorted(r.record.offset for r in refused) == [1, 3]


@pytest.mark.parametrize(
    ("stamp", "expected"),
    [
        (1_764_000_000_123, 1_764_000_000_123),
        (1_764_000_000, 1_764_000_000_000),
        (1_764_000_000.5, 1_764_000_000_500),
        ("2025-11-24T16:00:00Z", 1_764_000_000_000),
        ("2025-11-24T18:00:00.250+02:00", 1_764_000_000_250),
        ("2025-11-24 16:00:00", 1_764_000_000_000),
        (None, 1_000),
    ],
)
def test_timestamps(stamp: object, expected: int) -> None:
    batch, _, _ = decode(json.dumps({"temperature": 1, "timestamp": stamp}).encode())
    assert batch.timestamp_ms_B.tolist() == [expected]


def test_timestamps_of_kafka_itself() -> None:
    decoder = ReadingDecoder(ReadingSchema(FEATURES, timestamp_field=None), Entities())
    value = b'{"temperature": 1}'
    stamped = [PlainRecord("t", 0, i, stamp, b"a", value) for i, stamp in enumerate((-1, 5, 2**60))]
    batch, (refusal,) = decoder.decode(stamped)
    assert batch.timestamp_ms_B.tolist() == [0, 5]          # -1: the broker was told none
    assert refusal.code == "bad_timestamp"


def test_entities_by_key_by_field_or_by_none() -> None:
    value = b'{"temperature": 1, "machine": 12}'
    assert decode(value)[2].names == ["pump-1"]
    assert decode(value, entity_field="machine")[2].names == ["12"]
    assert decode(value, key=None)[2].names == [UNKEYED]
    assert decode(value, key=b"\xff")[1][0].code == "bad_entity"
    assert decode(value, entity_field="absent")[1][0].code == "bad_entity"
    assert decode(value, key=b"x" * 1000)[1][0].code == "bad_entity"


def test_names_that_json_escapes() -> None:
    entities = Entities()
    decoder = ReadingDecoder(ReadingSchema(('back\\slash "quoted"', "class", "µ")), entities)
    document = {'back\\slash "quoted"': 1, "class": 2, "µ": 3}
    batch, refused = decoder.decode(records([json.dumps(document).encode()]))
    assert not refused
    assert batch.x_BF.tolist() == [[1, 2, 3]]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
documents = st.dictionaries(
    st.sampled_from([*FEATURES, "timestamp", "values", "machine"]) | st.text(max_size=4), json_values, max_size=6
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.none() | st.binary(max_size=64) | documents.map(lambda d: json.dumps(d).encode()), max_size=8))
def test_anything_is_a_finite_reading_or_a_refusal(values: list[bytes | None]) -> None:
    decoder = ReadingDecoder(ReadingSchema(FEATURES), Entities())
    batch, refused = decoder.decode(records(values))
    assert sorted([*batch.offset_B.tolist(), *(r.record.offset for r in refused)]) == list(range(len(values)))
    assert not np.isinf(batch.x_BF).any()
    assert (batch.timestamp_ms_B >= 0).all()
    assert all(refusal.message for refusal in refused)


def test_codes_are_given_again_after_a_partition_goes() -> None:
    entities = Entities()
    first = [entities.code(0, name) for name in "abc"]
    other = entities.code(1, "a")
    assert len({*first, other}) == 4
    assert sorted(entities.release_partition(0).tolist()) == sorted(first)
    assert len(entities) == 1
    assert entities.code(2, "z") in first
    assert entities.names[other] == "a"
    entities.release([other])
    assert entities.of_partition(1) == {}
