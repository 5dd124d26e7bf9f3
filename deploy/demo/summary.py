"""What the demo says at its end."""

from __future__ import annotations

import statistics

from rich.console import Console
from rich.table import Table

from deploy.demo.screen import faults_table
from deploy.demo.view import View, culprits


def print_summary(console: Console, view: View) -> None:
    """Faults that had not begun are not counted."""
    begun = [outcome for outcome in view.referee.outcomes if outcome.verdict(view.now_ms) != "coming"]
    console.print()
    console.rule("summary", style="cyan")
    console.print(faults_table(view, begun))
    console.print()
    totals = Table.grid(padding=(0, 2))
    totals.add_column(style="dim", no_wrap=True)
    totals.add_column()
    for name, value in _totals(view):
        totals.add_row(name, value)
    console.print(totals)
    for alarm in view.referee.false_alarms[:5]:
        at_seconds = (alarm.start_ms - view.start_ms) / 1000
        why = "; ".join(culprits(alarm.peak, 2))
        console.print(f"false alarm at {at_seconds:.1f} s, {alarm.entity}: {why}", style="yellow")


def _totals(view: View) -> list[tuple[str, str]]:
    outcomes = view.referee.outcomes
    verdicts = [outcome.verdict(view.now_ms) for outcome in outcomes]
    caught = [outcome for outcome in outcomes if outcome.delay_seconds is not None]
    named = sum(bool(outcome.named) for outcome in caught)
    rows = [
        ("faults injected", str(len(outcomes) - verdicts.count("coming"))),
        ("caught", f"{len(caught)}; {named} of them by a sensor that it shows in"),
        ("missed", str(verdicts.count("missed"))),
    ]
    if tolerated := verdicts.count("tolerated"):
        rows.append(("no anomaly", f"{tolerated}: a sensor gave nothing; the others were scored"))
    if watching := verdicts.count("watching"):
        rows.append(("too new to judge", str(watching)))
    false_alarms = view.referee.false_alarms
    readings = sum(alarm.readings for alarm in false_alarms)
    rows.append(("false alarms", f"{len(false_alarms)}: {readings} of {view.vitals.scored:,.0f} readings scored"))
    if delays := [outcome.delay_seconds for outcome in caught if outcome.delay_seconds is not None]:
        median = statistics.median(delays)
        rows.append(("seconds to detection", f"median {median:.1f}, least {min(delays):.1f}, most {max(delays):.1f}"))
    return rows
