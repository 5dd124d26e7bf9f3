"""Where a consumer group goes on in its topic: what it has committed, and where it begins what it never had."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

from kafka import KafkaConsumer, OffsetAndMetadata, TopicPartition


class Start(NamedTuple):
    """Where to go on: where the group left off, or where a partition that it never had begins."""

    offset: int
    fresh: bool
    note: str = ""                      # what was committed beside the offset
    earliest: int = 0                   # first offset that can still be read


class GroupOffsets:
    """Raises KafkaError."""

    def __init__(
        self, consumer: KafkaConsumer, topic: str, policy: Literal["earliest", "latest"], timeout_ms: int
    ) -> None:
        self._consumer, self._topic, self._policy, self._timeout_ms = consumer, topic, policy, timeout_ms
        self._member: object = None

    def member(self) -> object:
        """Who we are in the group, or were last where it has forgotten us: it refuses offsets in that name then. In no
        name at all, which is what kafka-python has left, it would take them from anyone.
        """
        found = self._consumer.group_metadata()
        if found.generation_id >= 0:
            self._member = found
        return self._member

    def start(self, partition: int, commit: Callable[[Mapping[int, int]], None]) -> Start:
        self.member()
        tp = TopicPartition(self._topic, partition)
        found = self._committed(tp)
        earliest = int(self._consumer.beginning_offsets([tp])[tp])
        if found is None and any(self._committed(other) is not None for other in self.partitions()):
            # It was added to the topic, and is read from its beginning, whoever sees it when; unless another member
            # has begun the group since we asked, all partitions at once.
            found = self._committed(tp)
            if found is None:
                return Start(earliest, True, "", earliest)
        if found is None:
            begin, begun = self._begin(commit)
            found = begun.get(partition)
            if found is None:
                return Start(begin[partition], True, "", earliest)
        return Start(int(found.offset), False, found.metadata or "", earliest)

    def _begin(
        self, commit: Callable[[Mapping[int, int]], None]
    ) -> tuple[dict[int, int], dict[int, OffsetAndMetadata]]:
        """A fresh group begins everywhere at once: the rest would look as if it had been added. Returns where it would,
        and what another member has committed meanwhile: that stays, for it may be further on already.
        """
        begin = {tp.partition: self.of_policy(tp) for tp in self.partitions()}
        asked = {tp.partition: self._committed(tp) for tp in self.partitions()}
        begun = {partition: found for partition, found in asked.items() if found is not None}
        commit({partition: offset for partition, offset in begin.items() if partition not in begun})
        return begin, begun

    def restart(self, tp: TopicPartition) -> tuple[int, bool]:
        """Where to go on after offsets that cannot be read, and whether the group stands there: it had only been
        reading further back, or ahead. Where its own offset cannot be read either, the settings say.
        """
        found = self._committed(tp)
        if found is not None:
            earliest, end = self._consumer.beginning_offsets([tp])[tp], self._consumer.end_offsets([tp])[tp]
            if earliest <= found.offset <= end:
                return int(found.offset), True
        return self.of_policy(tp), False

    def of_policy(self, tp: TopicPartition) -> int:
        """Where the settings say that a fresh group begins."""
        ends = self._consumer.beginning_offsets if self._policy == "earliest" else self._consumer.end_offsets
        return int(ends([tp])[tp])

    def partitions(self) -> list[TopicPartition]:
        found = self._consumer.partitions_for_topic(self._topic) or ()
        return [TopicPartition(self._topic, partition) for partition in sorted(found)]

    def _committed(self, tp: TopicPartition) -> OffsetAndMetadata | None:
        _forget_late_answers(self._consumer)
        found = self._consumer.committed(tp, metadata=True, timeout_ms=self._timeout_ms)
        return found if found is not None and found.offset >= 0 else None


def _forget_late_answers(consumer: KafkaConsumer) -> None:
    """kafka-python keeps a question that was given up, and takes its answer, whenever it came, for that to the next
    one like it: offsets from before all that was committed since.
    """
    coordinator = getattr(consumer, "_coordinator", None)
    getattr(coordinator, "_offset_fetch_futures", {}).clear()
