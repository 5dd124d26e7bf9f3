"""How often drift is seen where there is none, and how soon where there is: `python -m tests.benchmarks.drift`.

A feature of spread 1 that forgets what it was after τ readings (an AR(1) process). The reference is of 50,000 readings
of it, the window of 20,000, looked at every 5,000. Triggered: PSI above 0.25.
"""

from __future__ import annotations

import numpy as np
import scipy.signal

from worker.models.drift import Drift
from worker.models.reference import Reference

READINGS, WINDOW, EVERY, LOOKS = 50_000, 20_000, 5_000, 200
TRIGGER = 0.25
MEMORIES = (0, 100, 1_000, 5_000)
SHIFTS = (0.25, 0.5, 1.0)


def process(n: int, memory: int, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=n + 10 * memory)
    if not memory:
        return noise
    keep = float(np.exp(-1 / memory))
    return np.asarray(scipy.signal.lfilter([np.sqrt(1 - keep**2)], [1, -keep], noise)[10 * memory :])


def looks(reference: Reference, x: np.ndarray) -> np.ndarray:
    """PSI and KS at every look that sees a whole window."""
    drift, found = Drift(reference, WINDOW, 1000), []
    for i in range(0, len(x), 250):
        part = x[i : i + 250].astype(np.float32)
        drift.count(part[:, None], part.astype(np.float64))
        if (i + 250) % EVERY == 0 and i + 250 >= WINDOW:
            statistics = drift.statistics()
            found.append((statistics.psi_F[0], statistics.ks_F[0]))
    return np.array(found)


def main() -> None:
    print("| forgets after | PSI, median | PSI, highest | KS, highest | triggered |" + "".join(
        f" PSI after a shift of {shift:g} |" for shift in SHIFTS))
    print("|" + " --- |" * (5 + len(SHIFTS)))
    for memory in MEMORIES:
        learnt = process(READINGS, memory, 1)
        reference = Reference.of(np.column_stack([learnt, learnt]))
        same = looks(reference, process(LOOKS * EVERY + WINDOW, memory, 2))
        later = process(10 * EVERY + WINDOW, memory, 3)
        shifted = [float(np.median(looks(reference, later + shift)[:, 0])) for shift in SHIFTS]
        row = [
            f"{memory:,} readings" if memory else "at once", f"{np.median(same[:, 0]):.3f}", f"{same[:, 0].max():.3f}",
            f"{same[:, 1].max():.3f}", f"{(same[:, 0] > TRIGGER).mean():.1%} of {len(same)}",
            *(f"{psi:.2f}" for psi in shifted),
        ]
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
