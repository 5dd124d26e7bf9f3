"""Several centrifugal pumps and their sensors, seeded: the same seed and start give the same readings.

Physics, in parts of the values at full speed with the valve open (s speed, v valve, q flow, h head, P shaft power):

    set-point    each pump runs at one of a few duty levels and changes it now and then; s follows within seconds
    flow         pump curve 1.3 s² − 0.3 q² meets the pipe's q² / v²:  q = s · √(1.3 / (0.3 + 1 / v²))
    pressure     h = 1.3 s² − 0.3 q²
    power        P = (0.35 + 0.65 q / s) · s³
    temperature  goes to ambient + 25 °C · P, with a time constant of 20 s
    vibration    grows with s², and away from the best point (q = s)

so that at a given valve q ~ s, h ~ s² and P ~ s³ (the affinity laws: ISO 9906; Karassik, Pump Handbook).
Legend of shapes: E pumps, F sensors (of faults.SENSORS).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from deploy.demo.faults import F64, SENSORS, Fault, Faults, Upset

# °C, bar, m³/h, A, mm/s, mm/s, rpm: at full speed with the valve open (temperature: above ambient).
FULL_SPEED_F: F64 = np.array([25.0, 4.5, 80.0, 22.0, 2.0, 1.6, 2900.0])
_NOISE_F: F64 = np.array([0.008, 0.008, 0.01, 0.008, 0.05, 0.05, 0.002])      # σ, in parts of the above

_DUTY_LEVELS = np.array([0.6, 0.75, 0.9, 1.0])
_DUTY_SECONDS = 8.0             # how long a duty level lasts, on average
_SPEED_SECONDS = 1.5            # time constants
_TEMPERATURE_SECONDS = 20.0
_VALVE_SECONDS = 15.0
_AMBIENT_C, _AMBIENT_SWING_C, _DAY_SECONDS = 22.0, 3.0, 86_400.0


class Tick(NamedTuple):
    """All pumps at one time."""

    timestamp_ms: int
    x_EF: F64                   # NaN = the sensor gives nothing


class Pumps:
    """step() gives one reading of every pump, interval_seconds after the last.

    The first is at start_ms (ms since the epoch). Faults change nothing but the sensors they show in: the noise of
    a pump is the same with and without them.
    """

    def __init__(self, count: int, seed: int, start_ms: int, interval_seconds: float = 1.0) -> None:
        self.entities = tuple(f"pump-{number}" for number in range(1, count + 1))
        self.interval_seconds = interval_seconds
        self.faults = Faults(self.entities)
        self._start_ms = start_ms
        self._ticks = 0
        build, self._duty, self._noise, self._bubbles = map(
            np.random.default_rng, np.random.SeedSequence(seed).spawn(4)
        )
        self._size_EF = 1 + 0.02 * build.uniform(-1, 1, (count, len(SENSORS)))      # no two pumps are alike
        self._duty_E = build.integers(0, len(_DUTY_LEVELS), count)
        self._trim_E = np.zeros(count)
        self._speed_E = _DUTY_LEVELS[self._duty_E]
        self._opening_E = build.uniform(-1, 1, count)
        self._warmth_E = self._speed_E**3

    @property
    def next_ms(self) -> int:
        """The time of the next step()."""
        return self._start_ms + round(self._ticks * self.interval_seconds * 1000)

    def inject(self, faults: Iterable[Fault]) -> None:
        """Raises ValueError for a pump that is not there."""
        self.faults.add(faults, self.next_ms)

    def step(self) -> Tick:
        timestamp_ms = self.next_ms
        upset = self.faults.upset(timestamp_ms)
        self._change_duty()
        x_EF = self._sense(timestamp_ms, upset)
        self.faults.spoil(timestamp_ms, x_EF, FULL_SPEED_F)
        self._ticks += 1
        return Tick(timestamp_ms, x_EF)

    def _change_duty(self) -> None:
        """Set-points jump, speeds follow; the demand behind the valve wanders (an Ornstein–Uhlenbeck process)."""
        count = len(self.entities)
        change_E = self._duty.random(count) < self.interval_seconds / _DUTY_SECONDS
        other_E = (self._duty_E + self._duty.integers(1, len(_DUTY_LEVELS), count)) % len(_DUTY_LEVELS)
        self._duty_E = np.where(change_E, other_E, self._duty_E)
        trim_E = self._duty.normal(0, 0.01, count)      # no operator sets the same level twice
        self._trim_E = np.where(change_E, trim_E, self._trim_E)
        target_E = _DUTY_LEVELS[self._duty_E] + self._trim_E
        self._speed_E += _share(self.interval_seconds, _SPEED_SECONDS) * (target_E - self._speed_E)
        share = _share(self.interval_seconds, _VALVE_SECONDS)
        self._opening_E += -share * self._opening_E + math.sqrt(share * (2 - share)) * self._duty.normal(0, 1, count)

    def _sense(self, timestamp_ms: int, upset: Upset) -> F64:
        speed_E = self._speed_E
        valve_E = (0.87 + 0.13 * np.tanh(self._opening_E)) * (1 - 0.65 * upset.blockage_E)
        flow_E = speed_E * np.sqrt(1.3 / (0.3 + 1 / valve_E**2))
        pressure_E = 1.3 * speed_E**2 - 0.3 * flow_E**2
        power_E = (0.35 + 0.65 * flow_E / speed_E) * speed_E**3
        off_design_E = (1 - flow_E / speed_E) ** 2

        # A worn bearing shakes and heats, and brakes the motor a little.
        self._warmth_E += _share(self.interval_seconds, _TEMPERATURE_SECONDS) * (
            power_E + 0.8 * upset.wear_E - self._warmth_E
        )
        current_E = 0.25 + 0.75 * power_E + 0.06 * upset.wear_E
        vibration_E = 0.3 + 0.7 * speed_E**2 + 0.5 * off_design_E
        shaken_E, shaken_too_E = vibration_E * (1 + 2.5 * upset.wear_E), vibration_E * (1 + upset.wear_E)

        # Bubbles collapse at random: less comes through, by gusts, and the casing rattles.
        gust_E = upset.cavitation_E * np.abs(self._bubbles.normal(0, 1, len(speed_E)))
        pressure_E = pressure_E * (1 - 0.18 * upset.cavitation_E - 0.05 * gust_E)
        flow_E = flow_E * (1 - 0.12 * upset.cavitation_E - 0.04 * gust_E)
        shaken_E = shaken_E * (1 + 0.7 * upset.cavitation_E + 0.5 * gust_E)
        shaken_too_E = shaken_too_E * (1 + 0.7 * upset.cavitation_E + 0.5 * gust_E)

        parts_EF = np.stack(
            [self._warmth_E, pressure_E, flow_E, current_E, shaken_E, shaken_too_E, speed_E], axis=1
        )
        x_EF = (parts_EF * self._size_EF + self._noise.normal(0, 1, parts_EF.shape) * _NOISE_F) * FULL_SPEED_F
        day = 2 * math.pi * (timestamp_ms / 1000) / _DAY_SECONDS
        x_EF[:, SENSORS.index("temperature")] += _AMBIENT_C + _AMBIENT_SWING_C * math.sin(day)
        return np.asarray(x_EF)


def _share(interval_seconds: float, constant_seconds: float) -> float:
    """How far a first-order lag comes in one interval."""
    return 1 - math.exp(-interval_seconds / constant_seconds)
