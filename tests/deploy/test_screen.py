"""What the demo shows: on a terminal of any size, and as plain lines."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from deploy.demo.faults import Fault
from deploy.demo.lines import Lines
from deploy.demo.referee import Referee, epoch_ms
from deploy.demo.screen import Screen
from deploy.demo.summary import print_summary
from deploy.demo.view import Scores, View
from deploy.demo.vitals import Vitals
from tests.deploy.test_referee import CAVITATION, NOW_MS, event

PUMPS = tuple(f"pump-{number}" for number in range(1, 7))


def view(after_ms: int, referee: Referee) -> View:
    scores = Scores()
    for alarm in referee.alarms:
        scores.note(alarm.entity, epoch_ms(alarm.peak.timestamp), alarm.peak.anomaly_score)
    vitals = Vitals(scored=1234, readings_per_second=30, model="20261125T230105Z-a19a87")
    return View(PUMPS, "Kafka", "http://127.0.0.1:9108/metrics", vitals, referee, scores, NOW_MS + after_ms, NOW_MS,
                NOW_MS + 70_000)


@pytest.fixture
def referee() -> Referee:
    referee = Referee()
    referee.expect([CAVITATION, Fault("stuck", "pump-2", NOW_MS + 1000, NOW_MS + 2000, "flow")])
    return referee


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (100, 30), (120, 40), (200, 60)])
def test_a_terminal_shows_the_pumps_the_anomaly_and_the_worker(
    referee: Referee, columns: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    referee.see(event("pump-1", 400))
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=columns, height=rows, color_system=None)
    with Screen(console) as screen:
        screen.show(view(600, referee))
    shown = out.getvalue()
    for words in (
        "pump-2   ● normal", "● critical", "cavitation", "pressure 90%: 4, not 2", "0.5 s", "throughput",
        "dead letters", "1,234 readings", "http://127.0.0.1:9108/metrics", "Ctrl-C ends it",
    ):
        assert words in shown
    assert ("faults injected" in shown) == (rows >= 34)


def test_lines_say_what_was_done_before_what_came_of_it(referee: Referee) -> None:
    out = io.StringIO()
    lines = Lines(Console(file=out, width=80))
    referee.see(event("pump-1", 400))                   # before anybody has looked
    for after_ms in (600, 900, 1500, 8000):
        lines.show(view(after_ms, referee))
    assert out.getvalue().splitlines() == [
        "   0.6 s  pump-1   we broke it: cavitation",
        "   0.6 s  pump-1   ANOMALY score 3.00: pressure 90%: 4, not 2 [cavitation]",
        "   0.6 s  pump-1   caught cavitation after 0.5 s",
        "   1.5 s  pump-2   we broke it: flow stuck",
        "   8.0 s  pump-2   missed flow stuck",
    ]


def test_the_summary_counts_what_had_begun(referee: Referee) -> None:
    referee.see(event("pump-1", 400))
    out = io.StringIO()
    print_summary(Console(file=out, width=100), view(600, referee))
    said = " ".join(out.getvalue().split())
    assert "faults injected 1 caught 1; 1 of them by a sensor that it shows in missed 0" in said
    assert "median 0.5" in said
    assert "stuck" not in said
