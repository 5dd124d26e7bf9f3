"""What is remembered of an entity for its incidents, as columns and, while its readings are gone through, as values.

Ids are made from partition and offset, so these are kept, not ids. An offset here is a place (worker/places.py): of a
reading that is a row of its record it says the row too.

Legend: E entities, M anomalies that open an incident, K = TOP_FEATURES.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np

from worker.records import I64
from worker.state.state import Column, States

TOP_FEATURES = 5                        # features that are named of a peak
GONE = -1                               # number of a feature that the model does not have any more
UNKNOWN = -1
PREFIX = "incident_"


class Opening(NamedTuple):
    """Of an incident: by reading time, then by place. The opening of a group's first incident names the group."""

    at_ms: int
    partition: int
    offset: int


@dataclass(slots=True)
class Course:
    """One entity's. Fields are the columns, in their order."""

    recent: int                         # a bit for each of the last readings, the newest lowest: was it anomalous
    anomaly_offset: list[int]           # of the last M anomalies, oldest first
    anomaly_score: list[float]
    anomaly_feature: list[list[int]]    # M x K, the largest contributor first
    anomaly_share: list[list[float]]    # M x K; 0 where there are fewer contributors

    open: bool
    opened_ms: int
    opened_offset: int                  # UNKNOWN where the entity never had an incident
    first_offset: int                   # of the incident's anomalies
    last_offset: int
    last_ms: int
    readings: int
    reopened: int

    silent_since_ms: int                # stream time when one first looked after the last anomaly, or UNKNOWN
    presumed_closed: bool               # whether it was told so because the entity stopped sending

    peak_score: float
    peak_feature: list[int]             # K
    peak_share: list[float]
    told_ms: int                        # what the last record said
    told_peak: float
    told_feature: int

    group_ms: int                       # the opening of the group's first incident
    group_partition: int
    group_offset: int

    @property
    def known(self) -> bool:
        return self.opened_offset != UNKNOWN

    def remember(self, offset: int, score: float, features: list[int], shares: list[float]) -> None:
        """An anomaly that may come to open an incident."""
        self.anomaly_offset = [*self.anomaly_offset[1:], offset]
        self.anomaly_score = [*self.anomaly_score[1:], score]
        self.anomaly_feature = [*self.anomaly_feature[1:], features]
        self.anomaly_share = [*self.anomaly_share[1:], shares]

    def raise_peak(self, score: float, features: list[int], shares: list[float]) -> None:
        if score > self.peak_score:
            self.peak_score, self.peak_feature, self.peak_share = score, features, shares


_NAMES = tuple(field.name for field in dataclasses.fields(Course))


def fields(open_after: int) -> tuple[Column, ...]:
    """The columns."""
    m, k = open_after, TOP_FEATURES
    columns: tuple[tuple[Any, ...], ...] = (
        ("recent", "<u8"),
        ("anomaly_offset", "<i8", (m,)),
        ("anomaly_score", "<f8", (m,)),
        ("anomaly_feature", "<i2", (m, k)),
        ("anomaly_share", "<f4", (m, k)),
        ("open", "?"),
        ("opened_ms", "<i8"),
        ("opened_offset", "<i8", (), UNKNOWN),
        ("first_offset", "<i8"),
        ("last_offset", "<i8"),
        ("last_ms", "<i8"),
        ("readings", "<i8"),
        ("reopened", "<i4"),
        ("silent_since_ms", "<i8", (), UNKNOWN),
        ("presumed_closed", "?"),
        ("peak_score", "<f8"),
        ("peak_feature", "<i2", (k,)),
        ("peak_share", "<f4", (k,)),
        ("told_ms", "<i8"),
        ("told_peak", "<f8"),
        ("told_feature", "<i2"),
        ("group_ms", "<i8"),
        ("group_partition", "<i4"),
        ("group_offset", "<i8"),
    )
    assert tuple(name for name, *_ in columns) == _NAMES
    return tuple(Column(PREFIX + name, *rest) for name, *rest in columns)


class Courses:
    """The courses of some entities: read at once, and written back at once, as far as they changed."""

    def __init__(self, states: States, code_E: I64) -> None:
        """code_E: each entity once."""
        self._states, self._code_E = states, code_E
        self._read = [states[PREFIX + name][code_E].tolist() for name in _NAMES]
        self._of: dict[int, Course] = dict(zip(code_E.tolist(), map(Course, *self._read), strict=True))

    def __getitem__(self, code: int) -> Course:
        return self._of[code]

    def write(self) -> None:
        for name, before in zip(_NAMES, self._read, strict=True):
            values = list(map(attrgetter(name), self._of.values()))
            if values != before:
                column = self._states[PREFIX + name]
                column[self._code_E] = np.array(values, column.dtype).reshape(-1, *column.shape[1:])


def renumber(states: States, code_E: I64, before: Sequence[str], after: Sequence[str]) -> None:
    """The features' numbers after a change of model. A feature that is no more is not named any more."""
    place = {name: f for f, name in enumerate(after)}
    moved_F = np.array([place.get(name, GONE) for name in before], np.int16)
    for kind in "anomaly", "peak":
        feature, share = states[f"{PREFIX}{kind}_feature"], states[f"{PREFIX}{kind}_share"]
        now = moved_F[feature[code_E]]
        share[code_E] = np.where(now == GONE, 0, share[code_E])
        feature[code_E] = np.where(now == GONE, 0, now)
    told = states[PREFIX + "told_feature"]
    told[code_E] = moved_F[told[code_E]]
