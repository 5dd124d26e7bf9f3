"""Record batches that cannot be read where they lie: fetched again a few times, then passed over and told of.

A broker serves what is on its disk without looking at checksums. A bad copy may be one replica's, or come of the way;
what stays bad must not hold up the readings behind it.
"""

from __future__ import annotations

from collections.abc import Iterable

from kafka import TopicPartition
from kafka.errors import CorruptRecordError

from worker.kafka.batches import RecordBatch
from worker.records import PlainRecord, Record, Refusal

CODE = "corrupt_batch"
TRIES = 4                               # fetches of a batch before it is passed over


class DamagedBatch(CorruptRecordError):  # type: ignore[misc]
    """A batch failed its checks. It is fetched again as long as it is raised."""

    def __init__(self, tp: TopicPartition, offset: int, why: str) -> None:
        super().__init__(f"record batch of {tp.topic} partition {tp.partition} at offset {offset}: {why}")
        self.partition, self.offset, self.why = tp.partition, offset, why


class Damage:
    """Remembers what was damaged when it was fetched last, and how often: one place by partition."""

    def __init__(self, tries: int = TRIES) -> None:
        self._tries = tries
        self._found: dict[TopicPartition, tuple[int, int]] = {}     # offset, times

    def passes(self, tp: TopicPartition, offset: int) -> bool:
        """Counts one more look at it; True from the last try on."""
        at, times = self._found.get(tp, (offset, 0))
        times = times + 1 if at == offset else 1
        self._found[tp] = (offset, times)
        return times >= self._tries

    def left(self, tp: TopicPartition, offset: int) -> bool:
        """Whether it was damaged there when the partition was fetched last."""
        return tp in self._found and self._found[tp][0] == offset


def damaged(
    tp: TopicPartition, first_offset: int, next_offset: int, size_bytes: int, records: int, why: str
) -> RecordBatch:
    """Stands for a batch that was passed over: it holds no records, and moves the position."""
    what = f"offsets {first_offset} to {next_offset - 1}, {size_bytes} bytes, {records} records: {why}"
    return RecordBatch(
        partition=tp.partition, base_offset=first_offset, first_timestamp=-1, append_timestamp=None, records=0,
        from_offset=first_offset, data=b"", topic=tp.topic, next_offset=next_offset, newest_ms=-1, damage=what,
    )


def refusals(fetched: Iterable[Record | RecordBatch]) -> list[Refusal]:
    """One for each batch that was passed over. Its bytes still lie at their source, where the header says."""
    return [
        Refusal(_record(one), CODE, f"a record batch cannot be read, and was passed over: {one.damage}")
        for one in fetched
        if isinstance(one, RecordBatch) and one.damage
    ]


def _record(batch: RecordBatch) -> PlainRecord:
    last = ("source.last_offset", str(batch.next_offset - 1).encode())
    return PlainRecord(batch.topic, batch.partition, batch.base_offset, -1, None, None, [last])
