"""The batch in hand: what lines of the log and spans say of it, and the headers of single records of it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import cached_property

from worker.kafka.batches import Headers, RecordBatch, next_offsets, size, walk
from worker.records import Record


class Hand:
    """Costs nothing until it is asked."""

    def __init__(
        self, topic: str, records: Sequence[Record] | Sequence[RecordBatch], model_version: str
    ) -> None:
        self.topic, self.model_version, self._records = topic, model_version, records
        self._batches: dict[int, list[RecordBatch]] | None = None
        self._headers: dict[tuple[int, int], Headers] = {}
        self._walked: set[tuple[int, int]] = set()

    def __len__(self) -> int:
        """Number of records."""
        return size(self._records)

    @cached_property
    def offsets(self) -> dict[int, tuple[int, int]]:
        """By partition: of the first record and of the last."""
        first: dict[int, int] = {}
        for one in self._records:
            at = max(one.base_offset, one.from_offset) if isinstance(one, RecordBatch) else one.offset
            first.setdefault(one.partition, at)
        return {partition: (first[partition], after - 1) for partition, after in next_offsets(self._records).items()}

    def facts(self) -> Mapping[str, object]:
        """For lines of the log."""
        return {"offsets": self.told(), "model_version": self.model_version}

    def told(self) -> list[str]:
        """PARTITION/FIRST-LAST, of each partition."""
        return [f"{partition}/{first}-{last}" for partition, (first, last) in sorted(self.offsets.items())]

    def headers(self, partition: int, offset: int) -> Headers:
        """Of one record; none where it is not of this batch. Columns keep no headers, so its record batch is walked."""
        if self._batches is None:
            self._batches = {}
            for one in self._records:
                if isinstance(one, RecordBatch):
                    self._batches.setdefault(one.partition, []).append(one)
                elif one.headers:
                    self._headers[one.partition, one.offset] = one.headers
        batches = self._batches.get(partition, [])
        at = bisect_right(batches, offset, key=lambda batch: batch.base_offset) - 1
        if at >= 0 and (partition, at) not in self._walked:
            self._walked.add((partition, at))
            found = {(partition, record.offset): record.headers for record in walk(batches[at]) if record.headers}
            self._headers |= found
        return self._headers.get((partition, offset), ())
