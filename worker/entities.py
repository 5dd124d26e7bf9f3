"""Entities (sensors, machines) as small integers, so that state and batches are arrays.

An entity belongs to the input partition that it arrives on; the same name on two partitions is two entities,
because the partitions' readings have no common order.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from worker.records import I32


class Entities:
    """Codes 0, 1, 2 … of (partition, name). A code that was released is given to a later entity."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.partitions: list[int] = []
        self._codes: dict[int, dict[str, int]] = {}
        self._free: list[int] = []

    def __len__(self) -> int:
        return len(self.names) - len(self._free)

    @property
    def capacity(self) -> int:
        """One past the largest code ever given."""
        return len(self.names)

    def used_names(self) -> list[str]:
        """Of all that are in use."""
        return [name for codes in self._codes.values() for name in codes]

    def codes(self) -> list[int]:
        """All that are in use."""
        return [code for codes in self._codes.values() for code in codes.values()]

    def of_partition(self, partition: int) -> dict[str, int]:
        """name → code of one partition's entities. Read only."""
        return self._codes.setdefault(partition, {})

    def code(self, partition: int, name: str) -> int:
        codes = self._codes.setdefault(partition, {})
        code = codes.get(name)
        if code is None:
            if self._free:
                code = self._free.pop()
                self.names[code], self.partitions[code] = name, partition
            else:
                code = len(self.names)
                self.names.append(name)
                self.partitions.append(partition)
            codes[name] = code
        return code

    def release(self, codes: Iterable[int]) -> None:
        """Forgets entities; whoever keeps state by code clears it first."""
        for code in codes:
            del self._codes[self.partitions[code]][self.names[code]]
            self._free.append(code)

    def release_partition(self, partition: int) -> I32:
        """Forgets a partition's entities and returns their codes."""
        codes = np.fromiter(self._codes.pop(partition, {}).values(), np.int32)
        self._free.extend(codes.tolist())
        return codes
