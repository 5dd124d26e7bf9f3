"""How many threads do the worker's arithmetic: decoding, and the model on the CPU.

They are few, and they wait while there is little to do: a batch of a quiet topic is done sooner by one.
"""

from __future__ import annotations

import os
from pathlib import Path

MOST_BY_ITSELF = 4                      # of cores; past that, most of a batch's time is what one thread does
QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of a container's group, as it sees it

_most = 1


def available(quota: Path = QUOTA) -> int:
    """Cores that this process may keep busy: those it may run on, within what its container is given."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        limit_us, period_us = quota.read_text().split()
        return max(1, min(cores, int(limit_us) // int(period_us)))
    except (OSError, ValueError):       # no cgroups of version 2 here, or "max"
        return cores


def choose(most: int) -> None:
    """For the whole process, before anything asks. most: 0 for as many as there are cores for, but one, which
    kafka-python's threads keep busy; within bounds.
    """
    global _most
    _most = most or max(1, min(available() - 1, MOST_BY_ITSELF))


def most() -> int:
    """At work at once, the caller's own one among them."""
    return _most
