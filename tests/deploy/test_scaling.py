"""docs/scaling.md says what the code comes to: an operator buys memory by it."""

from __future__ import annotations

import pytest

from tests.deploy.scaling import assignments, watching
from tests.documents import ROOT, table

PAGE = ROOT / "docs" / "scaling.md"


def number(cell: str) -> int:
    return int(cell.replace(",", ""))


def test_the_size_of_a_row() -> None:
    """Within a tenth: a column more or less is no news to who reads it."""
    for features, *sizes in table(PAGE, "features"):
        for window, size in zip((1, 10, 20), sizes, strict=True):
            assert watching(number(features), window).states.dtype.itemsize == pytest.approx(number(size), rel=0.1)


def test_what_moves_when_one_leaves() -> None:
    rows = table(PAGE, "partitions")
    told = [f"{number(moved):,} move when one leaves" for *_, moved in rows]
    found = assignments(number(rows[0][0]), tuple(number(workers) for _, workers, *_ in rows))
    assert [row.rpartition("; ")[2] for row in found] == told
