"""Which rows of a batch belong to which entity, in which order: what everything with memory needs to know.

An entity may come several times in a batch. Its rows must be worked through in order of arrival, those of different
entities may go together: round 0 holds the first row of every entity, round 1 the second of those that have one, …

Legend: B rows of the batch, E entities in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.records import I32, I64, Bools


def by_entity(entity_B: I32) -> I64:
    """Rows, by entity and then by arrival. numpy sorts codes of 16 bits by their digits, much sooner."""
    few = entity_B.max(initial=0) < 2**16
    return np.argsort(entity_B.astype(np.uint16) if few else entity_B, kind="stable")


def runs(code_B: I32) -> I64:
    """Where runs of the same code begin."""
    begins_B = np.ones(len(code_B), np.bool_)
    np.not_equal(code_B[1:], code_B[:-1], out=begins_B[1:])
    return np.flatnonzero(begins_B)


@dataclass(frozen=True, slots=True)
class Visits:
    """Segments of order_B, one for each entity."""

    order_B: I64                # rows, by entity and then by arrival
    code_E: I32                 # entities, those with the most rows first
    start_E: I64                # where an entity's rows begin in order_B
    count_E: I64

    @classmethod
    def of(cls, entity_B: I32) -> Visits:
        order_B = by_entity(entity_B)
        sorted_B = entity_B[order_B]
        start_E = runs(sorted_B)
        count_E = np.diff(start_E, append=len(sorted_B))
        by_count_E = np.argsort(-count_E, kind="stable")
        start_E, count_E = start_E[by_count_E], count_E[by_count_E]
        return cls(order_B, sorted_B[start_E], start_E, count_E)

    @property
    def places(self) -> tuple[I64, I64, I64]:
        """As the compiled core takes them."""
        return self.order_B, self.start_E, self.count_E

    @property
    def last_E(self) -> I64:
        """Where an entity's rows end in order_B."""
        return self.start_E + self.count_E - 1

    def begins_B(self) -> Bools:
        """Of each place in order_B: whether a segment begins there."""
        begins_B = np.zeros(len(self.order_B), np.bool_)
        begins_B[self.start_E] = True
        return begins_B

    def segment_B(self) -> I64:
        """Of each place in order_B: whose it is, as an index among the E."""
        in_order_E = np.argsort(self.start_E)
        return np.repeat(in_order_E, self.count_E[in_order_E])

    def before(self, after_B: NDArray[Any], initial_E: NDArray[Any]) -> NDArray[Any]:
        """What holds before each place in order_B, from what holds after each and before each entity's first.

        Either may have further dimensions, the same ones.
        """
        shifted_B = np.empty_like(after_B)
        shifted_B[1:] = after_B[:-1]
        shifted_B[self.start_E] = initial_E
        return shifted_B

    def rounds(self) -> tuple[I64, list[int]]:
        """Rows by round, and where each round ends; in round k are the first entities of code_E, in that order."""
        rank_B = self.rank_B()
        row_B = self.order_B[np.lexsort((self.segment_B(), rank_B))]
        return row_B, np.cumsum(np.bincount(rank_B)).tolist()

    def rank_B(self) -> I64:
        """Of each place in order_B: how many rows of the same entity come before it in the batch."""
        rank_B = np.empty(len(self.order_B), np.int64)
        position_B = np.arange(len(self.order_B))
        start_B = np.zeros(len(self.order_B), np.int64)
        start_B[self.start_E] = self.start_E
        np.maximum.accumulate(start_B, out=start_B)
        np.subtract(position_B, start_B, out=rank_B)
        return rank_B
