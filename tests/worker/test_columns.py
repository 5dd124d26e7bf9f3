"""Record batches as columns: compiled, in Python and record by record, the same readings, refusals and messages."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.factory import FEATURES
from tests.worker.record_batches import Content, Kind, batch_of, fetched, signed, stock
from tests.worker.test_readings import documents
from tests.worker.twins import by, needs_core
from worker import compiled
from worker.codec import columns, lines
from worker.codec.columns import ColumnDecoder, Decoded
from worker.codec.readings import ReadingDecoder, ReadingSchema
from worker.entities import Entities
from worker.errors import StreamError
from worker.kafka.batches import RecordBatch
from worker.kafka.rawfetch import WholeBatches

WAYS: list[Any] = ["python", pytest.param("compiled", marks=needs_core)]


def decoder_of(way: Any, schema: ReadingSchema, entities: Entities) -> ColumnDecoder:
    decoder: ColumnDecoder = by(way, ColumnDecoder, schema, entities)
    return decoder


def opened(raw: bytes, **asked: Any) -> list[RecordBatch]:
    return list(fetched(WholeBatches, raw, **asked).take(None))


def spelled(decoded: Decoded, entities: Entities) -> list[tuple[object, ...]]:
    """Everything that came of it, by offset, with floats as their bits."""
    batch = decoded.batch
    readings = zip(
        batch.offset_B.tolist(), batch.partition_B.tolist(), batch.timestamp_ms_B.tolist(),
        [entities.names[code] for code in batch.entity_B], batch.x_BF.view(np.uint32).tolist(), strict=True,
    )
    assert batch.offset_B.tolist() == sorted(batch.offset_B.tolist())
    refused = [
        (r.offset, why.code, why.message, why.feature, r.timestamp, r.key, r.value, list(r.headers))
        for why in decoded.refused
        for r in (why.record,)
    ]
    return sorted([*readings, *refused], key=lambda row: str(row[0]))


def the_same_in_every_way(raw: bytes, schema: ReadingSchema, **asked: Any) -> list[tuple[object, ...]]:
    """What stock records come to, after it is what batches come to."""
    entities = Entities()
    batch, refused = ReadingDecoder(schema, entities).decode(list(stock(raw, **asked).take(None)))
    expected = spelled(Decoded(batch, refused, 0, "records"), entities)
    ways = [("python", 1, 1024), ("python", 1, 1), ("python", 10_000, 1)]      # as lines; batch by batch; one by one
    for way, least, at_once in [*ways, ("compiled", 1, 1)] if compiled.built() else ways:
        decoder = decoder_of(way, schema, entities := Entities())
        batches = opened(raw, **asked)
        with mock.patch.object(lines, "LEAST", least), mock.patch.object(columns, "AT_ONCE", at_once):
            assert spelled(decoder.decode(batches), entities) == expected, (way, least, at_once)
    return expected


def many(values: Sequence[bytes | None], key: bytes | None = b"pump-1", stamp: int = 1_000) -> bytes:
    return batch_of([Content(stamp, key, value) for value in values], 0)[0]


numbers = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.integers().map(str),
    st.decimals(allow_nan=False, allow_infinity=False).map(str),
    st.from_regex(r"-?[0-9]{1,25}(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,4})?", fullmatch=True),
    st.from_regex(r"-?[0-9]{1,9}(\.[0-9]{0,9})?", fullmatch=True),
    st.floats(width=32, allow_nan=False, allow_infinity=False).map(repr),
    st.floats(3.4e38, 3.41e38).map(repr),
    st.sampled_from(["-0", "-0.0", "0e5", "01", "1.", ".5", "+1", "NaN", "1e400", "-", "true", "false", "null", '""']),
)
moments = st.datetimes(datetime.datetime(1969, 12, 30), datetime.datetime(9999, 12, 30))
zones = st.sampled_from(["", "Z", "+00:00", "-05:30", "+14:00", "+24:00", "z", "+0530", "Zulu"])
times = st.one_of(
    st.builds(lambda t, sep, spec, zone: t.isoformat(sep, spec) + zone, moments, st.sampled_from("T t_"),
              st.sampled_from(["auto", "milliseconds", "microseconds", "seconds", "minutes"]), zones).map(json.dumps),
    st.from_regex(
        r'"(19|20)[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9](\.[0-9]{1,8})?Z?"', fullmatch=True
    ),
    numbers,
    st.text(max_size=5).map(json.dumps),
)
scraps = st.one_of(
    numbers,
    times,
    st.text(max_size=5).map(json.dumps),
    st.text(max_size=5).map(lambda t: json.dumps(t, ensure_ascii=False)),
    st.sampled_from(['"\\u12"', '"\\ud800"', '"\\ud83d\\ude00"', '"\\x"', '"\x01"', "[]", "{}", "[1,]", '{"a":1,}',
                     "[[[]]]", "[" * 40 + "]" * 40, '"a', '"\\/\\b"', "tru", "nul", " ", '{"a": [1, {"b": null}]}']),
)
spaces = st.sampled_from(["", "", "", " ", "\n", "\t\r ", "\x0b"])
FIELDS = [*FEATURES, "timestamp", "values", "machine", "unit"]


@st.composite
def objects(draw: st.DrawFn) -> bytes:
    """Text that is nearly a reading."""
    parts = []
    for name in draw(st.lists(st.sampled_from(FIELDS), min_size=1, max_size=6)):
        kind = {"timestamp": times, "unit": scraps, "machine": scraps}.get(name, numbers)
        value = draw(kind if draw(st.integers(0, 9)) else scraps)
        if name == "values":
            value = "[" + ",".join(draw(st.lists(numbers, min_size=3, max_size=3 + draw(st.integers(0, 1))))) + "]"
        space = draw(spaces)
        parts.append(f'"{name}"{space}:{draw(spaces)}{value}')
    text = "{" + ",".join(parts) + "}" + draw(spaces)
    return text.encode("utf-8", "replace")


@st.composite
def bent(draw: st.DrawFn) -> bytes:
    """A reading with a byte or two changed."""
    raw = bytearray(draw(objects()))
    for _ in range(draw(st.integers(1, 2))):
        raw[draw(st.integers(0, len(raw) - 1))] = draw(st.integers(0, 255))
    return bytes(raw)


values = st.one_of(
    st.none(), st.binary(max_size=16), documents.map(lambda d: json.dumps(d).encode()), objects(), objects(), bent()
)
keys = st.none() | st.sampled_from([b"", b"a", b"\xff", b"x" * 600]) | st.binary(max_size=4)
nearly = st.builds(
    Content, st.integers(-1, 2**48), keys, values, st.just([]) | st.just([("trace", b"1"), ("none", None)])
)
schemas = st.builds(
    ReadingSchema,
    st.sampled_from([FEATURES, FEATURES, FEATURES[:1], ('a"b', "µ", "values")]),
    entity_field=st.sampled_from([None, "machine", "temperature"]),
    timestamp_field=st.sampled_from(["timestamp", "timestamp", None]),
    max_record_bytes=st.sampled_from([1_000_000, 60]),
    max_depth=st.sampled_from([32, 32, 1, 2, 3]),
    max_fields=st.sampled_from([10_000, 10_000, 1, 4, 6]),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.lists(nearly, min_size=1, max_size=8), min_size=1, max_size=4), schemas, st.integers(0, 4))
def test_columns_are_what_the_records_come_to(
    several: list[list[Content]], schema: ReadingSchema, codec: int
) -> None:
    raw, offset = b"", 4
    for contents in several:
        more, offset = batch_of(contents, offset, Kind(codec=codec))
        raw += more
    the_same_in_every_way(raw, schema, fetch_offset=5)


@settings(max_examples=300, deadline=None)
@given(numbers)
@example("3.4028234663852886e38")
@example("3.4028234663852887e38")
@example("1.401298464324817e-45")
@example("7.006492321624085e-46")
@example("9007199254740993")
@example("1234567.1234567")
@example("12345678.12345678")
@example("0.000000")
def test_a_number_has_the_same_bits(number: str) -> None:
    short, long = b'{"temperature":%s}', b'{"temperature":%s,"of_no_concern":"a text that goes on"}'
    the_same_in_every_way(many([form % number.encode() for form in (short, long)]), ReadingSchema(FEATURES))


@settings(max_examples=300, deadline=None)
@given(times)
@example('"2024-02-29T00:00:00Z"')
@example('"2023-02-29T00:00:00Z"')
@example('"2255-06-05T23:47:34.740993Z"')
@example('"1970-01-01T00:30:00+01:00"')
def test_a_timestamp_is_the_same_millisecond(stamp: str) -> None:
    reading = b'{"flow":1,"timestamp":%s}' % stamp.encode("utf-8", "replace")
    the_same_in_every_way(many([reading]), ReadingSchema(FEATURES))


def test_plain_readings_of_several_partitions_and_entities() -> None:
    raw = many([b'{"temperature":1,"pressure":2.5,"flow":-3e2}', b'{"values":[1,null,true]}'], key=b"b")
    raw += batch_of([Content(2_000, b"a", b'{"flow":4}'), Content(3_000, b"b", b'{"flow":"hot"}')], 2)[0]
    found = the_same_in_every_way(raw, ReadingSchema(FEATURES))
    assert [row[0] for row in found] == [0, 1, 2, 3]
    assert found[3][1] == "wrong_type"


@pytest.mark.parametrize("way", WAYS)
def test_the_name_of_a_header_need_not_be_utf_8(way: str) -> None:
    headers: list[tuple[str, bytes | None]] = [("hQ", b"v")]
    raw, _ = batch_of([Content(1_000, b"a", b'{"flow":1}', headers), Content(1_001, b"a", b"{", headers)], 0)
    raw = signed(raw.replace(b"hQ", b"h\xff"))
    decoded = decoder_of(way, ReadingSchema(FEATURES), Entities()).decode(opened(raw))
    assert decoded.batch.x_BF[:, 2].tolist() == [1]
    assert [refusal.record.headers for refusal in decoded.refused] == [[("h\ufffd", b"v")]]


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ('"unit":' + "[" * 3 + "]" * 3, None),
        ('"unit":' + "[" * 4 + "]" * 4, "too_deep"),
        ('"unit":{"a":{"b":{"c":{}}}}', "too_deep"),
        ('"unit":"[[[[[[[[{{{{,,,,,,,,,,,,"', None),
        ('"unit":"\\"[[[[[[[["', None),
        ('"unit":[1,2,3,4,5]', None),
        ('"unit":[1,2,3,4,5,6]', "too_many_fields"),
        ('"unit":[[],[]]', None),
        ('"unit":[[],[],{}]', "too_many_fields"),
        ('"a":1,"b":2,"c":3,"d":4,"e":5,"f":6,"g":7', "too_many_fields"),
    ],
)
def test_depth_and_number_of_fields_are_bounded_alike(more: str, code: str | None) -> None:
    schema = ReadingSchema(FEATURES, max_depth=4, max_fields=7)
    (found,) = the_same_in_every_way(many([b'{"flow":1,%s}' % more.encode()]), schema)
    assert (found[1] if isinstance(found[1], str) else None) == code


@pytest.mark.parametrize(
    "text",
    ['{"temperature""":1,"flow":2}', '{"temperature"1}', '{"temperature" : 1}', '{"temperature":\t1 }', '{"flow":1'],
)
def test_a_name_without_its_colon_is_no_json(text: str) -> None:
    the_same_in_every_way(many([text.encode()]), ReadingSchema(FEATURES))


@pytest.mark.parametrize("way", WAYS)
def test_what_is_left_to_python_keeps_its_place(way: str) -> None:
    entities = Entities()
    odd = b'{"flow":2,"unit":"\\ud83d\\ude00"}'          # half a pair: read by Python only
    raw = many([b'{"flow":1}', odd, b'{"flow":3}', b"{", b'{"flow":5}'])
    batches = opened(raw)
    other = [batch._replace(partition=4) for batch in batches]
    decoded = decoder_of(way, ReadingSchema(FEATURES), entities).decode([*batches, *other])
    assert decoded.batch.x_BF[:, 2].tolist() == [1, 2, 3, 5] * 2
    assert decoded.batch.partition_B.tolist() == [3] * 4 + [4] * 4
    assert [r.record.partition for r in decoded.refused] == [3, 4]
    assert decoded.value_bytes == 2 * (3 * 10 + len(odd) + 1)


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=200, deadline=None)
@given(contents=st.lists(nearly, min_size=1, max_size=5), data=st.data())
def test_broken_batches_are_named_and_never_half_read(way: str, contents: list[Content], data: st.DataObject) -> None:
    """The CRC holds, the records do not: either way they are as Python reads them, or nothing is."""
    raw = bytearray(batch_of(contents, 0)[0])
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(57, len(raw) - 1))] = data.draw(st.integers(0, 255))
    wrong = signed(bytes(raw[: len(raw) - data.draw(st.integers(0, 4))]))
    good = many([b'{"flow":1}'])
    outcomes = []
    for one in ("python", way):
        entities = Entities()
        decoder = decoder_of(one, ReadingSchema(FEATURES), entities)
        try:
            batches = opened(good) + opened(wrong)
            outcomes.append(spelled(decoder.decode([b._replace(partition=n) for n, b in enumerate(batches)]), entities))
        except StreamError as error:
            outcomes.append([(type(error).__name__, str(error))])
    assert outcomes[0] == outcomes[1]


def test_a_field_that_plays_two_parts() -> None:
    """As entity and as a feature; the compiled core cannot tell them apart, and need not."""
    found = the_same_in_every_way(many([b'{"flow":7,"pressure":1}']), ReadingSchema(FEATURES, entity_field="flow"))
    assert found[0][3] == "7"
