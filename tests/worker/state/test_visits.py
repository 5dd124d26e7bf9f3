"""Rows by entity and then by arrival, whatever the codes are stored as."""

from __future__ import annotations

import numpy as np
import pytest

from worker.state.visits import by_entity


@pytest.mark.parametrize("codes", [[], [0], [3, 1, 3, 1, 0], [65_535, 0, 65_535], [65_536, 0, 65_536, 65_535, 0]])
def test_rows_of_an_entity_stand_together_as_they_came(codes: list[int]) -> None:
    expected = sorted(range(len(codes)), key=lambda row: (codes[row], row))
    assert by_entity(np.array(codes, np.int32)).tolist() == expected
