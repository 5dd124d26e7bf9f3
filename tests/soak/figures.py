"""What a process holds over time, and whether it holds more and more."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

MB = 2**20
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
# The fitted growth over the last half of a run that still counts as flat: what allocators do by themselves.
MOST_GROWTH_BYTES = 12 * MB
MOST_GROWTH_FILES = 2.0


class Sample(NamedTuple):
    seconds: float
    resident_bytes: int
    files: int                          # descriptors that are open
    threads: int


def sample(pid: int, seconds: float) -> Sample:
    process = Path("/proc") / str(pid)
    resident = int((process / "statm").read_text().split()[1]) * PAGE_BYTES
    return Sample(seconds, resident, len(os.listdir(process / "fd")), len(os.listdir(process / "task")))


def growth(seconds: Sequence[float], values: Sequence[float]) -> float:
    """By a least-squares line over the last half: what it rises by, from the half's beginning to its end."""
    middle = (seconds[0] + seconds[-1]) / 2
    last = [(at, value) for at, value in zip(seconds, values, strict=True) if at >= middle]
    at, value = np.array(last, float).T
    slope, _ = np.polyfit(at - at[0], value, 1)
    return float(slope * (at[-1] - at[0]))


class Figures(NamedTuple):
    """Of one run."""

    minutes: float
    delivery: str
    readings: int
    spikes: int
    poison: int
    lost_events: int
    lost_dead_letters: int
    repeated: int
    joined: int                         # times that the second worker came
    reloads: int
    resident_mb: tuple[float, float, float]     # at the middle of the run, at its end, fitted growth between
    files: tuple[int, int, float]
    threads: tuple[int, int]

    def faults(self) -> list[str]:
        """What was promised and not kept."""
        found = []
        if self.lost_events or self.lost_dead_letters:
            found.append(f"{self.lost_events} events and {self.lost_dead_letters} dead letters are lost")
        if self.repeated and self.delivery == "exactly-once":
            found.append(f"{self.repeated} records came twice")
        if self.resident_mb[2] * MB > MOST_GROWTH_BYTES:
            found.append(f"memory grew by {self.resident_mb[2]:.1f} MB in the last half")
        if self.files[2] > MOST_GROWTH_FILES:
            found.append(f"open files grew by {self.files[2]:.1f} in the last half")
        return found

    def markdown(self) -> str:
        rows = {
            "minutes": f"{self.minutes:.0f}",
            "delivery": self.delivery,
            "readings": f"{self.readings:,}",
            "readings far off, each of which must be an event": f"{self.spikes:,}",
            "records that are no readings": f"{self.poison:,}",
            "events lost, dead letters lost": f"{self.lost_events}, {self.lost_dead_letters}",
            "records repeated": f"{self.repeated}",
            "times a second worker joined and left": f"{self.joined}",
            "models reloaded by the first": f"{self.reloads}",
            "resident memory, MB: at half time, at the end, fitted growth between": "{:.1f}, {:.1f}, {:+.1f}".format(
                *self.resident_mb
            ),
            "open files: the same": "{}, {}, {:+.1f}".format(*self.files),
            "threads: at half time, at the end": "{}, {}".format(*self.threads),
        }
        lines = (f"| {name} | {value} |\n" for name, value in rows.items())
        return "| figure | value |\n| --- | --- |\n" + "".join(lines)


def of_samples(samples: Sequence[Sample]) -> tuple[tuple[float, float, float], tuple[int, int, float], tuple[int, int]]:
    """Memory, files and threads as Figures has them."""
    seconds = [each.seconds for each in samples]
    middle = next(each for each in samples if each.seconds >= (seconds[0] + seconds[-1]) / 2)
    end = samples[-1]
    memory = growth(seconds, [each.resident_bytes for each in samples]) / MB
    files = growth(seconds, [each.files for each in samples])
    return (
        (middle.resident_bytes / MB, end.resident_bytes / MB, memory),
        (middle.files, end.files, files),
        (middle.threads, end.threads),
    )
