"""What the demo knows at one moment; the screen and the plain lines show the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from deploy.demo.faults import Fault
from deploy.demo.referee import Alarm, Referee
from deploy.demo.vitals import Vitals
from worker.records import Event

_KEPT_SECONDS = 120
_FRESH_MS = 1_500           # an event older than this says nothing of a machine now


@dataclass
class Scores:
    """The highest anomaly_score of each machine in each second. Only anomalous readings make events: no entry, no
    anomaly."""

    _peaks: dict[tuple[str, int], float] = field(default_factory=dict)
    _latest: dict[str, tuple[int, float]] = field(default_factory=dict)

    def note(self, entity: str, timestamp_ms: int, score: float) -> None:
        second = timestamp_ms // 1000
        key = entity, second
        if key not in self._peaks:
            self._peaks = {(e, s): peak for (e, s), peak in self._peaks.items() if s > second - _KEPT_SECONDS}
        self._peaks[key] = max(self._peaks.get(key, 0.0), score)
        self._latest[entity] = timestamp_ms, score

    def now(self, entity: str, now_ms: int) -> float | None:
        """None: its readings are normal."""
        timestamp_ms, score = self._latest.get(entity, (0, 0.0))
        return score if now_ms - timestamp_ms <= _FRESH_MS else None

    def last(self, entity: str, now_ms: int, seconds: int) -> list[float | None]:
        """One a second, the newest last."""
        newest = now_ms // 1000
        return [self._peaks.get((entity, second)) for second in range(newest - seconds + 1, newest + 1)]


@dataclass(frozen=True)
class View:
    entities: Sequence[str]
    kafka: str
    metrics_url: str
    vitals: Vitals
    referee: Referee
    scores: Scores
    now_ms: int
    start_ms: int
    end_ms: int | None          # None: for ever

    @property
    def elapsed_seconds(self) -> float:
        return max(self.now_ms - self.start_ms, 0) / 1000


def fault_name(fault: Fault) -> str:
    kind = {"dropout": "drop-out"}.get(fault.kind, fault.kind.replace("_", " "))
    return kind if fault.sensor is None else f"{fault.sensor} {kind}"


def culprits(event: Event, most: int) -> list[str]:
    """`vibration_1 61%: 4.82, not 2.10`, the largest first; those with little share are left out."""
    told: list[str] = []
    for part in event.contributions[:most]:
        if part.share >= 0.05 or not told:
            actual = "none" if part.actual is None else f"{part.actual:.4g}"
            told.append(f"{part.feature} {part.share:.0%}: {actual}, not {part.expected:.4g}")
    return told


def verdict_of(alarm: Alarm) -> str:
    return "false alarm" if alarm.fault is None else fault_name(alarm.fault)
