"""Rows by entity and then by arrival, whatever the codes are stored as."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.state.visits import Visits, by_entity


@pytest.mark.parametrize("codes", [[], [0], [3, 1, 3, 1, 0], [65_535, 0, 65_535], [65_536, 0, 65_536, 65_535, 0]])
def test_rows_of_an_entity_stand_together_as_they_came(codes: list[int]) -> None:
    expected = sorted(range(len(codes)), key=lambda row: (codes[row], row))
    assert by_entity(np.array(codes, np.int32)).tolist() == expected


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30))
def test_segments_are_the_entities(codes: list[int]) -> None:
    visits = Visits.of(np.array(codes, np.int32))
    sorted_B = np.array(codes)[visits.order_B]
    assert visits.code_E[visits.segment_B()].tolist() == sorted_B.tolist()
    assert np.flatnonzero(visits.begins_B()).tolist() == sorted(visits.start_E.tolist())
    assert sorted_B[visits.last_E].tolist() == visits.code_E.tolist()
    before_B = visits.before(visits.order_B, -1 - visits.code_E.astype(np.int64))
    for place, row in enumerate(visits.order_B.tolist()):
        earlier = [i for i in range(row) if codes[i] == codes[row]]
        assert before_B[place] == (earlier[-1] if earlier else -1 - codes[row])
