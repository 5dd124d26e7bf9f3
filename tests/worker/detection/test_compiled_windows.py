"""Windows and scaling, compiled and in Python: the same to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.worker.twins import by, needs_core
from worker import compiled
from worker.detection import windows
from worker.detection.scaling import LARGEST, Scaling
from worker.records import F32, Batch
from worker.state.state import States
from worker.state.visits import Visits

ENTITIES, FEATURES, ROWS = 5, 3, 30


def gathered(window: int, gap_ms: int | None, seed: int) -> list[bytes]:
    """Everything that a few batches leave, windows and states."""
    states = States(windows.fields(window, FEATURES))
    states.reserve(ENTITIES)
    rng, left = np.random.default_rng(seed), []
    for _ in range(4):
        rows = int(rng.integers(1, ROWS))
        batch = Batch(
            x_BF=rng.normal(0, 1, (rows, FEATURES)).astype(np.float32),
            entity_B=rng.integers(0, ENTITIES, rows).astype(np.int32),
            timestamp_ms_B=rng.integers(-50, 1000, rows).cumsum(),
            partition_B=np.zeros(rows, np.int32),
            offset_B=np.arange(rows),
        )
        found = windows.gather(states, batch, Visits.of(batch.entity_B), window, gap_ms)
        left += [found.stack_KF.tobytes(), found.index_BW.tobytes(), found.full_B.tobytes()]
        left += [states.dump(code) for code in range(ENTITIES)]
    return left


@needs_core
@settings(max_examples=60, deadline=None)
@given(st.sampled_from([1, 2, 5, 12]), st.sampled_from([None, 0, 400]), st.integers(0, 2**32))
def test_windows(window: int, gap_ms: int | None, seed: int) -> None:
    assert by("compiled", gathered, window, gap_ms, seed) == by("python", gathered, window, gap_ms, seed)


values = st.floats(width=32, allow_nan=True, allow_infinity=True)


@needs_core
@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(values, values, values), max_size=9))
def test_scaling(rows: list[tuple[float, ...]]) -> None:
    x_BF = np.array(rows, np.float32).reshape(-1, FEATURES)
    scaling = Scaling(offset=(0.1, -5.0, 3e38), span=(1e-30, 2.0, 3.0), median=(0.0, -LARGEST, LARGEST))

    def scaled(how: Any) -> list[F32]:
        return by(how, lambda: [scaling.scale(x_BF), scaling.filled(x_BF), scaling.scale(x_BF[::2])])

    for found, expected in zip(scaled("compiled"), scaled("python"), strict=True):
        np.testing.assert_array_equal(found, expected)


@needs_core
def test_the_core_refuses_what_does_not_fit() -> None:
    core: Any = compiled.core()
    one = np.zeros((1, 2), np.float32)
    for wrong in ((one, np.zeros(3, np.float32)), (one[:, :1], one[0]), (one, np.zeros(0, np.float32))):
        with pytest.raises(ValueError, match="features"):
            core.scale(wrong[0], wrong[1], wrong[1], 1.0, None, np.empty_like(wrong[0]))
    places = np.array([0]), np.array([0]), np.array([1])
    memory = np.zeros((1, 1, 2), np.float32), np.zeros(1, np.int32), np.zeros(1, np.int64)
    out = [np.zeros((3, 2), np.float32), np.zeros((1, 2), np.int64), np.zeros(1, np.uint8)]
    core.gather(places, 2, None, one, np.zeros(1, np.int64), memory, tuple(out))
    for wrong in range(3):
        short = [column[:-1] if n == wrong else column for n, column in enumerate(out)]
        with pytest.raises(ValueError, match="belong"):
            core.gather(places, 2, None, one, np.zeros(1, np.int64), memory, tuple(short))
