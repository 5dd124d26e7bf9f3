"""Rows of state and notes of committed offsets as bytes: out and in again, and whatever may befall them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.records import PlainRecord
from worker.state.snapshots import HEADER, MARK_BYTES, DamagedRow, Row, Stand, name_of, pack, unpack

U64 = st.integers(0, 2**64 - 1)
HEX16 = U64.map("{:016x}".format)
ROWS = st.builds(
    Row,
    name=st.text(min_size=1, max_size=20),
    data=st.none() | st.binary(min_size=1, max_size=50),
    next_offset=st.integers(0, 2**63 - 1),
    life=U64,
    owner=U64,
    layout=HEX16,
    model=HEX16,
)
STANDS = st.builds(Stand, st.integers(0, 2**63 - 1), U64, U64, st.integers(0, 2**63 - 1), U64.map("{:032x}".format))
ROW = Row("pump-7", b"\x01\x02\x03\x04", 17, 5, 6, "00112233445566ff", "ffeeddccbbaa9988")


def record(key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]]) -> PlainRecord:
    return PlainRecord("state", 0, 0, 0, key, value, headers)


@given(ROWS)
def test_a_row_comes_back_as_it_was(row: Row) -> None:
    assert unpack(record(*pack(row))) == row


def test_what_is_stored_is_the_row_itself() -> None:
    key, value, _ = pack(ROW)
    assert (key, value) == (b"pump-7", b"\x01\x02\x03\x04")
    assert pack(ROW._replace(data=None))[1] is None         # a tombstone to the broker


@pytest.mark.parametrize("place", range(MARK_BYTES))
def test_a_flipped_bit_in_the_mark_is_seen(place: int) -> None:
    key, value, [(name, mark)] = pack(ROW)
    flipped = bytes(byte ^ (1 if i == place else 0) for i, byte in enumerate(mark))
    with pytest.raises(DamagedRow):
        unpack(record(key, value, [(name, flipped)]))


@pytest.mark.parametrize("value", [b"", b"\x01\x02\x03", b"\x01\x02\x03\x05", b"\x01\x02\x03\x04\x00", None])
def test_another_value_is_seen(value: bytes | None) -> None:
    key, _, headers = pack(ROW)
    with pytest.raises(DamagedRow):
        unpack(record(key, value, headers))


@pytest.mark.parametrize("key", [None, b"", b"pump-8", b"\xff"])
def test_another_key_is_seen(key: bytes | None) -> None:
    _, value, headers = pack(ROW)
    with pytest.raises(DamagedRow):
        unpack(record(key, value, headers))


@given(
    st.none() | st.binary(), st.none() | st.binary(),
    st.lists(st.tuples(st.sampled_from([HEADER, "other"]), st.binary() | st.binary(min_size=MARK_BYTES))),
)
def test_whatever_else_is_on_the_topic_is_no_row(
    key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes]]
) -> None:
    with pytest.raises(DamagedRow):
        unpack(record(key, value, headers))


def test_a_later_format_is_left_alone() -> None:
    key, value, [(name, mark)] = pack(ROW)
    with pytest.raises(DamagedRow, match="format 2"):
        unpack(record(key, value, [(name, mark[:2] + b"\x02" + mark[3:])]))


def test_names_of_records() -> None:
    assert name_of(record("Pumpe-ü".encode(), b"", [])) == "Pumpe-ü"
    assert [name_of(record(key, b"", [])) for key in (None, b"", b"\xff")] == [None, None, None]


@given(STANDS)
def test_a_note_comes_back_as_it_was(stand: Stand) -> None:
    assert Stand.read(stand.note()) == stand
    assert len(stand.note()) < 200                          # brokers take 4096 bytes by default


@given(st.text() | STANDS.map(lambda stand: stand.note() + " ") | STANDS.map(lambda stand: stand.note()[1:]))
def test_other_notes_say_nothing(note: str) -> None:
    assert Stand.read(note) is None
