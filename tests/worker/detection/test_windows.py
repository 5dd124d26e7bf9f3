"""Windows: the last readings of each entity, the same whatever batches they came in."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.detection import windows
from worker.records import F32, Batch
from worker.state.state import States
from worker.state.visits import Visits


def stream(entity: list[int], stamps: list[int] | None = None) -> Batch:
    """Reading i has the values i and 100 + i."""
    n = len(entity)
    x_BF = np.stack([np.arange(n), 100 + np.arange(n)], 1).astype(np.float32)
    stamp = np.arange(n) * 1000 if stamps is None else np.array(stamps)
    return Batch(x_BF, np.array(entity, np.int32), stamp.astype(np.int64), np.zeros(n, np.int32), np.arange(n))


def gathered(batch: Batch, cuts: list[int], window: int, gap_ms: int | None = None) -> tuple[F32, list[bool]]:
    """First features of the windows of a stream that comes in several batches; missing is -1."""
    states = States(windows.fields(window, 2))
    states.reserve(int(batch.entity_B.max(initial=-1)) + 1)
    found, full = [], []
    for start, end in zip([0, *cuts], [*cuts, len(batch)], strict=True):
        part = batch.take(slice(start, end))
        got = windows.gather(states, part, Visits.of(part.entity_B), window, gap_ms)
        found.append(np.nan_to_num(got.stack_KF[got.index_BW][:, :, 0], nan=-1))
        full += got.full_B.tolist()
    return np.concatenate(found), full


def plain(entity: list[int], stamps: list[int], window: int, gap_ms: int | None) -> list[list[int]]:
    """The definition, one reading after the other."""
    before: dict[int, list[int]] = {}
    found = []
    for i, code in enumerate(entity):
        past = before.setdefault(code, [])
        if gap_ms is not None and past and stamps[i] - stamps[past[-1]] > gap_ms:
            past.clear()
        past.append(i)
        found.append(([-1] * window + past)[-window:])
    return found


@given(st.data())
def test_they_are_the_last_readings_whatever_the_batches(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 30))
    window = data.draw(st.integers(1, 5))
    gap_ms = data.draw(st.none() | st.integers(1, 3000))
    entity = data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
    stamps = data.draw(st.lists(st.integers(0, 20_000), min_size=n, max_size=n))
    cuts = sorted(data.draw(st.lists(st.integers(0, n), max_size=4)))
    found, full = gathered(stream(entity, stamps), cuts, window, gap_ms)
    expected = plain(entity, stamps, window, gap_ms)
    assert found.tolist() == expected
    assert full == [-1 not in row for row in expected]


def test_a_gap_begins_anew() -> None:
    _, full = gathered(stream([0] * 6, [0, 1000, 2000, 9000, 10_000, 11_000]), [], 3, 5000)
    assert full == [False, False, True, False, False, True]


def test_readings_without_a_time_have_no_gaps() -> None:
    _, full = gathered(stream([0] * 4, [-1, -1, -1, -1]), [2], 3, 5000)
    assert full == [False, False, True, True]


@pytest.mark.parametrize("entity", [[], [5], [3, 1, 3, 3, 1, 2]])
def test_rounds_hold_each_row_once_and_in_order(entity: list[int]) -> None:
    visits = Visits.of(np.array(entity, np.int32))
    row_B, ends = visits.rounds()
    rounds = [row_R.tolist() for row_R in np.split(row_B, ends[:-1])]
    assert sorted(row for rows in rounds for row in rows) == list(range(len(entity)))
    for code in set(entity):
        rows = [row for rows in rounds for row in rows if entity[row] == code]
        assert rows == sorted(rows)
    for rows in rounds:
        assert [entity[row] for row in rows] == visits.code_E[: len(rows)].tolist()
