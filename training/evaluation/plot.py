"""A picture of scores against labels, a panel for each recording.

Legend: N rows of a recording, V events, P points drawn.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from training.evaluation.evaluate import Evaluation, Recording
from training.evaluation.shown import number
from training.reporting.plots import BLUE, FAINT, RED, STYLE
from worker.errors import SettingsError, UserError
from worker.records import F64, I64

ENDINGS = (".svg", ".png")
PANELS = 40                             # recordings drawn
POINTS = 2000                           # of a recording's score
LOWEST_DRAWN = 1e-3                     # the axis is logarithmic


def require_picture(path: Path) -> None:
    """Raises SettingsError for an ending that says nothing of a format; asked before any recording is read."""
    if path.suffix.lower() not in ENDINGS:
        raise SettingsError(f"--plot {path}: name a file that ends in {' or '.join(ENDINGS)}")


def draw(evaluation: Evaluation, path: Path) -> None:
    """Scores over rows, the threshold, what is labelled and what is in alarm.

    Raises UserError where the file cannot be written.
    """
    shown = evaluation.recordings[:PANELS]
    left_out = len(evaluation.recordings) - len(shown)
    with rc_context(STYLE):
        figure = Figure(figsize=(10, 0.8 + 1.5 * len(shown)), layout="constrained")
        panels: list[Axes] = list(figure.subplots(len(shown), 1, squeeze=False)[:, 0])
        for axes, recording in zip(panels, shown, strict=True):
            _panel(axes, recording)
        more = f"; {left_out} more recordings are not drawn" if left_out else ""
        panels[-1].set_xlabel(f"row, from the first one judged{more}")
        named: dict[str, Any] = {}      # once each; the first recording may have no event
        for axes in panels:
            handles, labels = axes.get_legend_handles_labels()
            named |= zip(map(str, labels), handles, strict=True)
        figure.legend(list(named.values()), list(named), loc="outside upper right", ncols=4)
        try:
            # No date: the same evaluation gives the same bytes.
            figure.savefig(path, dpi=110, metadata={"Date": None} if path.suffix.lower() == ".svg" else None)
        except OSError as error:
            raise UserError(f"--plot {path}: {error.strerror}; name a file that can be written") from None


def peaks(score_N: F64, points: int) -> tuple[I64, F64]:
    """At most `points` rows in order, and their scores: of each stretch the highest, so that no peak is lost."""
    if len(score_N) <= points:
        return np.arange(len(score_N)), score_N
    edges = np.linspace(0, len(score_N), points + 1).astype(np.int64)
    at_P = np.array([a + int(np.argmax(score_N[a:b])) for a, b in pairwise(edges.tolist())], np.int64)
    return at_P, score_N[at_P]


def _panel(axes: Axes, recording: Recording) -> None:
    at_P, score_P = peaks(recording.score_N, POINTS)
    events = recording.events
    for first, last in zip(events.first_V.tolist(), events.last_V.tolist(), strict=True):
        axes.axvspan(first - 0.5, last + 0.5, color=RED, alpha=0.15, linewidth=0, label="labelled")
    axes.plot(at_P, np.maximum(score_P, LOWEST_DRAWN), color=BLUE, linewidth=0.8, label="score")
    axes.axhline(1.0, color=FAINT, linewidth=1, linestyle="--", label="threshold")
    alarm_P, _ = peaks(recording.alarm_N.astype(np.float64), POINTS)
    alarm_P = alarm_P[recording.alarm_N[alarm_P]]
    foot = np.full(len(alarm_P), 0.03)
    axes.plot(alarm_P, foot, "|", color=RED, markersize=6, transform=axes.get_xaxis_transform(), label="alarm")
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 3), numticks=6))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))    # the default writes mathematics
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlim(0, max(len(recording.score_N) - 1, 1))
    figures = recording.figures
    axes.set_title(f"{recording.name}   F1 {number(figures.f1)}   VUS-PR {number(figures.vus_pr)}", loc="left")
