from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.faults.quality import Quality, QualityMonitor, fields
from worker.records import Batch
from worker.state.state import States

SECOND = 1000
DAY = 24 * 3600 * SECOND
START = 1_764_000_000_000
Reading = tuple[int, int]                       # entity, timestamp


def batch(readings: Sequence[Reading], start: int = 0, partition: int = 0) -> Batch:
    entities, stamps = zip(*readings, strict=True)
    n = len(readings)
    return Batch(
        np.random.default_rng(start).normal(size=(n, 1)).astype(np.float32), np.array(entities, np.int32),
        np.array(stamps, np.int64), np.full(n, partition, np.int32), np.arange(start, start + n),
    )


class Watched:
    """A partition's entities 0, 1, 2 …, and what was said of them: (entity, offset of its last reading)."""

    def __init__(self, after_seconds: float | None = 10, entities: int = 3) -> None:
        self.quality = Quality.undemanding(1).model_copy(update={"silent_after_seconds": after_seconds})
        self.states, self.monitor = States(fields(1)), QualityMonitor(self.quality)
        self.entities, self.offset = range(entities), 0

    def read(self, readings: Sequence[Reading], partition: int = 0) -> list[tuple[int, int]]:
        found = self.monitor.update(self.states, batch(readings, self.offset, partition)) if readings else []
        self.offset += len(readings)
        return [(f.entity, f.offset) for f in found]

    def ask(self, idle_ms: int = 0) -> list[tuple[int, int]]:
        return [(f.entity, f.offset) for f in self.monitor.silent(self.states, 0, self.entities, idle_ms)]


def seconds(begin: int, end: int, entities: Sequence[int]) -> list[Reading]:
    """Each entity once a second."""
    return [(entity, START + SECOND * t) for t in range(begin, end) for entity in entities]


def test_one_that_stops_while_others_go_on_is_said_once_until_it_speaks() -> None:
    plant = Watched()
    plant.read(seconds(0, 5, [0, 1, 2]))
    assert plant.ask() == []
    plant.read(seconds(5, 14, [0, 2]))
    assert plant.ask() == []
    plant.read(seconds(14, 17, [0, 2]))
    assert plant.ask() == [(1, 13)]
    plant.read(seconds(17, 60, [0, 2]))
    assert plant.ask() == []
    assert plant.read(seconds(60, 61, [0, 1, 2])) == []
    plant.read(seconds(61, 80, [0, 2]))
    assert plant.ask() == [(1, plant.offset - 38 - 2)]


def test_the_event_is_about_the_last_reading() -> None:
    plant = Watched()
    plant.read(seconds(0, 5, [0, 1]))
    plant.read(seconds(5, 30, [0]))
    (finding,) = plant.monitor.silent(plant.states, 0, [0, 1])
    assert (finding.kind, finding.row, finding.partition) == ("silent", None, 0)
    assert (finding.offset, finding.timestamp_ms) == (9, START + 4 * SECOND)
    assert finding.amounts == (pytest.approx(25, abs=1),)


def test_a_silence_that_nobody_asked_about_is_found_when_it_ends() -> None:
    plant = Watched()
    readings = [*seconds(0, 5, [0, 1]), *seconds(5, 30, [0]), (1, START + 30 * SECOND), *seconds(31, 33, [0, 1])]
    found = plant.monitor.update(plant.states, batch(readings))
    assert [(f.kind, f.entity, f.offset, f.timestamp_ms, f.row) for f in found] == [
        ("silent", 1, 9, START + 4 * SECOND, 35)
    ]
    assert plant.ask() == []


def test_a_clock_that_is_a_day_off_is_no_silence() -> None:
    for error in (-DAY, -30 * SECOND, 30 * SECOND, DAY):
        plant = Watched()
        for t in range(0, 120, 2):
            wrong = [(e, stamp + (error if e == 1 else 0)) for e, stamp in seconds(t, t + 2, [0, 1, 2])]
            assert plant.read(wrong) == []
            assert plant.ask() == [], error
        plant.read(seconds(120, 140, [0, 2]))
        assert [entity for entity, _ in plant.ask()] == [1], error


def test_one_timestamp_far_ahead_neither_makes_nor_hides_silence() -> None:
    plant = Watched()
    plant.read(seconds(0, 5, [0, 1, 2]))
    plant.read([(0, START + 50 * 365 * DAY)])
    plant.read(seconds(5, 10, [0, 1, 2]))
    assert plant.ask() == []
    plant.read(seconds(10, 30, [0, 2]))
    assert [entity for entity, _ in plant.ask()] == [1]


def test_an_outage_of_all_blames_nobody() -> None:
    plant = Watched()
    plant.read(seconds(0, 5, [0, 1, 2]))
    for t in range(10_000, 10_005):
        assert plant.read(seconds(t, t + 1, [0, 2])) == []
        assert plant.ask() == []
    assert plant.read(seconds(10_005, 10_006, [1])) == []


def test_buffered_readings_are_no_time_that_passes() -> None:
    plant = Watched()
    plant.read(seconds(100, 105, [0, 1, 2]))
    plant.read(seconds(0, 100, [0]))
    assert plant.ask() == []


def test_the_last_of_a_partition_is_silent_only_by_the_callers_clock() -> None:
    plant = Watched(entities=1)
    plant.read(seconds(0, 5, [0]))
    assert plant.ask(10 * SECOND) == []
    assert plant.ask(11 * SECOND) == [(0, 4)]
    assert plant.ask(12 * SECOND) == []


def test_each_partition_has_its_own_time() -> None:
    plant = Watched()
    plant.read(seconds(0, 2, [0]), partition=0)
    plant.read(seconds(0, 60, [1, 2]), partition=1)
    assert plant.ask() == []


def test_null_is_never() -> None:
    plant = Watched(after_seconds=None)
    plant.read(seconds(0, 2, [0, 1]))
    assert plant.read(seconds(2, 10_000, [0])) == []
    assert plant.ask(DAY) == []
    assert plant.read(seconds(10_000, 10_001, [1])) == []


def test_of_an_entity_without_a_reading_nothing_is_said() -> None:
    plant = Watched(entities=500)
    plant.read(seconds(0, 2, [0, 1]))
    plant.states.reset([1])                     # its code was given to another, which has said nothing yet
    assert plant.read(seconds(2, 60, [0])) == []
    assert plant.ask() == []
    assert plant.read(seconds(60, 61, [1])) == []


def test_a_partition_that_comes_back_without_its_rows_begins_anew() -> None:
    plant = Watched()
    plant.read(seconds(0, 5, [0, 1]))
    plant.states.reset([0, 1])
    plant.monitor.resume(plant.states, 0, [])
    assert plant.read(seconds(-1000, -995, [0, 1])) == []
    assert plant.ask() == []
    plant.read(seconds(-995, -970, [0]))        # an older part of the topic, whose time passes all the same
    assert [entity for entity, _ in plant.ask()] == [1]


# The same by hand.

def by_hand(readings: Sequence[Reading], after_ms: int) -> set[tuple[int, int]]:
    """(entity, offset of the last reading) of every silence, ended or not."""
    far = -(10**15)
    last, newest, time = far, far, 0
    spoke: dict[int, tuple[int, int]] = {}      # entity → stream time and offset of its last reading
    silent = set()
    for offset, (entity, stamp) in enumerate(readings):
        silent |= {(e, at) for e, (then, at) in spoke.items() if time - then > after_ms}
        reached = min(last, stamp)
        step = max(reached - newest, 0)
        newest, last = newest + step, stamp
        time += step if step <= after_ms else 0
        spoke[entity] = time, offset
    return silent | {(e, at) for e, (then, at) in spoke.items() if time - then > after_ms}


@st.composite
def streams(draw: st.DrawFn) -> list[Reading]:
    steps = st.sampled_from([0, 1, 1, 2, 3, 4, -2, -9, 40])
    entity = st.integers(0, 2)
    now, readings = 100, []
    for step, who in draw(st.lists(st.tuples(steps, entity), min_size=1, max_size=40)):
        now += step
        readings.append((who, now * SECOND))
    return readings


@given(streams(), st.lists(st.tuples(st.integers(0, 40), st.booleans()), max_size=6))
def test_what_is_silent_depends_on_the_stream_alone(stream: list[Reading], cuts: list[tuple[int, bool]]) -> None:
    plant = Watched(after_seconds=4)
    said = []
    places = sorted({0: False, len(stream): True} | {min(place, len(stream)): ask for place, ask in cuts})
    asked = {min(place, len(stream)) for place, ask in cuts if ask} | {len(stream)}
    for begin, end in pairwise(places):
        said += plant.read(stream[begin:end])
        if end in asked:
            said += plant.ask()
    assert len(said) == len(set(said))
    assert set(said) == by_hand(stream, 4 * SECOND)
