"""Where a group begins and goes on, whoever else begins it at the same time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from types import SimpleNamespace
from typing import Literal

import pytest
from kafka import OffsetAndMetadata, TopicPartition

from worker.kafka.offsets import GroupOffsets, Start

TOPIC = "readings"


class Group:
    """What a broker knows of a topic and a group, with the consumer's calls for it. What `between` names is done once,
    before the question of that number is answered.
    """

    def __init__(self, begins: Mapping[int, int], ends: Mapping[int, int]) -> None:
        self.begins, self.ends = begins, ends
        self.offsets: dict[int, int] = {}
        self.asked = 0
        self.between: dict[int, Callable[[], object]] = {}

    def group_metadata(self) -> object:
        return SimpleNamespace(generation_id=1)

    def partitions_for_topic(self, topic: str) -> set[int]:
        assert topic == TOPIC
        return set(self.ends)

    def beginning_offsets(self, asked: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        return {tp: self.begins[tp.partition] for tp in asked}

    def end_offsets(self, asked: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        return {tp: self.ends[tp.partition] for tp in asked}

    def committed(self, tp: TopicPartition, metadata: bool, timeout_ms: int) -> OffsetAndMetadata | None:
        self.asked += 1
        self.between.pop(self.asked, lambda: None)()
        offset = self.offsets.get(tp.partition)
        return None if offset is None else OffsetAndMetadata(offset, "note", -1)


def member(group: Group, policy: Literal["earliest", "latest"] = "latest") -> GroupOffsets:
    return GroupOffsets(group, TOPIC, policy, 1000)  # type: ignore[arg-type]


def test_a_fresh_group_begins_everywhere_by_the_policy_and_what_is_added_later_at_its_beginning() -> None:
    group = Group({0: 1, 1: 2}, {0: 100, 1: 200})
    assert member(group).start(1, group.offsets.update) == Start(200, True, "", 2)
    assert group.offsets == {0: 100, 1: 200}
    group.begins, group.ends = {0: 1, 1: 2, 2: 3}, {0: 150, 1: 250, 2: 9}
    assert member(group).start(0, group.offsets.update) == Start(100, False, "note", 1)
    assert member(group).start(2, group.offsets.update) == Start(3, True, "", 3)


@pytest.mark.parametrize("when", range(1, 5))
def test_two_members_that_begin_a_group_at_once_begin_it_in_the_same_place(when: int) -> None:
    """The other one begins it, gets on with its own partition, and the topic grows, before one of our questions."""
    group = Group({0: 0, 1: 0}, {0: 100, 1: 200})

    def overtake() -> None:
        assert member(group).start(0, group.offsets.update) == Start(100, True, "", 0)
        group.offsets[0] = 130
        group.ends = {0: 140, 1: 240}

    group.between = {when: overtake}
    assert member(group).start(1, group.offsets.update) == Start(200, False, "note", 0)
    assert group.between == {}
    assert group.offsets == {0: 130, 1: 200}


@pytest.mark.parametrize(
    ("committed", "place"),
    [
        (None, (200, False)),
        (49, (200, False)),             # deleted too
        (50, (50, True)),
        (120, (120, True)),
        (200, (200, True)),
        (201, (200, False)),            # the log has lost its end
    ],
)
def test_after_expired_offsets_it_goes_on_where_the_group_stands_if_that_is_there(
    committed: int | None, place: tuple[int, bool]
) -> None:
    group = Group({0: 50}, {0: 200})
    if committed is not None:
        group.offsets[0] = committed
    assert member(group).restart(TopicPartition(TOPIC, 0)) == place
    assert member(group, "earliest").restart(TopicPartition(TOPIC, 0)) == (place if place[1] else (50, False))
