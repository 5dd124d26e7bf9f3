"""What of an Arrow stream is refused: rows, each named and the others read; or all, before it takes memory."""

from __future__ import annotations

import sys

import numpy as np
import pyarrow as pa
import pytest

from tests.factory import FEATURES
from tests.worker.streams import NOW_MS, SCHEMA, decoded, lists_of, refused_whole, rows_of, stream
from worker.codec.events import dead_letter
from worker.codec.readings import ReadingDecoder, ReadingSchema
from worker.entities import Entities
from worker.places import MOST_ROWS
from worker.records import PlainRecord


def test_what_names_no_entity_is_refused_and_leaves_no_entity_behind() -> None:
    words = ["pump-1", None, "", "x" * 600, "pump-2", "only of a bad row"]
    value = stream({"flow": [1, 2, 3, 4, 5, float("nan")], "entity": pa.array(words).dictionary_encode()})
    entities = Entities()
    batch, refused = ReadingDecoder(SCHEMA, entities).decode([PlainRecord("t", 0, 0, NOW_MS, None, value)])
    assert batch.rows_B.tolist() == [0, 4]
    assert {why.code: why.rows for why in refused} == {"bad_entity": (1, 2, 3), "non_finite": (5,)}
    assert entities.used_names() == ["pump-1", "pump-2"]


def test_numbers_that_are_none_are_refused_by_row_and_named() -> None:
    temperature = [20.0, float("nan"), float("inf"), 3.5e38, 21.0]
    value = stream({"temperature": temperature, "flow": [1] * 5, "entity": list("abcde")}, cuts=(2,))
    batch, (refusal,), names = decoded(value)
    assert names == ["a", "e"]
    assert (refusal.code, refusal.feature, refusal.rows) == ("non_finite", "temperature", (1, 2, 3))
    assert refusal.readings == 3
    assert refusal.message.startswith("row 1: temperature is NaN; what is missing is null (3 rows of the rec")
    assert [row["entity"] for row in rows_of(refusal.record.value or b"")] == ["b", "c", "d"]
    assert not np.isinf(batch.x_BF).any()


def test_what_is_null_may_hold_anything_beneath() -> None:
    beneath = pa.Array.from_buffers(
        pa.float32(), 2, [pa.py_buffer(b"\x01"), pa.py_buffer(np.array([1, np.nan], np.float32).tobytes())]
    )
    batch, refused, _ = decoded(stream({"flow": beneath}))
    assert refused == []
    assert np.isnan(batch.x_BF[1]).all()


def test_the_dead_letter_of_rows_can_be_sent_again() -> None:
    value = stream({"flow": [1.0, float("nan"), 2.0, float("inf"), float("inf")], "entity": list("abcde")}, "zstd")
    _, (refusal,), _ = decoded(value)
    letter = dead_letter("dlq", refusal)
    assert letter.headers[0] == ("content-type", b"x")
    headers = {name: said.decode() for name, said in letter.headers}
    assert (headers["source.offset"], headers["source.row"], headers["error.feature"]) == ("41", "1,3-4", "flow")
    assert letter.key == b"line-1"
    _, (again,), _ = decoded(letter.value or b"")
    assert again.rows == (0, 1, 2)


def test_a_header_names_no_more_rows_than_it_can_hold() -> None:
    flow = [float("nan") if i % 2 else 1.0 for i in range(2_000)]
    _, (refusal,), _ = decoded(stream({"flow": flow}))
    headers = dict(dead_letter("dlq", refusal).headers)
    assert len(headers["source.row"]) < 1_000
    assert headers["source.row"].decode().endswith("199,…")
    assert len(refusal.rows) == 1_000


def test_columns_that_cannot_be_cut_leave_the_record_as_received() -> None:
    value = stream({"flow": [1.0, float("nan")], "more": [{"a": 1}, {"a": 2}]})
    _, (refusal,), _ = decoded(value)
    assert refusal.record.value == value
    assert refusal.rows == (1,)


@pytest.mark.parametrize(
    ("value", "code", "said"),
    [
        (b"\xff\xff\xff\xff", "invalid_arrow", "it names places beyond its end"),
        (b"\xff\xff\xff\xff\x10\0\0\0", "invalid_arrow", "metadata of 16 bytes where 0 are left"),
        (b"\xff\xff\xff\xff\0\0\0\0", "invalid_arrow", "it holds no schema"),
        (stream({"flow": [1]})[:-100], "invalid_arrow", "no Arrow stream"),
        (stream({"flow": pa.array([], pa.int8())}), "empty", "no rows"),
        (stream({"flow": ["fast"]}), "wrong_type", "flow is a column of string"),
        (stream({"values": ["fast"]}), "wrong_type", "it must be lists of numbers"),
        (stream({"values": pa.array([[None]])}), "wrong_type", "it must be lists of numbers"),
        (stream({"values": lists_of("fixed", [[1, 2]], 2)}), "wrong_length", "values has 2 numbers; the model has 3"),
        (stream({"speed": [1]}), "no_features", "such as 'temperature'"),
        (stream({"flow": [1], "timestamp": [True]}), "bad_timestamp", "timestamp is a column of bool"),
        (stream({"flow": pa.nulls(MOST_ROWS + 1, pa.bool_())}), "too_large", f"at most {MOST_ROWS} are read"),
        (stream({"flow": [1.0] * 200_000}), "too_large", "at most 1048576 are read (ZMU_INPUT__MAX_RECORD_BYTES)"),
    ],
)  # fmt: skip
def test_what_is_refused_whole(value: bytes, code: str, said: str) -> None:
    refusal = refused_whole(value)
    assert refusal.code == code
    assert said in refusal.message


def test_bounds() -> None:
    small = ReadingSchema(FEATURES, max_record_bytes=8_000, max_fields=5)
    assert refused_whole(stream({f"c{i}": [1] for i in range(6)}), small).code == "too_many_fields"
    bomb = stream({"flow": pa.array([0.0] * 30_000)}, "zstd")
    assert len(bomb) < 8_000
    refusal = refused_whole(bomb, small)
    assert (refusal.code, "that come to 360" in refusal.message) == ("too_large", True)
    unread = stream({"flow": pa.array([0], pa.int8()), "text": ["x" * 100_000]}, "zstd")
    assert refused_whole(unread, small).code == "too_large"


def test_a_stream_that_lies_about_its_sizes_allocates_nothing() -> None:
    """2^60 bytes, said in front of a compressed buffer."""
    value = stream({"flow": [0.0] * 1_000}, "lz4")
    size = (8_000).to_bytes(8, "little")
    assert value.count(size) == 1
    refusal = refused_whole(value.replace(size, (2**60).to_bytes(8, "little")))
    assert (refusal.code, str(2**60) in refusal.message) == ("too_large", True)
    refusal = refused_whole(value.replace(size, (-2).to_bytes(8, "little", signed=True)))
    assert refusal.code == "invalid_arrow"
    assert refused_whole(value.replace(size, (7_000).to_bytes(8, "little"))).code == "invalid_arrow"


def test_the_file_format_is_not_the_stream() -> None:
    batch = pa.RecordBatch.from_pydict({"flow": [1]})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    _, (refusal,), _ = decoded(sink.getvalue().to_pybytes())
    assert refusal.code == "invalid_json"
    assert "Arrow file: send the stream format" in refusal.message


def test_without_pyarrow_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "worker.codec.arrow", None)    # type: ignore[arg-type]
    refusal = refused_whole(stream({"flow": [1]}))
    assert refusal.code == "no_pyarrow"
    assert "pip install pyarrow" in refusal.message


def test_rows_that_cost_their_sender_nothing_are_not_held() -> None:
    value = stream({"flow": pa.nulls(MOST_ROWS)})
    assert len(value) < 1_000
    refusal = refused_whole(value)
    assert refusal.code == "too_large"
    assert f"{MOST_ROWS} rows" in refusal.message
    batch, refused, _ = decoded(stream({"flow": pa.nulls(20)}))
    assert (len(batch), refused) == (20, [])


def test_a_dictionary_counts_once_for_each_batch_that_goes_through_it() -> None:
    names = pa.DictionaryArray.from_arrays(pa.array([0] * 200), pa.array(["x" * 100_000]))
    few = stream({"flow": [1.0] * 200, "entity": names})
    many = stream({"flow": [1.0] * 200, "entity": names}, cuts=range(1, 200))
    assert refused_whole(many).code == "too_large"
    assert decoded(few)[1][0].code == "bad_entity"
