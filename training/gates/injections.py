"""Faults to inject into one sensor of copies of normal readings.

Legend: N readings of a stretch.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from worker.records import F32

SHIFTS = (1.0, 2.0, 4.0, 8.0, 16.0)     # spreads: of one sensor among forty, smaller ones drown in the others
SPIKE = 8.0                             # spreads


class Case(NamedTuple):
    """One sensor over a stretch, and what a fault may be made of. NaN = missing, and stays so."""

    normal_N: F32
    elsewhere_N: F32                    # its readings at another time
    spread: float                       # of its normal readings
    sign: float
    at: int                             # a reading of the stretch


class Fault(NamedTuple):
    name: str                           # in the manifest's figures
    said: str
    inject: Callable[[Case], F32]


def _shifted(spreads: float, case: Case) -> F32:
    return np.asarray(case.normal_N + case.sign * spreads * case.spread, np.float32)


def _stuck(case: Case) -> F32:
    there_N = ~np.isnan(case.normal_N)
    return np.where(there_N, case.normal_N[there_N.argmax()], case.normal_N)


def _spike(case: Case) -> F32:
    faulty_N = case.normal_N.copy()
    faulty_N[case.at] += case.sign * SPIKE * case.spread
    return faulty_N


def _displaced(case: Case) -> F32:
    """Values as normal as any, but not now: only their relation to the other sensors is wrong."""
    return np.where(np.isnan(case.normal_N), case.normal_N, case.elsewhere_N)


FAULTS = (
    *(Fault(f"shift_{size:g}", f"shift by {size:g} × its spread", partial(_shifted, size)) for size in SHIFTS),
    Fault("stuck", "stuck at one value", _stuck),
    Fault("spike", f"one reading {SPIKE:g} × its spread off", _spike),
    Fault("displaced", "values of another time", _displaced),
)
