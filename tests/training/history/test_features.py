from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.worker.streams import lists_of, stream
from training.history import features
from worker.errors import InputError, TrainingError
from worker.settings import InputSettings

PLAIN = InputSettings()


def test_numeric_columns_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("datetime;b;name;timestamp;a;on;label;empty\n" + "2025-01-01 00:00:00;1;x;5;0.5;true;1;\n" * 3)
    assert features.of_file(path, InputSettings(ignore=("label",))) == ("b", "a", "on")


def test_a_stray_text_does_not_cost_a_feature(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("a,b\n" + "1,x\n" * 50 + "broken,x\n")
    assert features.of_file(path, PLAIN) == ("a",)


def test_keys_of_records_in_the_order_of_their_first_appearance() -> None:
    documents = [{"timestamp": 1, "b": 1, "m": "x"}, {"a": True, "b": None, "c": 2}, [1], {"b": 2, "deep": {}}]
    values = [*(json.dumps(d).encode() for d in documents), b"junk", None]
    assert features.of_records(values, PLAIN) == ("b", "a", "c")


def test_a_field_that_is_mostly_text_is_no_feature() -> None:
    values = [json.dumps({"a": 1, "b": "x" if i % 2 else i}).encode() for i in range(10)]
    assert features.of_records(values, PLAIN) == ("a",)


def test_arrays_have_numbered_features() -> None:
    assert features.of_records([b'{"values": [1, 2, 3]}'] * 3 + [b'{"values": [1]}'], PLAIN) == (
        "value_0",
        "value_1",
        "value_2",
    )


def test_columns_of_arrow_streams_count_by_row() -> None:
    """`entity` names one where no setting does; what is no stream is passed over."""
    rows = {"b": [1, 2, None], "note": ["x", "y", "z"], "timestamp": [1, 2, 3], "entity": [7, 8, 9], "on": [True] * 3}
    text = b'{"b": "broken", "c": 1}'
    assert features.of_records([stream(rows), *[text] * 2, b"\xff\xff\xff\xffjunk"], PLAIN) == ("on", "c")
    assert features.of_records([*[stream(rows)] * 7, *[text] * 2], PLAIN) == ("b", "on", "c")
    for kind in ("fixed", "list", "large"):
        lists = stream({"values": lists_of(kind, [[1, 2, 3], [4, None, 6]]), "c": [1, 2]})
        assert features.of_records([text, lists], PLAIN) == ("value_0", "value_1", "value_2")


def test_nothing_numeric(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("name\nx\n")
    with pytest.raises(InputError, match="no numeric column"):
        features.of_file(path, PLAIN)
    with pytest.raises(TrainingError, match="holds no numbers"):
        features.require((), "topic 't'")
