"""Which offsets are read, against a topic whose timestamps are known."""

from __future__ import annotations

import bisect
from collections.abc import Mapping

import pytest

from training.history import extent
from training.history.extent import Extent
from training.settings import TrainingSettings
from worker.errors import SettingsError

NOW_MS = 1_000_000_000


class Topic:
    """Ascending timestamps by partition; offsets start at `base`."""

    def __init__(self, stamps: dict[int, list[int]], base: int = 0) -> None:
        self.stamps, self.base, self.asked = stamps, base, 0

    def begin(self) -> Extent:
        return Extent({p: (self.base, self.base + len(s)) for p, s in self.stamps.items()})

    def at(self, timestamp_ms: int) -> Mapping[int, int | None]:
        self.asked += 1
        found = {p: bisect.bisect_left(s, timestamp_ms) for p, s in self.stamps.items()}
        return {p: None if i == len(self.stamps[p]) else self.base + i for p, i in found.items()}


def asked_for(topic: Topic, **settings: object) -> dict[int, tuple[int, int]]:
    return extent.asked_for(topic, TrainingSettings(**settings), NOW_MS).spans  # type: ignore[arg-type]


def test_all_by_default() -> None:
    assert asked_for(Topic({0: [1, 2], 1: []}, base=5)) == {0: (5, 7), 1: (5, 5)}


def test_by_age() -> None:
    day_ms = 86_400_000
    topic = Topic({0: [NOW_MS - 2 * day_ms, NOW_MS - 1000], 1: [NOW_MS - 2 * day_ms]})
    assert asked_for(topic, max_age="1d") == {0: (1, 2), 1: (1, 1)}


def test_by_offsets_within_what_is_there() -> None:
    topic = Topic({0: [1, 2, 3], 1: [1, 2, 3]}, base=10)
    assert asked_for(topic, start={0: 11, 7: 0}, end={0: 12, 1: 99}) == {0: (11, 12), 1: (10, 13)}
    assert asked_for(topic, start={0: 0}, end={1: 5}) == {0: (10, 13), 1: (10, 10)}


def test_by_times() -> None:
    topic = Topic({0: [1000, 2000, 3000], 1: [500]})
    assert asked_for(topic, start="1970-01-01T00:00:01.5Z", end="1970-01-01T00:00:03") == {0: (1, 2), 1: (1, 1)}


def test_what_is_neither_time_nor_offsets() -> None:
    with pytest.raises(SettingsError, match="ZMU_TRAINING__START is 'yesterday'"):
        asked_for(Topic({0: [1]}), start="yesterday")


@pytest.mark.parametrize("records", [1, 7, 50, 99, 100, 1000])
def test_the_newest_over_all_partitions(records: int) -> None:
    stamps = {0: [NOW_MS - 10 * i for i in range(80)][::-1], 1: [NOW_MS - 1000 - 7 * i for i in range(20)][::-1]}
    topic = Topic(stamps, base=3)
    spans = asked_for(topic, max_records=records)
    kept = [(stamps[p][o - 3], p) for p, (start, end) in spans.items() for o in range(start, end)]
    every = sorted((s, p) for p, some in stamps.items() for s in some)
    assert sorted(s for s, _ in kept) == [s for s, _ in every[-records:]]
    assert topic.asked < 60


def test_the_newest_of_records_that_all_have_one_time() -> None:
    spans = asked_for(Topic({0: [5] * 50, 1: [5] * 50}), max_records=30)
    assert sum(end - start for start, end in spans.values()) == 30
    assert all(end == 50 for _, end in spans.values())
