"""Readings beside what is expected of them, compiled and in Python: the same to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.worker.twins import by, needs_core
from worker.detection.residuals import compare, mean_square
from worker.detection.scaling import Scaling

FEATURES = 10                           # more than the eight that numpy sums one after the other

values = st.floats(width=32, allow_infinity=False, allow_nan=True)
outputs = st.floats(width=32, allow_infinity=True, allow_nan=True)


def matrix(numbers: st.SearchStrategy[float]) -> st.SearchStrategy[list[list[float]]]:
    return st.lists(st.lists(numbers, min_size=FEATURES, max_size=FEATURES), min_size=4, max_size=4)


@needs_core
@settings(max_examples=60, deadline=None)
@given(matrix(values), matrix(outputs), st.integers(0, 4))
def test_residuals_and_what_is_missing(x: list[list[float]], output: list[list[float]], rows: int) -> None:
    x_BF, output_BF = np.array(x, np.float32)[:rows], np.array(output, np.float32)[:rows]
    x_BF[:1] = np.nan
    scaling = Scaling(
        offset=(0.1, -5.0, 3e38, *[0.0] * (FEATURES - 3)), span=(1e-30, 2.0, 3.0, *[1.5] * (FEATURES - 3)),
        median=(0.0,) * FEATURES,
    )
    spread_F = np.linspace(0.1, 3, FEATURES)

    def found(how: Any) -> list[bytes]:
        with np.errstate(all="ignore"):
            return [column.tobytes() for column in by(how, compare, scaling, spread_F, x_BF, output_BF)]

    assert found("compiled") == found("python")


@needs_core
@settings(max_examples=60, deadline=None)
@given(matrix(st.floats(allow_infinity=False)), st.lists(st.booleans(), min_size=4, max_size=4), st.integers(0, 4))
def test_the_mean_square_of_what_is_there(units: list[list[float]], judged: list[bool], rows: int) -> None:
    unit_BF, judged_B = np.array(units)[:rows], np.array(judged)[:rows]

    def found(how: Any) -> list[bytes]:
        with np.errstate(all="ignore"):
            return [column.tobytes() for column in by(how, mean_square, unit_BF, judged_B)]

    assert found("compiled") == found("python")


@needs_core
@pytest.mark.parametrize("features", [1, 7, 8, 128, 129, 300])     # numpy sums each of these in a way of its own
def test_the_mean_square_of_many_features(features: int) -> None:
    unit_BF = np.random.default_rng(0).normal(0, 1, (20, features))
    unit_BF[::3, ::5] = np.nan
    judged_B = np.arange(20) % 4 > 0

    def found(how: Any) -> list[bytes]:
        return [column.tobytes() for column in by(how, mean_square, unit_BF, judged_B)]

    assert found("compiled") == found("python")


@pytest.mark.parametrize("how", [pytest.param("compiled", marks=needs_core), "python"])
def test_by_hand(how: Any) -> None:
    scaling = Scaling(offset=(10.0, 0.0), span=(2.0, 1.0), median=(10.0, 0.0))
    x_BF, output_BF = np.array([[14, np.nan], [np.nan, np.nan]], np.float32), np.array([[1, 0.5]] * 2, np.float32)
    found = by(how, compare, scaling, np.array([0.5, 1.0]), x_BF, output_BF)
    assert found.unit_BF[0, 0] == (2 - 1) / 0.5
    assert np.isnan(found.unit_BF).tolist() == [[False, True], [True, True]]
    assert found.expected_BF.tolist() == [[12, 0.5]] * 2
    assert (found.imputed_B.tolist(), found.empty_B.tolist()) == ([True, True], [False, True])
    unit_BF, judged_B = np.array([[2.0, np.nan], [3.0, 4.0], [3.0, 4.0]]), np.array([True, True, False])
    mean_B, square_BF = by(how, mean_square, unit_BF, judged_B)
    assert mean_B.tolist() == [4.0, 12.5, 0.0]
    assert square_BF.tolist() == [[4.0, 0.0], [9.0, 16.0], [0.0, 0.0]]
