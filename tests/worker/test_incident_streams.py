"""Incidents are of the readings and their order alone: not of batches, restarts, or how often one looks."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.incident_plant import FEATURES, PARTITIONS, Plant, Row
from worker.incidents.incidents import Incident

rows = st.builds(
    Row,
    entity=st.sampled_from(["pump-1", "pump-2", "pump-3"]),
    second=st.integers(-150, 150),
    score=st.sampled_from([0.0, 0.5, 1.5, 2.0, 4.0, 6.0]),
    parts=st.tuples(*[st.floats(0.01, 9)] * len(FEATURES)),
    partition=st.integers(0, PARTITIONS - 1),
)
# Times wander forward, with disorder; so that incidents open, close, and open again.
streams = st.lists(rows, max_size=60).map(
    lambda steps: [row._replace(second=row.second / 10 + 4 * i) for i, row in enumerate(steps)]
)
rules = st.fixed_dictionaries(
    {
        "open_after": st.integers(1, 2),
        "open_within": st.integers(2, 4),
        "close_after_seconds": st.sampled_from([9, 25]),
        "cool_down_seconds": st.sampled_from([0, 40]),
        "group_window_seconds": st.sampled_from([0, 10, 60]),
    }
)

cutting = st.lists(st.integers(0, 60), max_size=8)


def batches(stream: list[Row], cuts: list[int]) -> Iterator[tuple[int, int]]:
    return pairwise(sorted({0, len(stream), *(min(cut, len(stream)) for cut in cuts)}))


@given(rules, streams, cutting, st.booleans())
@settings(max_examples=150, deadline=None)
def test_batches_and_restarts_change_nothing(
    changed: dict[str, Any], stream: list[Row], cuts: list[int], restart: bool
) -> None:
    whole, parts = Plant(changed), Plant(changed)
    expected, told = whole.feed(stream), []
    for start, end in batches(stream, cuts):
        told += parts.feed(stream[start:end])
        parts = parts.restarted() if restart else parts
    assert told == expected
    assert parts.rows() == whole.rows()


def with_looks(plant: Plant, stream: list[Row], cuts: list[int]) -> list[Incident]:
    """Looks for silence after every batch, and twice at the end."""
    told = []
    for start, end in batches(stream, cuts):
        told += plant.feed(stream[start:end])
        for partition in range(PARTITIONS):
            told += plant.quiet(partition, max((r.second for r in stream[:end] if r.partition == partition), default=0))
    for partition in range(PARTITIONS):
        told += [*plant.quiet(partition, 10_000), *plant.quiet(partition, 20_000)]
    return told


def key(incident: Incident) -> tuple[int, str]:
    return incident.source.partition, incident.entity


def forget(plant: Plant, *columns: str) -> Plant:
    for column in columns:
        plant.states[f"incident_{column}"][:] = 0
    return plant


@given(rules, streams, cutting)
@settings(max_examples=150, deadline=None)
def test_how_often_one_looks_for_silence_changes_nothing(
    changed: dict[str, Any], stream: list[Row], cuts: list[int]
) -> None:
    """Where the entities' clocks agree."""
    stream = sorted(stream, key=lambda row: row.second)
    seldom, often = Plant(changed), Plant(changed)
    told, expected = with_looks(often, stream, cuts), with_looks(seldom, stream, [])
    assert sorted(told, key=key) == sorted(expected, key=key)
    assert forget(often, "silent_since_ms").rows() == forget(seldom, "silent_since_ms").rows()


@given(rules, streams, cutting)
@settings(max_examples=150, deadline=None)
def test_silence_is_not_part_of_an_entity_s_course(
    changed: dict[str, Any], stream: list[Row], cuts: list[int]
) -> None:
    """Where they do not, what is told may differ, but not what is true."""
    never, often = Plant(changed), Plant(changed)
    never.feed(stream)
    last = {key(incident): incident.state for incident in with_looks(often, stream, cuts)}
    assert set(last.values()) <= {"close"}
    said_of = ("silent_since_ms", "presumed_closed", "told_ms", "told_peak", "told_feature")
    assert forget(often, *said_of).rows() == forget(never, *said_of).rows()


@given(rules, streams)
@settings(max_examples=150, deadline=None)
def test_an_entity_s_course_is_of_its_own_readings(changed: dict[str, Any], stream: list[Row]) -> None:
    """Apart from the group; state is restored entity by entity, each from its own offset."""
    together = Plant(changed)
    told = together.feed(stream)
    for partition, name in together.rows():
        alone = Plant(changed)
        others = [
            row if row.entity == name else row._replace(score=0.0, second=row.second + 5000)
            for row in stream
            if row.partition == partition
        ]
        mine = [incident for incident in told if key(incident) == (partition, name)]
        assert [replace(i, group_id=i.incident_id) for i in mine] == [
            replace(i, group_id=i.incident_id) for i in alone.feed(others)
        ]
