"""A reading's place in its partition as one number: what is remembered of it, and what its event's id is made from.

Of a record that is one reading it is the offset. Of a record that holds many, the row goes into the bits above: 2^47
offsets of a partition are four years at a million records a second, and 65,535 rows fit in the 16 bits that are left.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

WHOLE = -1                              # the row of a reading that is all of its record
OFFSET_BITS = 47
MOST_ROWS = 2**16 - 1
_OFFSET = 2**OFFSET_BITS - 1

I64 = NDArray[np.int64]


def of(offset_B: I64, row_B: NDArray[np.int32]) -> I64:
    return offset_B | (row_B.astype(np.int64) + 1) << OFFSET_BITS


def parts(place: int) -> tuple[int, int]:
    """Offset and row."""
    return place & _OFFSET, (place >> OFFSET_BITS) - 1


def order(place_N: I64) -> I64:
    """Numbers that grow as the readings of a partition arrived. What is negative, and no place, stays before them."""
    return np.where(place_N < 0, place_N, (place_N & _OFFSET) << 16 | place_N >> OFFSET_BITS)
