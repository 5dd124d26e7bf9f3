"""What goes wrong with a pump, and in which sensors it shows.

A Fault is ground truth: it stays on our side, and no reading tells of it.
Legend of shapes: E pumps, F sensors.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]

SENSORS = ("temperature", "pressure", "flow", "current", "vibration_1", "vibration_2", "speed")

Kind = Literal["bearing_wear", "cavitation", "blocked_valve", "stuck", "spike", "dropout"]
KINDS: tuple[Kind, ...] = get_args(Kind)

# Of faults in the pump itself; the others are in the one sensor they name.
_SHOWS_IN: dict[Kind, tuple[str, ...]] = {
    "bearing_wear": ("vibration_1", "vibration_2", "temperature", "current"),
    "cavitation": ("pressure", "flow", "vibration_1", "vibration_2"),
    "blocked_valve": ("flow", "pressure", "current", "temperature", "vibration_1", "vibration_2"),
}
_LAST_SECONDS: dict[Kind, float] = {
    "bearing_wear": 40, "cavitation": 12, "blocked_valve": 15, "stuck": 25, "spike": 0.5, "dropout": 8
}
_ONSET_SECONDS = 1.0        # a valve and a vapour bubble take about this long
_SPIKE_HEIGHT = 0.6         # of the sensor's value at full speed


@dataclass(frozen=True)
class Fault:
    """One fault of one pump, from start_ms up to and without end_ms (ms since the epoch).

    sensor: for stuck, spike and dropout the sensor that lies; for the others None.
    Raises ValueError for a sensor too many, too few or unknown, and for an end before the start.
    """

    kind: Kind
    entity: str
    start_ms: int
    end_ms: int
    sensor: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"unknown fault {self.kind!r}: there are {', '.join(KINDS)}")
        if (self.kind in _SHOWS_IN) != (self.sensor is None):
            need = "no sensor: it is in the pump itself" if self.kind in _SHOWS_IN else "the sensor that it is in"
            raise ValueError(f"fault {self.kind} needs {need}; found {self.sensor!r}")
        if self.sensor is not None and self.sensor not in SENSORS:
            raise ValueError(f"unknown sensor {self.sensor!r}: a pump has {', '.join(SENSORS)}")
        if self.end_ms <= self.start_ms:
            raise ValueError(f"fault {self.kind} of {self.entity} would end {self.start_ms - self.end_ms} ms "
                             "before it starts; a fault lasts")

    @property
    def sensors(self) -> tuple[str, ...]:
        """Those it shows in, clearest first."""
        return _SHOWS_IN.get(self.kind) or (str(self.sensor),)

    def active(self, timestamp_ms: int) -> bool:
        return self.start_ms <= timestamp_ms < self.end_ms

    def grown(self, timestamp_ms: int) -> float:
        """How far it has come, 0 to 1: wear grows until its end, the others within a second."""
        elapsed_seconds = (timestamp_ms - self.start_ms) / 1000
        if self.kind == "bearing_wear":
            return min(elapsed_seconds * 1000 / (self.end_ms - self.start_ms), 1.0)
        return 1 - math.exp(-elapsed_seconds / (_ONSET_SECONDS / 3))


@dataclass
class Upset:
    """What faults do to the pumps' physics at one tick; all zero is a sound plant."""

    wear_E: F64             # 0 new to 1 worn out
    cavitation_E: F64       # 0 none to 1 full
    blockage_E: F64         # 0 open to 1 as blocked as it gets


@dataclass
class Faults:
    """The faults of a plant over time; holds what a stuck sensor last showed."""

    entities: Sequence[str]
    faults: list[Fault] = field(default_factory=list)
    _held: dict[Fault, float] = field(default_factory=dict)

    def add(self, faults: Iterable[Fault], now_ms: int) -> None:
        """Those that are over by now_ms are forgotten. Raises ValueError for a pump that is not there."""
        coming = list(faults)
        for fault in coming:
            if fault.entity not in self.entities:
                raise ValueError(f"unknown pump {fault.entity!r}: there are {', '.join(self.entities)}")
        # A new list: another thread may be stepping through the old one.
        self.faults = [*(fault for fault in self.faults if fault.end_ms > now_ms), *coming]

    def upset(self, timestamp_ms: int) -> Upset:
        upset = Upset(*np.zeros((3, len(self.entities))))
        of_kind = {
            "bearing_wear": upset.wear_E, "cavitation": upset.cavitation_E, "blocked_valve": upset.blockage_E
        }
        for fault, pump in self._active(timestamp_ms):
            if fault.kind in of_kind:
                effect_E = of_kind[fault.kind]
                effect_E[pump] = max(effect_E[pump], fault.grown(timestamp_ms))
        return upset

    def spoil(self, timestamp_ms: int, x_EF: F64, full_speed_F: F64) -> None:
        """Changes readings in place as broken sensors would. NaN is no reading."""
        for fault, pump in self._active(timestamp_ms):
            if fault.sensor is None:
                continue
            sensor = SENSORS.index(fault.sensor)
            if fault.kind == "stuck":
                x_EF[pump, sensor] = self._held.setdefault(fault, float(x_EF[pump, sensor]))
            elif fault.kind == "spike":
                x_EF[pump, sensor] += _SPIKE_HEIGHT * full_speed_F[sensor]
            elif fault.kind == "dropout":
                x_EF[pump, sensor] = np.nan

    def _active(self, timestamp_ms: int) -> Iterator[tuple[Fault, int]]:
        for fault in self.faults:
            if fault.active(timestamp_ms):
                yield fault, self.entities.index(fault.entity)


def random_faults(entities: Sequence[str], seed: int, start_ms: int, every_seconds: float) -> Iterator[Fault]:
    """One fault after another, without end, their starts every_seconds apart; never two at once in one pump."""
    rng = np.random.default_rng(seed)
    free_ms = dict.fromkeys(entities, start_ms)
    while True:
        idle = [entity for entity in entities if free_ms[entity] <= start_ms]
        if idle:
            kind = KINDS[rng.integers(len(KINDS))]
            entity = idle[rng.integers(len(idle))]
            sensor = None if kind in _SHOWS_IN else SENSORS[rng.integers(len(SENSORS))]
            fault = lasting(kind, entity, start_ms, sensor)
            free_ms[entity] = fault.end_ms + round(every_seconds * 1000)
            yield fault
        start_ms += round(every_seconds * 1000)


def lasting(kind: Kind, entity: str, start_ms: int, sensor: str | None = None) -> Fault:
    """A fault as long as its kind usually lasts here."""
    return Fault(kind, entity, start_ms, start_ms + round(_LAST_SECONDS[kind] * 1000), sensor)
