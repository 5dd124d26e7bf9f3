"""The report's pictures, as data: URIs of SVG, so that the page is one file.

Legend: H held-out rows, F features, L latents.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from training.fitting.objective import ACTIVE_SHARE
from worker.models.artifact import Losses
from worker.records import F64

INK, FAINT = "#1f2933", "#9aa5b1"
BLUE, RED, GREEN = "#2563eb", "#c8352b", "#2f855a"
STYLE: Any = {
    "svg.hashsalt": "zmu",              # the same report gives the same bytes
    "svg.fonttype": "none",             # text stays text: small, sharp, searchable
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": FAINT, "xtick.color": INK, "ytick.color": INK,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#e4e7eb",
    "axes.axisbelow": True, "legend.frameon": False,
    "text.parse_math": False,           # a feature may be called $x$
}
STILL = 0.01                            # squared spreads; a feature that moves less has nothing to explain
BARS = 30                               # features drawn; the worst ones
MOST = 1.5                              # share unexplained that fits on the axis


def losses(looks: Sequence[Losses], best: int) -> str:
    epochs = [look.epoch for look in looks]
    with rc_context(STYLE):
        figure, (left, right) = _figure(7.2, 3.1, 2)
        left.plot(epochs, [look.train_reconstruction for look in looks], color=FAINT, marker=".", label="training")
        left.plot(epochs, [look.held_reconstruction for look in looks], color=BLUE, marker=".", label="held out")
        left.set_title("Reconstruction error", loc="left")
        right.plot(epochs, [look.train_kl for look in looks], color=FAINT, marker=".", label="training")
        right.plot(epochs, [look.held_kl for look in looks], color=BLUE, marker=".", label="held out")
        right.set_title("KL, nats", loc="left")
        for axes in (left, right):
            axes.axvline(epochs[best], color=GREEN, linewidth=1, linestyle="--", label="weights kept")
            axes.set_xlabel("epoch")
            axes.set_ylim(bottom=0)
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3)
        return _uri(figure)


def scores(score_H: F64) -> str:
    """Anomaly scores of held-out readings; 1 is the threshold."""
    positive_H = np.maximum(score_H, 1e-4)
    edges = np.geomspace(positive_H.min() * 0.9, max(positive_H.max() * 1.1, 2.0), 60)
    with rc_context(STYLE):
        figure, (axes,) = _figure(7.2, 2.6, 1)
        axes.hist(positive_H, bins=list(edges), color=BLUE)
        axes.axvline(1.0, color=RED, linewidth=1.5)
        axes.annotate(
            "threshold", (1.0, 1.0), (5, 0), xycoords=("data", "axes fraction"), textcoords="offset points", color=RED,
            va="top",
        )
        axes.set_xscale("log")
        axes.set_yscale("symlog", linthresh=1)
        for axis in (axes.xaxis, axes.yaxis):           # the default writes powers as mathematics, which is off
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("anomaly score")
        axes.set_ylabel("held-out readings")
        return _uri(figure)


def feature_errors(features: Sequence[str], error_F: F64, constant_F: F64) -> str:
    """Share of each feature's held-out variation that the model does not explain."""
    share_F = error_F / np.maximum(constant_F, STILL)
    shown = np.argsort(-share_F, kind="stable")[:BARS][::-1]
    with rc_context(STYLE):
        figure, (axes,) = _figure(7.2, 0.8 + 0.24 * len(shown), 1)
        colours = [RED if share > 1 else BLUE for share in share_F[shown]]
        axes.barh([_short(features[f]) for f in shown], np.minimum(share_F[shown], MOST), color=colours, height=0.7)
        for bar, share in enumerate(share_F[shown]):
            if share > MOST:                            # what the axis cuts off is told
                axes.annotate(
                    f"{share:.3g}", (MOST, bar), (-5, 0), textcoords="offset points", ha="right", va="center",
                    color="white", fontsize=9,
                )
        axes.axvline(1.0, color=FAINT, linewidth=1)
        axes.set_xlim(0, MOST)
        axes.set_xlabel("share unexplained: 0 is perfect, 1 is no better than the mean")
        axes.grid(axis="y", visible=False)
        axes.margins(y=0.01)
        return _uri(figure)


def reading(features: Sequence[str], actual_F: F64, expected_F: F64) -> str:
    """One reading in scaled units, actual beside expected; NaN where missing."""
    at = np.arange(len(features))
    with rc_context(STYLE):
        figure, (axes,) = _figure(7.2, 2.5, 1)
        axes.vlines(at, actual_F, expected_F, color=FAINT, linewidth=1)
        axes.plot(at, expected_F, "_", color=BLUE, markersize=13, markeredgewidth=2.5, label="expected")
        axes.plot(at, actual_F, "o", color=RED, markersize=5, label="actual")
        axes.set_xticks(at, [_short(name) for name in features], rotation=30, ha="right")
        axes.set_ylabel("scaled")
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
        return _uri(figure)


def latents(share_L: F64) -> str:
    with rc_context(STYLE):
        figure, (axes,) = _figure(7.2, 2.2, 1)
        colours = [BLUE if share > ACTIVE_SHARE else FAINT for share in share_L]
        axes.bar([str(i) for i in range(len(share_L))], share_L, color=colours, width=0.7)
        axes.axhline(ACTIVE_SHARE, color=RED, linewidth=1, linestyle="--")
        axes.set_ylim(0, 1)
        axes.set_xlabel("latent")
        axes.set_ylabel("share of signal")
        axes.grid(axis="x", visible=False)
        return _uri(figure)


def _figure(width: float, height: float, columns: int) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(np.atleast_1d(figure.subplots(1, columns)))


def _uri(figure: Figure) -> str:
    out = io.BytesIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(out.getvalue()).decode()


def _short(name: str) -> str:
    return name if len(name) <= 24 else f"{name[:22]}…"
