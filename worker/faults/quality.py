"""Is a reading fit to be judged at all? Sensors that are stuck, missing or out of range, entities that fall silent.

What counts as which is part of a model version (`Quality`, learnt by training/fitting/quality.py); physical limits are
the operator's to give. A fault is said once, when its episode begins, and again only after it ended and began anew;
what is under way is remembered in the entity's row of States.

    stuck          so many equal readings in a row; readings that lack the value neither count nor break the run
    missing        so many readings in a row without the value
    out_of_range   a reading outside the limits; ends with the next reading within them
    silent         nothing from the entity for so long, while others of its partition went on (worker/faults/silence.py)

Legend: B readings, E entities of a batch, F features.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Annotated, Self, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from worker.detection.scaling import LARGEST
from worker.errors import SettingsError
from worker.faults import sensors, silence
from worker.faults.faults import Fault, Finding
from worker.faults.sensors import MAX_RUN, SensorFaults
from worker.faults.silence import Silence
from worker.records import I32, I64, Batch
from worker.state.state import Column, States
from worker.state.visits import Visits

MAX_FEATURES = 4096
MAX_SILENCE_SECONDS = 366 * 24 * 3600.0

Run = Annotated[int, Field(ge=1, lt=MAX_RUN)]
Limit = Annotated[float, Field(ge=-LARGEST, le=LARGEST)]
Seconds = Annotated[float, Field(gt=0, le=MAX_SILENCE_SECONDS)]


class Quality(BaseModel):
    """What calls a sensor or an entity faulty. Lists are by feature, in the model's order; null: never."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    stuck_after: tuple[Annotated[Run, Field(ge=2)] | None, ...] = Field(
        max_length=MAX_FEATURES, description="Equal readings in a row; null where equality means nothing."
    )
    missing_after: tuple[Run | None, ...] = Field(
        max_length=MAX_FEATURES, description="Readings in a row without the value; null where that is usual."
    )
    low: tuple[Limit | None, ...] = Field(max_length=MAX_FEATURES, description="Below it no real value lies.")
    high: tuple[Limit | None, ...] = Field(max_length=MAX_FEATURES, description="Above it no real value lies.")
    silent_after_seconds: Seconds | None = Field(None, description="Without a reading of an entity.")

    @model_validator(mode="after")
    def fits(self) -> Self:
        if len({len(self.stuck_after), len(self.missing_after), len(self.low), len(self.high)}) != 1:
            raise ValueError("stuck_after, missing_after, low and high differ in length")
        for f, (low, high) in enumerate(zip(self.low, self.high, strict=True)):
            if low is not None and high is not None and low > high:
                raise ValueError(f"feature {f}: low {low:g} is above high {high:g}")
        return self

    @classmethod
    def undemanding(cls, features: int) -> Self:
        """Nothing is a fault: what a model version that learnt no Quality has."""
        none = (None,) * features
        return cls(stuck_after=none, missing_after=none, low=none, high=none)

    @property
    def features(self) -> int:
        return len(self.low)

    def with_limits(
        self, features: Sequence[str], limits: Mapping[str, tuple[float | None, float | None]]
    ) -> Self:
        """The operator's low and high by the feature's name laid over this. Raises SettingsError."""
        low, high = list(self.low), list(self.high)
        for name, (least, most) in limits.items():
            if name not in features:
                raise SettingsError(f"limits are set for {name!r}, but the model's features are {', '.join(features)}")
            if any(limit is not None and not abs(limit) <= LARGEST for limit in (least, most)):
                raise SettingsError(f"limits of {name}: {least}, {most}; each must be a finite number or null")
            if least is not None and most is not None and least > most:
                raise SettingsError(f"limits of {name}: the low {least:g} is above the high {most:g}; exchange them")
            f = features.index(name)
            low[f], high[f] = least, most
        return self.model_copy(update={"low": tuple(low), "high": tuple(high)})

    def with_silence(self, silent_after_seconds: float) -> Self:
        """The operator's patience instead of the learnt one. Raises SettingsError."""
        if not 0 < silent_after_seconds <= MAX_SILENCE_SECONDS:
            raise SettingsError(
                f"an entity cannot be silent after {silent_after_seconds:g} s: it must be above 0 and at most "
                f"{MAX_SILENCE_SECONDS:g} s (a year)"
            )
        return self.model_copy(update={"silent_after_seconds": silent_after_seconds})

    def only(self, kinds: Collection[Fault]) -> Self:
        """The kinds that the operator wants; the others are never a fault."""
        none = (None,) * self.features
        off: dict[Fault, dict[str, object]] = {
            "stuck": {"stuck_after": none},
            "missing": {"missing_after": none},
            "out_of_range": {"low": none, "high": none},
            "silent": {"silent_after_seconds": None},
        }
        changes = {name: value for kind in get_args(Fault) if kind not in kinds for name, value in off[kind].items()}
        return self.model_copy(update=changes)


def fields(features: int) -> tuple[Column, ...]:
    """Columns of States that a QualityMonitor reads and writes."""
    return (*sensors.fields(features), *silence.fields())


class QualityMonitor:
    """Finds the faults of the readings that go by. What it finds, and what it leaves in the rows, is the same for
    every cut of the stream into batches.
    """

    def __init__(self, quality: Quality) -> None:
        self._sensors = SensorFaults(quality.stuck_after, quality.missing_after, quality.low, quality.high)
        self._silence = Silence(quality.silent_after_seconds)

    def update(self, states: States, batch: Batch, visits: Visits | None = None) -> list[Finding]:
        """Takes the readings in, and returns what began with them, in order of arrival.

        `silent` is among it only where an entity comes back that `silent` was not asked about in time.
        visits: the batch's, where they are known.
        """
        if not len(batch):
            return []
        states.reserve(int(batch.entity_B.max()) + 1)
        visits = visits or Visits.of(batch.entity_B)
        found = [*self._silence.update(states, batch, visits), *self._sensors.update(states, batch, visits)]
        return sorted(found, key=lambda finding: finding.row or 0) if len(found) > 1 else found

    def silent(self, states: States, partition: int, codes: I32 | Iterable[int], idle_ms: int = 0) -> list[Finding]:
        """The entities of a partition that are newly silent; see worker.silence.Silence.silent for when to ask."""
        return self._silence.silent(states, partition, _array(codes), idle_ms)

    def resume(self, states: States, partition: int, codes: I32 | Iterable[int]) -> None:
        """Goes on where the rows of a partition's entities (all of them) stand.

        To be called at each assignment, after the rows were restored (or with no codes where none were), and for each
        partition held when a monitor of another model version takes over.
        """
        self._silence.resume(states, partition, _array(codes))


def _array(codes: I32 | Iterable[int]) -> I64:
    return codes.astype(np.int64) if isinstance(codes, np.ndarray) else np.fromiter(codes, np.int64)
