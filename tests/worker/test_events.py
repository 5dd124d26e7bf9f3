"""What an event says of numbers, and the name that it bears."""

from __future__ import annotations

from typing import Any
from uuid import NAMESPACE_URL, uuid5

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.worker.twins import by, needs_core
from worker.events import shortest
from worker.records import event_id


@given(st.text(min_size=1), st.integers(0, 2**31), st.integers(0, 2**63 - 1), st.sampled_from(["anomaly", "stuck"]))
def test_an_event_id_is_the_uuid5_of_the_readings_place(topic: str, partition: int, offset: int, kind: str) -> None:
    place, suffix = f"kafka:{topic}/{partition}/{offset}", "" if kind == "anomaly" else f"#{kind}"
    assert event_id(topic, partition, offset, kind) == uuid5(NAMESPACE_URL, place + suffix)
    assert event_id(topic, partition, offset, kind, row=7) == uuid5(NAMESPACE_URL, f"{place}/7{suffix}")


@pytest.mark.parametrize("how", [pytest.param("compiled", marks=needs_core), "python"])
def test_numbers_are_said_with_the_fewest_digits(how: Any) -> None:
    numbers = np.array([[8.8739, -0.1, 1e-30], [3.4e38, 16777216, 203143.625]], np.float32)
    assert by(how, shortest, numbers).tolist() == [[8.8739, -0.1, 1e-30], [3.4e38, 16777216.0, 203143.62]]
    assert by(how, shortest, numbers[:, 1]).tolist() == [-0.1, 16777216.0]
    assert np.isnan(by(how, shortest, np.float32([np.nan]))).all()


floats = st.floats(width=32, allow_nan=True, allow_infinity=True)
powers = st.integers(-149, 127).map(lambda exponent: 2.0**exponent)     # neighbours are not as far on each side
ties = st.integers(-(2**24), 2**24).map(lambda n: n / 8)                # two of eight digits are as near


@needs_core
@settings(max_examples=300, deadline=None)
@given(st.lists(floats | powers | ties, max_size=20))
def test_compiled_and_in_python_they_are_the_same(numbers: list[float]) -> None:
    array = np.array(numbers, np.float32)
    compiled, python = (by(how, shortest, array) for how in ("compiled", "python"))
    np.testing.assert_array_equal(compiled, python)
    np.testing.assert_array_equal(np.signbit(compiled)[array == 0], np.signbit(array)[array == 0])
    np.testing.assert_array_equal(compiled.astype(np.float32), array)
