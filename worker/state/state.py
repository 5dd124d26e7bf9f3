"""What is remembered of each entity between two readings: a row of fixed width for each, whoever it serves.

Components (windows, chart, alarm, …) name their fields and what those hold at first; they read and write them as
columns, `states["baseline"][codes]`. A row is its own snapshot: bytes out, the same bytes in.

Legend: S rows, one for each entity code.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from worker.records import I32

FIRST_ROWS = 64


class Column(NamedTuple):
    """One column: a number, or an array of numbers of this shape, for each entity."""

    name: str
    dtype: str                          # little-endian and of fixed size, such as "<f8": snapshots travel
    shape: tuple[int, ...] = ()
    initial: float = 0.0


class States:
    """Rows by entity code (see worker/entities.py). A row begins with the fields' initial values."""

    def __init__(self, fields: Sequence[Column]) -> None:
        self.fields = tuple(fields)
        self.dtype = np.dtype([(field.name, field.dtype, field.shape) for field in fields])
        self._rows = self._fresh(FIRST_ROWS)

    def __getitem__(self, name: str) -> NDArray[Any]:
        """The column, as a view: index it by entity codes to read and to write."""
        return self._rows[name]

    @property
    def layout(self) -> str:
        """Short name of the columns: rows of one layout are no use in another."""
        return hashlib.sha256(repr(self.fields).encode()).hexdigest()[:16]

    def reserve(self, capacity: int) -> None:
        """Makes room for the codes below capacity. Views taken before are stale after."""
        if capacity > len(self._rows):
            grown = self._fresh(max(capacity, 2 * len(self._rows)))
            grown[: len(self._rows)] = self._rows
            self._rows = grown

    def reset(self, codes: I32 | Iterable[int], names: Iterable[str] | None = None) -> None:
        """Back to the initial values; names: of these columns only."""
        which = np.fromiter(codes, np.int64)
        known = which[which < len(self._rows)]
        fresh = self._fresh(1)
        if names is None:
            self._rows[known] = fresh
        else:
            for name in names:
                self._rows[name][known] = fresh[name]

    def dump(self, code: int) -> bytes:
        """The entity's row, to be kept."""
        return bytes(self._rows[code].tobytes())

    def load(self, code: int, row: bytes) -> None:
        """A row that `dump` gave, of the same layout. Raises ValueError for one of another size."""
        self.reserve(code + 1)
        self._rows[code] = np.frombuffer(row, self.dtype, count=1)[0]

    def carry(self, other: States, codes: Iterable[int], names: Iterable[str]) -> None:
        """Takes over columns of the same shape from states of another layout: what a new model may keep."""
        which = np.fromiter(codes, np.int64)
        if not len(which):
            return
        self.reserve(int(which.max()) + 1)
        for name in names:
            if name in (other.dtype.names or ()) and other.dtype[name] == self.dtype[name]:
                self._rows[name][which] = other._rows[name][which]

    def _fresh(self, rows: int) -> NDArray[Any]:
        fresh = np.zeros(rows, self.dtype)
        for field in self.fields:
            if field.initial:
                fresh[field.name] = field.initial
        return fresh
