"""The demo on a terminal: machines, throughput, anomalies, faults, redrawn a few times a second."""

from __future__ import annotations

import math
from typing import Self

from rich import box
from rich.console import Console, RenderableType
from rich.layout import Layout
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from deploy.demo.referee import Alarm, Outcome, Verdict
from deploy.demo.view import View, culprits, fault_name, verdict_of

_BARS = "▁▂▃▄▅▆▇█"
_ROOM_FOR_FAULTS = 34           # lines
_ROOM_FOR_ALL = 110             # columns
_SHORTEST_TRACE_SECONDS = 8     # a column each
_VERDICTS: dict[Verdict, tuple[str, str]] = {
    "coming": ("dim", "coming"),
    "watching": ("yellow", "watching"),
    "caught": ("green", "caught"),
    "missed": ("red", "missed"),
    "tolerated": ("cyan", "scored without it"),
}


class Screen:
    """Shows views on the terminal's second page; what was there before comes back at the end."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, screen=True, auto_refresh=False)

    def show(self, view: View) -> None:
        self._live.update(self._page(view), refresh=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def _page(self, view: View) -> RenderableType:
        page = Layout()
        rows = [
            Layout(_header(view, self._console.width), size=3),
            Layout(name="plant", size=len(view.entities) + 4),
            Layout(_anomalies(view, self._console.height), name="anomalies"),
        ]
        if self._console.height >= _ROOM_FOR_FAULTS:
            rows.append(Layout(_faults(view), size=min(len(view.referee.outcomes), 8) + 4))
        rows.append(Layout(_footer(view), size=1))
        page.split_column(*rows)
        vitals_columns = 37 if self._console.width >= _ROOM_FOR_ALL else 34
        page["plant"].split_row(
            Layout(_machines(view, min(self._console.width - 90, 30)), ratio=1),
            Layout(_vitals(view, vitals_columns), size=vitals_columns),
        )
        return page


def _header(view: View, columns: int) -> RenderableType:
    grid = Table.grid(expand=True)
    grid.add_column()
    grid.add_column(justify="right")
    kafka = f"{view.kafka}  ·  " if columns >= _ROOM_FOR_ALL else ""
    grid.add_row(
        Text.assemble(("zmu", "bold cyan"), "  anomaly detection, live"),
        Text.assemble((kafka, "bold"), (view.metrics_url, "bold cyan")),
    )
    return Panel(grid, box=box.ROUNDED, border_style="cyan")


def _table() -> Table:
    return Table(box=None, expand=True, pad_edge=False, header_style="dim")


def _machines(view: View, trace_seconds: int) -> RenderableType:
    table = _table()
    table.add_column("machine", no_wrap=True, min_width=7)
    table.add_column("state", no_wrap=True, min_width=10)
    table.add_column("score", no_wrap=True, min_width=5, justify="right")
    if trace_seconds >= _SHORTEST_TRACE_SECONDS:
        table.add_column(f"last {trace_seconds} s", no_wrap=True)
    table.add_column("what we broke", no_wrap=True, ratio=1)
    for entity in view.entities:
        score = view.scores.now(entity, view.now_ms)
        style = _score_style(score)
        fault = view.referee.fault_of(entity, view.now_ms)
        state = "normal" if score is None else ("critical" if score >= 2 else "warning")
        cells = [
            Text(entity),
            Text(f"● {state}", style),
            Text("< 1" if score is None else _number(score), style if score else "dim"),
            Text("" if fault is None else fault_name(fault), "magenta"),
        ]
        if trace_seconds >= _SHORTEST_TRACE_SECONDS:
            cells.insert(-1, _trace(view.scores.last(entity, view.now_ms, trace_seconds)))
        table.add_row(*cells)
    return Panel(table, title="machines", title_align="left", box=box.ROUNDED, border_style="dim")


def _vitals(view: View, columns: int) -> RenderableType:
    vitals = view.vitals
    name_columns = len("dead letters")
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(style="dim", no_wrap=True, min_width=name_columns)
    grid.add_column(justify="right", no_wrap=True, max_width=columns - name_columns - 5)     # frame and gaps
    for name, value in (
        ("throughput", Text(f"{vitals.readings_per_second:,.0f} readings/s", "bold")),
        ("lag", Text(f"{vitals.lag_records:,.0f} records", "bold" if vitals.lag_records < 1000 else "bold yellow")),
        ("latency", f"{_duration(vitals.latency_p50_seconds)}, p99 {_duration(vitals.latency_p99_seconds)}"),
        ("score", f"{_number(vitals.score_p50)}, p99 {_number(vitals.score_p99)}"),
        ("scored", f"{vitals.scored:,.0f} readings"),
        ("anomalous", f"{vitals.anomalies:,.0f} readings"),
        ("dead letters", f"{vitals.dead_lettered:,.0f}"),
        ("model", vitals.model),
    )[: len(view.entities) + 2]:
        grid.add_row(name, value)
    return Panel(grid, title="worker", title_align="left", box=box.ROUNDED, border_style="dim")


def _anomalies(view: View, height: int) -> RenderableType:
    table = _table()
    table.add_column("at", no_wrap=True, justify="right")
    table.add_column("machine", no_wrap=True)
    table.add_column("score", no_wrap=True, justify="right")
    table.add_column("rows", no_wrap=True, justify="right")
    table.add_column("because of", no_wrap=True, overflow="ellipsis", ratio=1)
    table.add_column("caught", no_wrap=True)
    table.add_column("after", no_wrap=True, justify="right")
    for alarm in reversed(view.referee.alarms[-height:]):
        table.add_row(
            f"{(alarm.start_ms - view.start_ms) / 1000:.1f} s",
            alarm.entity,
            Text(_number(alarm.peak.anomaly_score), _score_style(alarm.peak.anomaly_score)),
            str(alarm.readings),
            " · ".join(culprits(alarm.peak, 2)),
            Text(verdict_of(alarm), "yellow" if alarm.fault is None else "green"),
            _after(view, alarm),
        )
    body: RenderableType = table if view.referee.alarms else Text("none yet", "dim")
    return Panel(body, title="anomalies, newest first", title_align="left", box=box.ROUNDED, border_style="dim")


def _faults(view: View) -> RenderableType:
    return Panel(
        faults_table(view, view.referee.outcomes[-8:]), title="faults injected", title_align="left", box=box.ROUNDED,
        border_style="dim",
    )


def faults_table(view: View, outcomes: list[Outcome]) -> Table:
    """Also the heart of the summary."""
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for name, right in (
        ("at", True), ("machine", False), ("fault", False), ("verdict", False), ("after", True), ("blamed first", False)
    ):
        table.add_column(name, justify="right" if right else "left", no_wrap=True)
    for outcome in outcomes:
        verdict = outcome.verdict(view.now_ms)
        style, words = _VERDICTS[verdict]
        table.add_row(
            f"{(outcome.fault.start_ms - view.start_ms) / 1000:.0f} s",
            outcome.fault.entity,
            fault_name(outcome.fault),
            Text(words, style),
            "" if outcome.delay_seconds is None else f"{outcome.delay_seconds:.1f} s",
            _blamed(outcome),
            style="dim" if verdict == "coming" else "",
        )
    return table


def _blamed(outcome: Outcome) -> Text:
    if outcome.peak is None or not outcome.peak.contributions:
        return Text("")
    feature = outcome.peak.contributions[0].feature
    return Text.assemble(feature, (" ✓", "green") if outcome.named else (" ✗", "red"))


def _footer(view: View) -> RenderableType:
    grid = Table.grid(expand=True, padding=(0, 1))
    grid.add_column()
    grid.add_column(ratio=1)
    grid.add_column(justify="right")
    if view.end_ms is None:
        return Text(f" {view.elapsed_seconds:.0f} s · Ctrl-C ends it", "dim")
    total_seconds = (view.end_ms - view.start_ms) / 1000
    bar = ProgressBar(total=total_seconds, completed=min(view.elapsed_seconds, total_seconds))
    grid.add_row(f" {view.elapsed_seconds:.0f} s of {total_seconds:.0f} s", bar, Text("Ctrl-C ends it ", "dim"))
    return grid


def _after(view: View, alarm: Alarm) -> str:
    """Blank unless this alarm is the one that caught the fault first."""
    outcome = next((o for o in view.referee.outcomes if o.fault is alarm.fault), None)
    if outcome is None or outcome.delay_seconds is None:
        return ""
    first = next(a for a in view.referee.alarms if a.fault is alarm.fault)
    return f"{outcome.delay_seconds:.1f} s" if first is alarm else ""


def _trace(scores: list[float | None]) -> Text:
    trace = Text()
    for score in scores:
        if score is None:
            trace.append("·", "dim green")
        else:
            level = min(int(math.log2(max(score, 1.0)) * 2), len(_BARS) - 1)       # full height at 11 times the limit
            trace.append(_BARS[level], _score_style(score))
    return trace


def _score_style(score: float | None) -> str:
    return "green" if score is None else ("bold red" if score >= 2 else "bold yellow")


def _number(value: float) -> str:
    return "–" if math.isnan(value) else (f"{value:,.0f}" if value >= 100 else f"{value:.2f}")


def _duration(seconds: float) -> str:
    return "–" if math.isnan(seconds) else (f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s")
