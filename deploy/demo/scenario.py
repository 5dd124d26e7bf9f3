"""Which faults the demo injects, and when."""

from __future__ import annotations

from collections.abc import Iterator

from deploy.demo.faults import Fault, Kind, random_faults

PUMPS = 6
LIVE_SECONDS = 70.0             # the last fault is over and judged by then
_FOREVER_EVERY_SECONDS = 12.0

# Seconds after the worker is ready, how long, what, which pump, which sensor.
_ACTS: tuple[tuple[float, float, Kind, str, str | None], ...] = (
    (0.5, 10, "cavitation", "pump-2", None),
    (9, 0.5, "spike", "pump-5", "current"),
    (12, 36, "stuck", "pump-3", "pressure"),
    (16, 12, "blocked_valve", "pump-4", None),
    (22, 36, "bearing_wear", "pump-1", None),
    (36, 8, "dropout", "pump-6", "flow"),
    (48, 10, "cavitation", "pump-5", None),
)


def first_faults(ready_ms: int) -> list[Fault]:
    """One of every kind, one of them twice. ready_ms: epoch ms from which on anomalies can be seen."""
    return [
        Fault(kind, entity, start_ms := ready_ms + round(after * 1000), start_ms + round(lasts * 1000), sensor)
        for after, lasts, kind, entity, sensor in _ACTS
    ]


def later_faults(entities: tuple[str, ...], seed: int, ready_ms: int) -> Iterator[Fault]:
    """Without end, once the first are over."""
    start_ms = ready_ms + round(LIVE_SECONDS * 1000)
    return random_faults(entities, seed, start_ms, _FOREVER_EVERY_SECONDS)
