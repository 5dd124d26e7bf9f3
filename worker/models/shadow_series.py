"""What a shadow does, as Prometheus sees it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from prometheus_client import Counter


class NewCounter(Protocol):
    def __call__(self, name: str, text: str, labels: Sequence[str] = ..., /) -> Counter: ...


class ShadowSeries:
    def __init__(self, counter: NewCounter) -> None:
        label = ("model_version",)
        self._scored = counter("shadow_records_scored", "Readings that a shadow has scored as well.", label)
        self._alarms = counter("shadow_anomalies", "Of those, what it would have called anomalous.", label)
        self._alike = counter("shadow_agreements", "Of those, where it says the same as the served version.", label)

    def __call__(self, version: str, readings: int, alarms: int, alike: int) -> None:
        self._scored.labels(version).inc(readings)
        self._alarms.labels(version).inc(alarms)
        self._alike.labels(version).inc(alike)
