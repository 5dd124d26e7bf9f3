"""Compares what zmu said with what was done to the pumps: caught, missed, false alarms, and how late."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from deploy.demo.faults import Fault
from worker.records import Event

QUIET_MS = 3_000            # anomalies of one machine with no longer gap between them are one alarm
# What a fault leaves behind is neither a catch nor a false alarm: a hot casing needs minutes to cool.
_AFTERMATH_MS = {"bearing_wear": 90_000, "blocked_valve": 60_000}
_OTHER_AFTERMATH_MS = 5_000

Verdict = Literal["coming", "watching", "caught", "missed", "tolerated"]


@dataclass
class Alarm:
    """Anomalies of one machine in a row."""

    entity: str
    start_ms: int
    last_ms: int
    peak: Event
    readings: int = 1
    fault: Fault | None = None


@dataclass
class Outcome:
    """What became of a fault. delay_seconds: from its start until the worker had scored the first reading of it."""

    fault: Fault
    delay_seconds: float | None = None
    peak: Event | None = None

    def verdict(self, now_ms: int) -> Verdict:
        """A sensor that gives nothing is no anomaly by itself: to score on without it is what is asked for."""
        if self.delay_seconds is not None:
            return "caught"
        if now_ms < self.fault.start_ms:
            return "coming"
        if now_ms < self.fault.end_ms + _OTHER_AFTERMATH_MS:
            return "watching"
        return "tolerated" if self.fault.kind == "dropout" else "missed"

    @property
    def named(self) -> bool | None:
        """Whether the sensor that the event blames most is one that the fault shows in; None before it is caught."""
        if self.peak is None:
            return None
        return bool(self.peak.contributions) and self.peak.contributions[0].feature in self.fault.sensors


class Referee:
    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.alarms: list[Alarm] = []

    def expect(self, faults: Sequence[Fault]) -> None:
        self.outcomes += [Outcome(fault) for fault in faults]

    def see(self, event: Event) -> Alarm:
        """Returns the alarm that the event belongs to: a new one, or one that goes on."""
        timestamp_ms = epoch_ms(event.timestamp)
        alarm = next((a for a in reversed(self.alarms) if a.entity == event.entity), None)
        if alarm is None or timestamp_ms - alarm.last_ms > QUIET_MS:
            alarm = Alarm(event.entity, timestamp_ms, timestamp_ms, event)
            self.alarms.append(alarm)
        else:
            alarm.last_ms = max(timestamp_ms, alarm.last_ms)
            alarm.readings += 1
            if event.anomaly_score > alarm.peak.anomaly_score:
                alarm.peak = event
        self._judge(event, timestamp_ms, alarm)
        return alarm

    @property
    def false_alarms(self) -> list[Alarm]:
        return [alarm for alarm in self.alarms if alarm.fault is None]

    def fault_of(self, entity: str, now_ms: int) -> Fault | None:
        """The fault that the machine has now."""
        faults = (outcome.fault for outcome in self.outcomes if outcome.fault.entity == entity)
        return next((fault for fault in faults if fault.active(now_ms)), None)

    def _judge(self, event: Event, timestamp_ms: int, alarm: Alarm) -> None:
        own = [outcome for outcome in self.outcomes if outcome.fault.entity == event.entity]
        for outcome in own:
            if outcome.fault.active(timestamp_ms):
                alarm.fault = alarm.fault or outcome.fault
                if outcome.delay_seconds is None:
                    outcome.delay_seconds = (epoch_ms(event.detected_at) - outcome.fault.start_ms) / 1000
                if outcome.peak is None or event.anomaly_score > outcome.peak.anomaly_score:
                    outcome.peak = event
                return
        for outcome in own:
            aftermath_ms = _AFTERMATH_MS.get(outcome.fault.kind, _OTHER_AFTERMATH_MS)
            if 0 <= timestamp_ms - outcome.fault.end_ms < aftermath_ms:
                alarm.fault = alarm.fault or outcome.fault


def epoch_ms(rfc3339: str) -> int:
    return round(datetime.datetime.fromisoformat(rfc3339).timestamp() * 1000)
