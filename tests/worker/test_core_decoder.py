"""The compiled decoder by itself: what it takes, what it leaves, and that several threads find what one finds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.factory import FEATURES
from tests.worker.record_batches import Content, batch_of
from tests.worker.test_columns import many, opened
from tests.worker.twins import needs_core
from worker import compiled

pytestmark = needs_core


def decoder(entity_field: str | None = None) -> Any:
    core = compiled.core()
    assert core is not None
    return core.Decoder(list(FEATURES), "values", entity_field, "timestamp", 1_000)


@pytest.mark.parametrize("most", [2, 3, 7, 64])
def test_several_threads_find_what_one_finds(most: int) -> None:
    """The same rows in the same order, entities that several of them meet, what is left to Python, broken batches."""
    batches = []
    for number in range(40):
        values = [b'{"flow":%d.5,"unit":"%s"}' % (i, b"u" * 40) for i in range(300 + 20 * number)]
        values[number * 5] = b"{" if number % 3 else b'{"flow":2,"unit":"\\ud83d\\ude00"}'
        (batch,) = opened(batch_of([Content(i, b"pump-%d" % (i % 7 + number), v) for i, v in enumerate(values)], 0)[0])
        batches.append(batch._replace(partition=number % 4, records=batch.records + (number % 10 == 9)))
    core = decoder()
    told = []
    for threads in (1, most):
        found = core.decode([batch[:7] for batch in batches], threads)
        owners = [found.entities[code] for code in np.frombuffer(found.entity_B, np.int32)]
        plain = (found.x_BF, found.timestamp_ms_B, found.offset_B, found.batch_B)
        told.append((owners, *map(bytes, plain), found.left, found.unread, found.value_bytes))
    assert told[0] == told[1]
    assert found.unread == [9, 19, 29, 39]
    assert len(found.left) == 36
    assert len(set(found.entities)) < len(found.entities), "no entity was met by two threads"


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=80), st.integers(-(2**31), 2**31 - 1), st.integers(-(2**63), 2**63 - 1))
def test_the_core_takes_any_bytes(data: bytes, count: int, place: int) -> None:
    core = decoder()
    found = core.decode([(0, place, place, None, count, 0, data)], 1)
    rows = len(found.offset_B) // 8
    assert len(found.x_BF) == rows * 4 * len(FEATURES)
    assert found.unread in ([], [0])
    assert not (found.unread and (rows or found.left))


def test_a_plain_reading_is_not_left_to_python() -> None:
    """Else it would all be right, and slow."""
    core = decoder("machine")
    readings = [
        b'{"machine":"a","temperature":-1.5e3,"pressure":2,"flow":true,"timestamp":1764000000.25}',
        b' { "timestamp" : "2025-11-24T16:00:00.123+01:00", "values" : [ 1 , null, 0.1 ], "machine" : 12 } ',
        '{"flow":1,"unit":"\\u00b0C µ","more":{"of":[1,"x",{}]},"machine":"µ","pressure":null}'.encode(),
    ]
    (batch,) = opened(many(readings))
    found = core.decode([batch[:7]], 1)
    assert (found.left, found.unread, len(found.offset_B)) == ([], [], 3 * 8)
