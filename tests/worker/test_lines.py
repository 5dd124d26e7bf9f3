"""Plain readings, read many at once: the records of a batch as one text of lines, the numbers of a reading as a run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from tests.factory import FEATURES
from tests.worker.test_columns import decoder_of, many, opened, the_same_in_every_way
from worker.codec import lines
from worker.codec.lines import LEAST, MOST, WIDEST, LineDecoder, Plain
from worker.codec.readings import ReadingSchema
from worker.codec.typed import typed_of
from worker.entities import Entities
from worker.kafka.batches import RecordBatch

PLAIN = b'{"temperature":1.25,"flow":-3,"timestamp":1764000000000}'


def parts_of(batches: Sequence[RecordBatch]) -> list[int | str]:
    """Of each part how many readings were decoded as lines; "-" for those that were not."""
    schema = ReadingSchema(FEATURES)
    typed = typed_of(schema)
    assert typed is not None
    parts = LineDecoder(schema, typed, Entities()).decode(batches)
    return [len(part.batch) if isinstance(part, Plain) else "-" for part in parts]


def batches_of(*values: list[bytes | None], key: bytes = b"pump-1") -> list[RecordBatch]:
    return [batch for some in values for batch in opened(many(some, key))]


def test_plain_readings_go_at_once() -> None:
    assert parts_of(batches_of([PLAIN] * LEAST)) == [LEAST]
    assert parts_of(batches_of([b'{"values":[1,2,3]}'] * LEAST)) == [LEAST]
    assert parts_of(batches_of([PLAIN] * (LEAST - 1))) == ["-"]


def test_batches_too_small_go_together() -> None:
    assert parts_of(batches_of(*[[PLAIN]] * LEAST)) == [LEAST]


def test_one_that_is_not_plain_takes_those_near_it_along() -> None:
    assert parts_of(batches_of([PLAIN] * 4 * LEAST, [b"{"], [PLAIN] * (4 * LEAST - 1))) == [
        4 * LEAST, "-", LEAST, 2 * LEAST
    ]


def test_a_text_has_an_end() -> None:
    assert parts_of(batches_of([PLAIN] * (2 * MOST))) == [MOST] * 2


def test_keys_that_are_long_are_left_out_of_it() -> None:
    assert parts_of(batches_of([PLAIN] * LEAST, key=b"k" * (WIDEST - 10))) == [LEAST]
    assert set(parts_of(batches_of([PLAIN] * LEAST, key=b"k" * WIDEST))) == {"-"}


def test_readings_of_one_array_are_known_by_one() -> None:
    typed = typed_of(ReadingSchema(FEATURES))
    assert typed is not None
    texts = {
        b'{"values":[1,null,3],"timestamp":5}': True,
        b'{"values":[1,2,3],"unit":5}': False,
        b'{"values":null}': False,
        b'{"flow":1}': False,
        b'{"values":[1,2,3': False,
        b'{"values":[1,2,3],"timestamp":"\xff"}': False,
        b'{"values":' + b"[" * 100_000: False,
    }
    assert {text: typed.lists(memoryview(text)) for text in texts} == texts


def test_another_field_in_some_readings_of_one_array() -> None:
    assert parts_of(batches_of([b'{"values":[1,2,3]}'] * LEAST + [b'{"values":[1,2,3],"unit":5}'])) == [LEAST + 1]


@pytest.mark.parametrize(
    "odd",
    [
        [b'{"flow":1},{"flow":2}', b'{"a":{"b":1}', b'{"flow":3}}'],        # as many objects as records
        [b'{"flow":1} {"flow":2}', b'{"a":[{"b":1}', b'{"flow":3}]}'],
        [b'{"flow":1}\n{"flow":2}', b'{"a":"}', b'{"flow":3}"}'],
        [b'{"flow":1}{"flow":2}', b'{"a":', b"1}"],
        [b'{"flow":1}{"flow":2}', b'{"flow":', b"3}"],
        [b'{"flow":1}\n{"flow":2}', b'{"flow":', b"3}"],
        [b'{"flow":1,"z":%s}' % (b"[" * depth + b"]" * depth) for depth in (1, 31, 32)],
        [b'{"flow":1}\n{"flow":2}', b""],
        [b'{"flow":1}\n{"flow":2}', None],
        [b'{"flow":1}{"flow":2}'],
        [b'{\n"flow":1\n}'],
        [b' {"flow":1}', b'{"flow":1} '],
        [b'{"values":[1,2]}', b'{"values":[1,2,3,4]}'],
        [b'{"values":[1,2,null]}', b'{"values":[null,null,null]}'],
        [b'{"flow":null}', b'{"pressure":null,"flow":2}'],
        [b'{"other":1}'],
        [b'{"flow":1e39}'],
        [b'{"flow":1,"timestamp":%d}' % stamp for stamp in (-(2**63), 2**63, 2**80, 10**11, 10**11 - 1, 0, -1)],
        [b'{"flow":1,"timestamp":1.5}', b'{"flow":1,"timestamp":"2026-01-01T00:00:00Z"}', b'{"flow":1}'],
        [b'{"flow":1,"timestamp":1e300}'],
        [b'{"flow":1,"timestamp":"soon"}'],
        [b"\xff\xff\xff\xff\x00"],
    ],
)
@pytest.mark.parametrize("before", [0, 1])
def test_what_is_not_plain_among_what_is(odd: list[bytes | None], before: int) -> None:
    found = the_same_in_every_way(many([PLAIN] * before + odd + [PLAIN]), ReadingSchema(FEATURES))
    assert len(found) == before + len(odd) + 1


@pytest.mark.parametrize("odd", [b"1e400", b"1%s" % (b"0" * 400), b'"\xff"', b"[1e400]", b"null", b"2", b'"x"', b"tru"])
@pytest.mark.parametrize("name", [b"flow", b"unit", b"timestamp", b"values"])
def test_what_else_is_in_a_reading_of_one_array(name: bytes, odd: bytes) -> None:
    listed = b'{"values":[1,2,3]}'
    reading = b'{"values":[1,2,3],"%s":%s}' % (name, odd)
    for values in ([listed, reading, listed], [reading, listed]):
        the_same_in_every_way(many(values), ReadingSchema(FEATURES))


def test_readings_of_several_partitions_go_at_once() -> None:
    """An entity is another one on another partition."""
    entities = Entities()
    batches = [
        batch._replace(partition=partition)
        for partition, key in [(1, b"a"), (0, b"a"), (0, b"b"), (1, b"a")]
        for batch in opened(many([PLAIN] * LEAST, key))
    ]
    assert parts_of(batches) == [4 * LEAST]
    batch = decoder_of("python", ReadingSchema(FEATURES), entities).decode(batches).batch
    assert batch.partition_B.tolist() == [1] * LEAST + [0] * 2 * LEAST + [1] * LEAST
    codes = batch.entity_B.reshape(4, LEAST)
    assert (codes == codes[:, :1]).all()
    assert codes[0, 0] == codes[3, 0]
    assert len(set(codes[:, 0].tolist())) == 3


def test_batches_that_are_plain_keep_their_place_among_those_that_are_not() -> None:
    entities = Entities()
    batches = [
        batch._replace(partition=number)
        for number, values in enumerate([[b"{", PLAIN], [PLAIN] * LEAST, [PLAIN], [PLAIN] * LEAST + [b""]])
        for batch in opened(many(values))
    ]
    decoded = decoder_of("python", ReadingSchema(FEATURES), entities).decode(batches)
    assert decoded.batch.partition_B.tolist() == [0] + [1] * LEAST + [2] + [3] * LEAST
    assert [refusal.record.partition for refusal in decoded.refused] == [0, 3]
    assert decoded.value_bytes == 1 + len(PLAIN) * (2 * LEAST + 2)


def test_a_stamp_of_kafkas_after_the_year_9999() -> None:
    found = the_same_in_every_way(many([b'{"flow":1}'] * 9, stamp=2**50), ReadingSchema(FEATURES))
    assert {row[1] for row in found} == {"bad_timestamp"}


def test_no_name_in_a_reading_stands_for_the_time_or_the_entity_where_none_does() -> None:
    reading = b'{"flow":1,"\x7ftimestamp":5,"\x7fentity":"other"}'
    found = the_same_in_every_way(many([reading] * 9), ReadingSchema(FEATURES, timestamp_field=None))
    assert {row[2:4] for row in found} == {(1_000, "pump-1")}


def test_whoever_sends_numbers_chooses_no_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's hash of an integer is its rest by 2^61 - 1: a dict of thousands with one hash takes forever."""
    hashed: list[object] = []

    class Dict(dict[Any, Any]):
        @classmethod
        def fromkeys(cls, keys: Iterable[Any], value: Any = None) -> dict[Any, Any]:  # type: ignore[override]
            hashed.extend(keys := list(keys))
            return dict.fromkeys(keys, value)

    def set_(values: Iterable[Any]) -> set[Any]:
        hashed.extend(values := list(values))
        return set(values)

    monkeypatch.setattr(lines, "dict", Dict, raising=False)
    monkeypatch.setattr(lines, "set", set_, raising=False)
    numbers = [k * (2**61 - 1) for k in range(1, 10)]
    for field in ("machine", "timestamp"):
        values = [b'{"flow":1,"%s":%d}' % (field.encode(), number) for number in numbers]
        found = the_same_in_every_way(
            many([*values, b'{"flow":1,"timestamp":1.5,"machine":2}']), ReadingSchema(FEATURES, entity_field="machine")
        )
        assert len(found) == 10
    assert {type(one) for one in hashed} == {str, type}


@pytest.mark.parametrize("odd", ["null", "1e3", "-0", "01", "12345678.5", " -0.25", "0.25 ", '"x"', "[]", '1,"b":2'])
def test_a_run_of_plain_numbers_ends_at_any_place(odd: str) -> None:
    names, texts = tuple("abcdefgh"), []
    for place in range(len(names) + 1):
        numbers = [odd if at == place else f"{at}.0625" for at in range(len(names))]
        members = [f'"{name}":{number}' for name, number in zip(names, numbers, strict=True)]
        texts += [f"{{{','.join(members)}}}", f"{{{','.join(members[place:] + members[:place])}}}"]
        texts += [f'{{"values":[{",".join(numbers)}]}}', f'{{"values":[{",".join(numbers)}],{members[0]}}}']
    the_same_in_every_way(many([text.encode() for text in texts]), ReadingSchema(names))


@pytest.mark.parametrize("elements", [250, 509, 510, 511, 765, 4000])
def test_fields_are_counted_alike_in_texts_of_any_length(elements: int) -> None:
    text = b'{"flow":1,"unit":[%s]}' % b",".join([b"1"] * elements)
    (found,) = the_same_in_every_way(many([text]), ReadingSchema(FEATURES, max_fields=512))
    assert (found[1] == "too_many_fields") == (elements + 2 > 512)
