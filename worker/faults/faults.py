"""What the watchers of data quality find: a fault that begins."""

from __future__ import annotations

from typing import Literal, NamedTuple

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
