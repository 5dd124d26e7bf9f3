"""How deep a JSON text goes, and how much it holds, counted without decoding it; against a decoder."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.codec import outline

documents = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=30,
)


def counted(document: object) -> tuple[int, int]:
    """Depth and fields, the slow way."""
    if not isinstance(document, list | dict):
        return 0, 0
    inner = [counted(one) for one in (document.values() if isinstance(document, dict) else document)]
    return 1 + max((depth for depth, _ in inner), default=0), max(len(inner), 1) + sum(fields for _, fields in inner)


@settings(max_examples=300, deadline=None)
@given(documents, st.booleans(), st.sampled_from([None, 1]))
def test_it_counts_what_a_decoder_finds(document: object, ascii_only: bool, indent: int | None) -> None:
    text = json.dumps(document, ensure_ascii=ascii_only, indent=indent).encode("utf-8", "surrogatepass")
    assert outline.of(text) == counted(document)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200) | st.text('[]{}",:\\a', max_size=60).map(str.encode))
def test_it_takes_any_bytes(text: bytes) -> None:
    found = outline.of(text)
    assert 0 <= found.depth <= len(text)
    assert 0 <= found.fields <= len(text)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("piece", [b"[", b"[]", b'"', b'"\\"', b'\\"', b'"a', b",", b"\\"])
def test_a_megabyte_is_one_pass(piece: bytes) -> None:
    """Quadratic, it would run into the time limit."""
    found = outline.of(piece * (2**20 // len(piece)))
    assert found.depth == {b"[": 2**20, b"[]": 1}.get(piece, 0)
