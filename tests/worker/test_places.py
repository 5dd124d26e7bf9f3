"""Places: an offset is itself, a row is told from every other, and what came later is the larger."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from worker import places
from worker.places import MOST_ROWS, OFFSET_BITS, WHOLE
from worker.records import Batch, Origin, event_id

where = st.tuples(st.integers(0, 2**OFFSET_BITS - 1), st.integers(WHOLE, MOST_ROWS - 1))


@given(st.lists(where, min_size=1, unique=True))
def test_there_and_back_and_in_order(given: list[tuple[int, int]]) -> None:
    given.sort()
    offset_B, row_B = np.array([o for o, _ in given], np.int64), np.array([r for _, r in given], np.int32)
    place_B = places.of(offset_B, row_B)
    assert [places.parts(place) for place in place_B.tolist()] == given
    assert (place_B >= 0).all()
    assert (place_B[row_B == WHOLE] == offset_B[row_B == WHOLE]).all()
    order = places.order(np.concatenate([[-1], place_B])).tolist()
    assert order == sorted(set(order))


def test_a_reading_of_its_own_has_the_place_and_the_id_that_it_always_had() -> None:
    origin = Origin.at("t", 3, 41)
    assert (origin, str(origin), origin.event_id()) == (Origin("t", 3, 41), "t/3/41", event_id("t", 3, 41))
    (place,) = places.of(np.array([41]), np.array([0], np.int32)).tolist()
    row = Origin.at("t", 3, place)
    assert (row, str(row)) == (Origin("t", 3, 41, 0), "t/3/41/0")
    kinds = [identity for o in (origin, row) for identity in (o.event_id(), o.event_id("stuck"))]
    assert len(set(kinds)) == 4


def test_batches_with_rows_and_without_are_joined() -> None:
    def batch(offset: int, row_B: list[int] | None) -> Batch:
        rows = None if row_B is None else np.array(row_B, np.int32)
        n = 1 if row_B is None else len(row_B)
        wide = np.zeros(n, np.int64)
        narrow = wide.astype(np.int32)
        return Batch(np.zeros((n, 2), np.float32), narrow, wide, narrow, wide + offset, rows)

    both = Batch.joined([batch(1, None), batch(2, [0, 1])])
    assert both.rows_B.tolist() == [WHOLE, 0, 1]
    assert [places.parts(place) for place in both.place_B.tolist()] == [(1, WHOLE), (2, 0), (2, 1)]
    assert Batch.joined([batch(1, None), batch(5, None)]).row_B is None
