"""Alarms that belong together: an incident as the worker tells it, or a brief alarm by itself.

Legend: N readings, S spans, R rows of one span.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from worker.records import F32, F64, I32, I64, Batch, Bools
from worker.settings import IncidentSettings


@dataclass(frozen=True)
class Spans:
    """By entity, and in order of time within one."""

    order_N: I64                        # rows by entity and time
    place_N: I64                        # of each row in that order
    first_S: I64                        # places
    last_S: I64
    entity_S: I32
    alarms_S: I64                       # readings in alarm
    longest_S: I64                      # … in the longest alarm of the span
    peak_S: F64                         # highest anomaly score
    incident_S: Bools                   # whether it would have opened an incident
    reaches_newest_S: Bools             # whether less than a tenth of the entity's readings come after it
    anomalous_N: Bools

    def __len__(self) -> int:
        return len(self.first_S)

    @classmethod
    def of(cls, batch: Batch, anomalous_N: Bools, score_N: F32, settings: IncidentSettings) -> Self:
        """Alarms no further apart than `open_within` readings are one span; incidents no further apart than
        `close_after_seconds` as well, with what lies between them.
        """
        order_N = np.lexsort((np.arange(len(batch)), batch.timestamp_ms_B, batch.entity_B))
        entity_N, stamp_N = batch.entity_B[order_N], batch.timestamp_ms_B[order_N]
        place_N = np.empty_like(order_N)
        place_N[order_N] = np.arange(len(order_N))
        alarm_A = np.flatnonzero(anomalous_N[order_N])
        begins_A = np.ones(len(alarm_A), bool)
        begins_A[1:] = (np.diff(alarm_A) > settings.open_within) | (entity_N[alarm_A[1:]] != entity_N[alarm_A[:-1]])
        first_S, last_S, alarms_S = _runs(alarm_A, begins_A)
        incident_S = alarms_S >= settings.open_after
        apart_ms_S = stamp_N[first_S[1:]] - stamp_N[last_S[:-1]]
        joined_S = (
            incident_S[1:] & incident_S[:-1] & (entity_N[first_S[1:]] == entity_N[first_S[:-1]])
            & (stamp_N[last_S[:-1]] >= 0) & (apart_ms_S <= 1000 * settings.close_after_seconds)
        )
        starts_S = np.r_[np.ones(min(len(first_S), 1), bool), ~joined_S]
        at_S = np.flatnonzero(starts_S)
        first_S, last_S = first_S[at_S], last_S[np.r_[at_S[1:] - 1, len(starts_S) - 1]] if len(at_S) else last_S
        score_O = score_N[order_N]
        entity_S = entity_N[first_S]
        end_S = np.searchsorted(entity_N, entity_S, side="right")
        count_S = end_S - np.searchsorted(entity_N, entity_S, side="left")
        return cls(
            order_N, place_N, first_S, last_S, entity_S,
            alarms_S=np.add.reduceat(alarms_S, at_S) if len(at_S) else alarms_S,
            longest_S=np.maximum.reduceat(alarms_S, at_S) if len(at_S) else alarms_S,
            peak_S=np.array([score_O[a : b + 1].max() for a, b in zip(first_S, last_S, strict=True)], np.float64),
            incident_S=incident_S[at_S],
            reaches_newest_S=(end_S - 1 - last_S) * 10 < count_S,
            anomalous_N=anomalous_N,
        )

    def rows(self, at: int) -> I64:
        """Of an incident all that lie within it, of a brief alarm those in alarm."""
        row_R = self.order_N[self.first_S[at] : self.last_S[at] + 1]
        return row_R if self.incident_S[at] else row_R[self.anomalous_N[row_R]]

    def at(self, row: int) -> int | None:
        """The span that a reading lies in."""
        place = int(self.place_N[row])
        at = int(np.searchsorted(self.first_S, place, side="right")) - 1
        return at if at >= 0 and place <= self.last_S[at] else None


def _runs(place_A: I64, begins_A: Bools) -> tuple[I64, I64, I64]:
    """First and last place of each run, and how many are in it."""
    begin_S = np.flatnonzero(begins_A)
    end_S = np.r_[begin_S[1:], len(place_A)] if len(begin_S) else begin_S
    return place_A[begin_S], place_A[end_S - 1], end_S - begin_S
