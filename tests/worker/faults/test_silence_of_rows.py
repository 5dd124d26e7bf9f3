"""Entities whose last readings lie in one record: each silence is an event of its own, and the stream goes on where the
newest row stands. And the time of streams, compiled and in Python.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.worker.twins import by, needs_core
from worker import compiled
from worker.faults.silence import Silence, fields
from worker.records import Batch, Origin
from worker.state.state import States
from worker.state.visits import Visits


def batch(entities: list[int], offsets: list[int], rows: list[int], stamps: list[int]) -> Batch:
    n = len(entities)
    return Batch(
        np.zeros((n, 1), np.float32), np.array(entities, np.int32), np.array(stamps, np.int64), np.zeros(n, np.int32),
        np.array(offsets, np.int64), np.array(rows, np.int32),
    )


def test_each_silence_names_its_row() -> None:
    states, silence = States(fields()), Silence(1.0)
    first = batch([0, 1, 2], [5, 5, 5], [0, 1, 2], [1_000] * 3)
    silence.update(states, first, Visits.of(first.entity_B))
    more = batch([2] * 4, [6, 6, 7, 7], [0, 1, 0, 1], [1_400, 1_800, 2_200, 2_600])
    silence.update(states, more, Visits.of(more.entity_B))
    findings = silence.silent(states, 0, np.array([0, 1, 2]))
    origins = [Origin.at("t", 0, finding.offset) for finding in findings]
    assert origins == [Origin("t", 0, 5, 0), Origin("t", 0, 5, 1)]
    assert len({origin.event_id("silent") for origin in origins}) == 2


def test_it_goes_on_at_the_newest_row_whatever_its_number() -> None:
    """Row 9 of an older record comes before row 0 of a newer one."""
    states, silence = States(fields()), Silence(10.0)
    found = batch([0, 1, 2], [5, 6, 7], [9, 3, -1], [1_000, 2_000, 3_000])
    for i in range(3):
        one = found.take(slice(i, i + 1))
        silence.update(states, one, Visits.of(one.entity_B))
    again = Silence(10.0)
    again.resume(states, 0, np.array([0, 1, 2]))
    assert again._stream_PK[0, 0] == 3_000
    again.resume(states, 0, np.array([0, 1]))
    assert again._stream_PK[0, 0] == 2_000


@needs_core
@given(st.lists(st.lists(st.tuples(st.sampled_from([0, 1, 7]), st.integers(0, 60_000)), min_size=1), max_size=5))
def test_time_passes_alike_compiled_and_in_python(parts: list[list[tuple[int, int]]]) -> None:
    def passed(how: Any) -> list[bytes]:
        silence, left = by(how, Silence, 20.0), []
        for part in parts:
            partitions, stamps = zip(*part, strict=True)
            found = batch([0] * len(part), [0] * len(part), [-1] * len(part), list(stamps))
            found.partition_B[:] = partitions
            left += [column.tobytes() for column in silence._pass(found)]
        return [*left, silence._stream_PK.tobytes()]

    assert passed("compiled") == passed("python")


@needs_core
def test_the_core_refuses_a_partition_without_a_place() -> None:
    core, one = compiled.core(), tuple(np.zeros(1, np.int64) for _ in range(3))
    for partition in (1, -1):
        with pytest.raises(ValueError, match="no place"):
            core.pass_time(np.int32([partition]), one[0], 0, np.zeros((1, 3), np.int64), one)  # type: ignore[union-attr]
