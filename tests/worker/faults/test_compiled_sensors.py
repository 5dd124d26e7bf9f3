"""Faults of sensors, compiled and in Python: the same findings and the same memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given

from tests.worker.faults.test_quality import cut, said, streams
from tests.worker.twins import by, needs_core
from worker import compiled
from worker.faults.quality import Quality, QualityMonitor, fields
from worker.records import Batch
from worker.state.state import States

pytestmark = needs_core


def left(how: Any, demands: list[Quality], parts: list[Batch], whole: Batch) -> list[object]:
    """Everything that the parts leave, each watched by the next of the demands."""
    monitors = [by(how, QualityMonitor, demand) for demand in demands]
    states, found = States(fields(2)), []
    states.reserve(4)
    for number, part in enumerate(parts):
        found.append(said(monitors[number % len(monitors)].update(states, part), whole.offset_B))
        found.append([states.dump(code) for code in range(4)])
    return found


@given(streams(), streams())
def test_compiled_and_python_find_the_same(
    stream: tuple[Quality, Batch, list[int]], other: tuple[Quality, Batch, list[int]]
) -> None:
    demands, whole, places = stream
    parts = cut(whole, places)
    asked = [demands, other[0]]
    assert left("compiled", asked, parts, whole) == left("python", asked, parts, whole)


def test_the_core_refuses_what_does_not_fit() -> None:
    sensors = compiled.core().Sensors(  # type: ignore[union-attr]
        stuck_after_F=[3], missing_after_F=[3], low_F=[0.0], high_F=[1.0], never=9, longest=8,
        stuck=1, missing=2, out=4,
    )
    places = np.array([0]), np.array([0]), np.array([1])
    memory = [np.zeros((1, 1), kind) for kind in (np.float32, np.int32, np.int32, np.int8)]
    assert sensors.update(places, np.full((1, 1), 2, np.float32), tuple(memory)) == [(4, 0, 0)]
    with pytest.raises(ValueError, match="belong"):
        sensors.update(places, np.zeros((2, 1), np.float32), tuple(memory))
    with pytest.raises(ValueError, match="belong"):
        sensors.update(places, np.zeros((1, 1), np.float32), (*memory[:3], memory[3][:0]))
