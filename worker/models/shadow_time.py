"""How long a version has been in the shadow: told in the registry, for who promotes it to ask.

Each worker writes one small file for each stretch that it has a version in the shadow:
<registry>/<name>/shadow/<version>/<stretch>.json. Stretches may overlap, as replicas work at the same time.
"""

from __future__ import annotations

import contextlib
import socket
import time
import uuid
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from worker.models.registry import Registry

NOTE_SECONDS = 60.0                     # between two writes of a stretch


class Told(msgspec.Struct, frozen=True):
    """From the first reading to the last; milliseconds since the epoch."""

    since_ms: int
    until_ms: int
    readings: int
    alarms: int
    alike: int                          # readings of which the served version said the same


@dataclass
class Stretch:
    """Of one worker: counted on by its loop, noted by the thread that looks at the registry."""

    version: str
    name: str = field(default_factory=lambda: f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}")
    told: Told | None = None

    def count(self, readings: int, alarms: int, alike: int) -> None:
        now_ms = time.time_ns() // 1_000_000
        was = self.told or Told(now_ms, now_ms, 0, 0, 0)
        self.told = Told(was.since_ms, now_ms, was.readings + readings, was.alarms + alarms, was.alike + alike)

    def note(self, registry: Registry) -> None:
        """Raises RegistryError."""
        if self.told is not None:
            registry.note(self.version, self.name, msgspec.json.encode(self.told))


class InShadow(NamedTuple):
    """By all workers."""

    seconds: float                      # at which at least one had it in the shadow
    readings: int
    alarms: int
    alike: int


def of(registry: Registry, version: str) -> InShadow:
    """Raises RegistryError. What cannot be read counts for nothing."""
    stretches: list[Told] = []
    for content in registry.notes(version):
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
            stretches.append(msgspec.json.decode(content, type=Told))
    covered_ms, reached_ms = 0, 0
    for told in sorted(stretches, key=lambda told: told.since_ms):
        covered_ms += max(told.until_ms - max(told.since_ms, reached_ms), 0)
        reached_ms = max(reached_ms, told.until_ms)
    return InShadow(
        covered_ms / 1000, sum(t.readings for t in stretches), sum(t.alarms for t in stretches),
        sum(t.alike for t in stretches),
    )
