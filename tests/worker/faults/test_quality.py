from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from worker.errors import SettingsError
from worker.faults.faults import Finding
from worker.faults.quality import Quality, QualityMonitor, fields
from worker.records import Batch
from worker.state.state import States

NAN = float("nan")
OFF = Quality.undemanding(1)


def batch(rows: Sequence[Sequence[float]], entities: Sequence[int] | None = None) -> Batch:
    """A reading a second; entities with odd codes are on partition 1."""
    n = len(rows)
    offset_B = np.arange(n)
    entity_B = np.array(entities if entities is not None else [0] * n, np.int32)
    return Batch(np.array(rows, np.float32), entity_B, 1000 * offset_B, entity_B % 2, offset_B)


def column(*values: float) -> Batch:
    return batch([[value] for value in values])


def found(quality: Quality, *batches: Batch) -> list[tuple[Any, ...]]:
    """(kind, offset, features, amounts), batch after batch."""
    states, monitor = States(fields(quality.features)), QualityMonitor(quality)
    return [
        (finding.kind, finding.offset, finding.features, finding.amounts)
        for each in batches
        for finding in monitor.update(states, each)
    ]


def quality(**lists: Any) -> Quality:
    return Quality(**(OFF.model_dump() | lists))


def test_a_stuck_sensor_is_said_once_when_its_run_is_long_enough() -> None:
    readings = column(1, 2, 2, 2, 2, 2, 3, 3, 3)
    assert found(quality(stuck_after=(3,)), readings) == [("stuck", 3, (0,), (3.0,)), ("stuck", 8, (0,), (3.0,))]


def test_a_constant_feature_is_not_stuck_where_equality_means_nothing() -> None:
    readings = batch([[7.0, 7.0]] * 50)
    two = Quality(stuck_after=(None, 10), missing_after=(None,) * 2, low=(None,) * 2, high=(None,) * 2)
    assert found(two, readings) == [("stuck", 9, (1,), (10.0,))]


def test_readings_without_the_value_neither_count_as_equal_nor_break_the_run() -> None:
    assert found(quality(stuck_after=(3,)), column(5, NAN, 5, NAN, NAN, 5, 5)) == [("stuck", 5, (0,), (3.0,))]


def test_a_missing_sensor_is_said_once_and_again_after_it_came_back() -> None:
    readings = column(NAN, NAN, NAN, 1, NAN, 1, NAN, NAN)
    assert found(quality(missing_after=(2,)), readings) == [("missing", 1, (0,), (2.0,)), ("missing", 7, (0,), (2.0,))]


def test_sensors_that_fail_at_one_reading_share_a_finding() -> None:
    two = Quality(stuck_after=(2, 2), missing_after=(2, 2), low=(0, None), high=(None, 1))
    assert found(two, batch([[-1, 2], [-1, 2], [NAN, NAN], [NAN, NAN]])) == [
        ("out_of_range", 0, (0, 1), (0.0, 1.0)),
        ("stuck", 1, (0, 1), (2.0, 2.0)),
        ("missing", 3, (0, 1), (2.0, 2.0)),
    ]


def test_out_of_range_lasts_until_a_reading_within() -> None:
    readings = column(11, 12, NAN, 13, -3, 5, 10, 10.5, 0, -0.5)
    assert found(quality(low=(0,), high=(10,)), readings) == [
        ("out_of_range", 0, (0,), (10.0,)),
        ("out_of_range", 7, (0,), (10.0,)),
        ("out_of_range", 9, (0,), (0.0,)),
    ]


def test_a_limit_is_within_though_neither_is_a_float32() -> None:
    assert float(np.float32(0.1)) > 0.1
    assert found(quality(high=(0.1,)), column(0.1)) == []
    assert found(quality(high=(0.1,)), column(0.1001)) == [("out_of_range", 0, (0,), (0.1,))]


def test_entities_are_told_apart_and_findings_come_in_order_of_arrival() -> None:
    entities = [3, 1, 3, 1, 1, 3, 200]
    readings = batch([[1.0]] * 7, entities)
    states, monitor = States(fields(1)), QualityMonitor(quality(stuck_after=(2,)))
    assert [(f.entity, f.row, f.offset) for f in monitor.update(states, readings)] == [(3, 2, 2), (1, 3, 3)]
    assert states["quality_equal"][[1, 3, 200], 0].tolist() == [3, 3, 1]


def test_nothing_begins_in_no_readings() -> None:
    assert QualityMonitor(OFF).update(States(fields(1)), batch(np.empty((0, 1)))) == []


def test_a_code_given_to_another_entity_begins_anew() -> None:
    states, monitor = States(fields(1)), QualityMonitor(quality(stuck_after=(3,), missing_after=(3,), high=(10,)))
    monitor.update(states, column(50, 50))
    fresh = States(fields(1)).dump(0)
    assert states.dump(0) != fresh
    states.reset([0])
    assert states.dump(0) == fresh
    begun = monitor.update(states, column(50, 50, 50))
    assert [(f.kind, f.offset) for f in begun] == [("out_of_range", 0), ("stuck", 2)]


@pytest.mark.parametrize(("then", "offsets"), [(2, []), (6, []), (None, [])])
def test_what_was_said_is_not_said_again_by_another_version(then: int | None, offsets: list[int]) -> None:
    states = States(fields(1))
    QualityMonitor(quality(stuck_after=(4,), missing_after=(9,))).update(states, column(*[1.0] * 4))
    other = QualityMonitor(quality(stuck_after=(then,), missing_after=(2,)))
    assert [f.offset for f in other.update(states, column(*[1.0] * 20))] == offsets


def test_what_was_not_said_is_said_at_once_by_a_stricter_version() -> None:
    states = States(fields(1))
    QualityMonitor(quality(stuck_after=(40,))).update(states, column(*[1.0] * 30))
    assert [f.offset for f in QualityMonitor(quality(stuck_after=(5,))).update(states, column(1, 1, 1))] == [0]


# The same by hand: one reading after the other, in plain Python.

class Sensor(NamedTuple):
    last: float = NAN
    equal: int = 0
    missing: int = 0
    out: bool = False


def by_hand(quality: Quality, readings: Batch) -> list[tuple[str, int, int]]:
    """(kind, offset, feature)."""
    sensors: dict[tuple[int, int], Sensor] = {}
    said = []
    for row, entity, offset in zip(
        readings.x_BF.tolist(), readings.entity_B.tolist(), readings.offset_B.tolist(), strict=True
    ):
        for f, value in enumerate(row):
            last, equal, missing, was_out = sensors.get((entity, f), Sensor())
            if np.isnan(value):
                missing += 1
                if missing == quality.missing_after[f]:
                    said.append(("missing", offset, f))
                sensors[entity, f] = Sensor(last, equal, missing, was_out)
                continue
            equal = equal + 1 if value == last else 1
            if equal == quality.stuck_after[f]:
                said.append(("stuck", offset, f))
            low, high = quality.low[f], quality.high[f]
            out = (low is not None and value < low) or (high is not None and value > high)
            if out and not was_out:
                said.append(("out_of_range", offset, f))
            sensors[entity, f] = Sensor(value, equal, 0, out)
    return sorted(said)


LENGTHS = st.one_of(st.none(), st.integers(2, 4))


@st.composite
def streams(draw: st.DrawFn) -> tuple[Quality, Batch, list[int]]:
    """What is demanded of two features, readings of few values and up to four entities, and where to cut them."""
    n = draw(st.integers(1, 40))
    value = st.sampled_from([0.0, -0.0, 1.0, 2.0, NAN])
    rows = draw(st.lists(st.tuples(value, value), min_size=n, max_size=n))
    entities = draw(st.lists(st.integers(0, draw(st.integers(0, 3))), min_size=n, max_size=n))
    demands = Quality(
        stuck_after=draw(st.tuples(LENGTHS, LENGTHS)),
        missing_after=draw(st.tuples(LENGTHS, LENGTHS)),
        low=(0.5, None),
        high=(1.5, draw(st.sampled_from([None, 1.0]))),
        silent_after_seconds=3,
    )
    return demands, batch(rows, entities), draw(st.lists(st.integers(0, n), max_size=5))


def cut(whole: Batch, places: Sequence[int]) -> list[Batch]:
    bounds = [0, *sorted(places), len(whole)]
    columns = (whole.x_BF, whole.entity_B, whole.timestamp_ms_B, whole.partition_B, whole.offset_B)
    return [Batch(*(c[a:b] for c in columns)) for a, b in pairwise(bounds)]  # type: ignore[arg-type]


def said(findings: Sequence[Finding], offset_B: Any) -> list[tuple[Any, ...]]:
    """Findings with the reading in place of the row in its batch."""
    return [(*f._replace(row=None), None if f.row is None else int(offset_B[f.row])) for f in findings]


@given(streams())
def test_the_whole_batch_at_once_finds_what_reading_by_reading_does(stream: tuple[Quality, Batch, list[int]]) -> None:
    demands, readings, _ = stream
    findings = QualityMonitor(demands).update(States(fields(2)), readings)
    flat = [(finding.kind, finding.offset, f) for finding in findings for f in finding.features]
    assert sorted(flat) == by_hand(demands, readings)
    rows = [finding.row for finding in findings]
    assert rows == sorted(rows)


@given(streams())
def test_any_cut_of_the_stream_finds_the_same_and_ends_the_same(stream: tuple[Quality, Batch, list[int]]) -> None:
    demands, readings, places = stream
    whole, monitor = States(fields(2)), QualityMonitor(demands)
    expected = said(monitor.update(whole, readings), readings.offset_B)

    parts, monitor = States(fields(2)), QualityMonitor(demands)
    given_parts, restored = [], States(fields(2))
    again: list[tuple[Any, ...]] = []
    for part in cut(readings, places):
        given_parts += said(monitor.update(parts, part), part.offset_B)
        # Another worker at every cut: rows restored from their bytes.
        rows = [restored.dump(code) for code in range(4)]
        restored, successor = States(fields(2)), QualityMonitor(demands)
        for code, row in enumerate(rows):
            restored.load(code, row)
        successor.resume(restored, 0, [0, 2])
        successor.resume(restored, 1, [1, 3])
        again += said(successor.update(restored, part), part.offset_B)
    assert given_parts == again == expected
    for code in range(4):
        assert parts.dump(code) == restored.dump(code) == whole.dump(code)


@pytest.mark.parametrize(
    "wrong",
    [
        {"stuck_after": (3, 3)},
        {"stuck_after": (1,)},
        {"missing_after": (0,)},
        {"low": (NAN,)},
        {"high": (1e39,)},
        {"low": (2.0,), "high": (1.0,)},
        {"silent_after_seconds": 0},
        {"silent_after_seconds": float("inf")},
        {"stuck": (3,)},
    ],
)
def test_a_manifest_that_says_what_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        quality(**wrong)


def test_it_survives_a_manifest() -> None:
    one = quality(stuck_after=(3,), low=(-1.5,), silent_after_seconds=90)
    assert Quality.model_validate_json(one.model_dump_json()) == one


def test_the_operators_limits_are_laid_over_by_name() -> None:
    learnt = Quality(stuck_after=(3, 4), missing_after=(None, 2), low=(None, -1), high=(None, 1))
    limited = learnt.with_limits(("heat", "flow"), {"heat": (None, 90.0)})
    assert (limited.low, limited.high) == ((None, -1), (90.0, 1))
    assert limited.model_copy(update={"high": (None, 1)}) == learnt
    assert learnt.with_silence(5).silent_after_seconds == 5
    assert learnt.only({"stuck", "silent"}) == Quality.undemanding(2).model_copy(update={"stuck_after": (3, 4)})


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"haet": (0.0, 1.0)}, "'haet', but the model's features are heat, flow"),
        ({"heat": (2.0, 1.0)}, "low 2 is above the high 1"),
        ({"heat": (NAN, 1.0)}, "finite"),
        ({"heat": (None, 1e39)}, "finite"),
    ],
)
def test_limits_that_cannot_be_are_explained(limits: dict[str, tuple[float | None, float | None]], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        Quality.undemanding(2).with_limits(("heat", "flow"), limits)


def test_patience_that_cannot_be_is_explained() -> None:
    with pytest.raises(SettingsError, match="above 0"):
        OFF.with_silence(NAN)
