"""The demo where there is no terminal: a line for everything that happens."""

from __future__ import annotations

from typing import Self

from rich.console import Console

from deploy.demo.referee import Outcome, Verdict
from deploy.demo.view import View, culprits, fault_name, verdict_of

_VITALS_SECONDS = 10.0
_OPEN: tuple[Verdict, ...] = ("coming", "watching")


class Lines:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._alarms = 0                    # told so far, as the next three
        self._begun: set[int] = set()
        self._settled: set[int] = set()
        self._next_vitals_seconds = _VITALS_SECONDS

    def show(self, view: View) -> None:
        """What we did, what zmu said, what that makes of it: in this order, though all may come at once."""
        for number, outcome in enumerate(view.referee.outcomes):
            if number not in self._begun and outcome.verdict(view.now_ms) != "coming":
                self._begun.add(number)
                self._say(view, outcome.fault.entity, f"we broke it: {fault_name(outcome.fault)}")
        for alarm in view.referee.alarms[self._alarms :]:
            why = "; ".join(culprits(alarm.peak, 3))
            self._say(view, alarm.entity, f"ANOMALY score {alarm.peak.anomaly_score:.2f}: {why} [{verdict_of(alarm)}]")
        self._alarms = len(view.referee.alarms)
        for number, outcome in enumerate(view.referee.outcomes):
            verdict = outcome.verdict(view.now_ms)
            if number not in self._settled and verdict not in _OPEN:
                self._settled.add(number)
                self._say(view, outcome.fault.entity, _words(verdict, outcome))
        if view.elapsed_seconds >= self._next_vitals_seconds:
            self._next_vitals_seconds += _VITALS_SECONDS
            vitals = view.vitals
            self._say(
                view, "worker", f"{vitals.readings_per_second:,.0f} readings/s, lag {vitals.lag_records:,.0f}, "
                f"{vitals.scored:,.0f} scored, {vitals.dead_lettered:,.0f} dead letters"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def _say(self, view: View, who: str, what: str) -> None:
        self._console.print(
            f"{view.elapsed_seconds:6.1f} s  {who:<8} {what}", highlight=False, markup=False, soft_wrap=True
        )


def _words(verdict: Verdict, outcome: Outcome) -> str:
    name = fault_name(outcome.fault)
    if verdict == "caught":
        return f"caught {name} after {outcome.delay_seconds:.1f} s"
    return f"missed {name}" if verdict == "missed" else f"scored without it: {name}"
