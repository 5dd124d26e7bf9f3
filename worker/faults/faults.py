"""What the watchers of data quality share: a fault that begins, and a batch sorted by entity.

Legend: B readings, E entities of the batch, F features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from worker.records import I32, I64, Batch, Bools
from worker.state.visits import by_entity, runs

Fault = Literal["silent", "missing", "stuck", "out_of_range"]


class Finding(NamedTuple):
    """An episode that begins: one for each reading and kind, whatever the number of features."""

    kind: Fault
    row: int | None                     # in the batch; of `silent` the reading that ended it, None while it lasts
    entity: int                         # code
    partition: int                      # of the reading that the event is about; of `silent` the last one before
    offset: int                         # of `silent` its place, with the row: worker/places.py
    timestamp_ms: int
    features: tuple[int, ...] = ()
    amounts: tuple[float, ...] = ()     # by feature the length of the run, or the limit passed; of `silent` (seconds,)


@dataclass(frozen=True, slots=True)
class Rows:
    """A batch sorted by entity, the order of arrival kept; the rows of one entity are a segment."""

    order_B: I64                        # index in the batch
    code_E: I32
    first_E: I64                        # row
    last_E: I64

    @classmethod
    def of(cls, batch: Batch) -> Self:
        """Of a batch with at least one reading."""
        order_B = by_entity(batch.entity_B)
        entity_B = batch.entity_B[order_B]
        first_E = runs(entity_B)
        return cls(
            order_B=order_B,
            code_E=entity_B[first_E],
            first_E=first_E,
            last_E=np.append(first_E[1:], len(entity_B)) - 1,
        )

    @property
    def places(self) -> tuple[I64, I64, I64]:
        """As the compiled core takes them."""
        return self.order_B, self.first_E, self.last_E - self.first_E + 1

    def begins_B(self) -> Bools:
        """The first rows of their segments."""
        begins_B = np.zeros(len(self.order_B), np.bool_)
        begins_B[self.first_E] = True
        return begins_B

    def segment_B(self) -> I64:
        """Index among the E."""
        return np.repeat(np.arange(len(self.code_E)), self.last_E - self.first_E + 1)

    def before(self, after: NDArray[Any], initial: NDArray[Any]) -> NDArray[Any]:
        """What holds before each row, from what holds after each (B, …) and before each entity's first (E, …)."""
        shifted = np.empty_like(after)
        shifted[1:] = after[:-1]
        shifted[self.first_E] = initial
        return shifted
