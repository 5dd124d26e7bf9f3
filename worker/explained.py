"""An explanation for people: lines with bars, and a page that draws actual against expected for every feature.

Legend: B readings of the entity, F features.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

import numpy as np

from worker.explain import Explanation
from worker.records import F64, rfc3339

BAR = 20                                # characters
SHOWN = 120                             # readings that are drawn
WIDTH, HEIGHT, MARGIN = 720, 110, 6

STYLE = """body{margin:0;background:#f5f7fa;color:#1f2933;font:16px/1.5 system-ui,sans-serif}
main{max-width:880px;margin:0 auto;padding:24px 16px}
h1{font-size:24px;overflow-wrap:anywhere} h2{font-size:16px;margin:18px 0 2px} .soft{color:#616e7c}
figure{margin:0;background:#fff;border:1px solid #e4e7eb;border-radius:10px;padding:10px 14px;margin-top:12px;
overflow-x:auto}
svg{display:block;width:100%;min-width:540px;height:auto}"""


def lines(found: Explanation) -> Iterator[str]:
    origin, event = found.found.origin, found.found.event
    yield f"reading     {origin} of {found.entity}, {_when(found)}"
    yield f"version     {found.version}"
    yield f"before it   {len(found.batch) - 1:,} readings of {found.entity}"
    told = "" if event is None else f"; the event says {event.anomaly_score!r}"
    yield f"score       {found.score!r}{told}: {found.verdict}"
    if event is None:
        above = "above" if found.score > 1 else "not above"
        yield f"event       none of it in the output topic: the score is {above} 1"
    if found.why:
        yield f"because?    {found.why}"
    yield ""
    rows = list(_rows(found))
    width = max(len(name) for name, *_ in rows)
    yield f"{'feature':<{width}}  {'actual':>12}  {'expected':>12}  share of the score"
    for name, actual, expected, share in rows:
        bar = "█" * round(BAR * share)
        yield f"{name:<{width}}  {_number(actual):>12}  {_number(expected):>12}  {share:>4.0%} {bar}".rstrip()


def page(found: Explanation) -> str:
    origin = found.found.origin
    figures = []
    for name, _, _, share in _rows(found):
        f = found.features.index(name)
        drawn = _drawn(found.batch.x_BF[-SHOWN:, f].astype(float), found.scores.expected_BF[-SHOWN:, f].astype(float))
        figures.append(f"<figure><h2>{escape(name)}: {share:.0%} of the score</h2>{drawn}</figure>")
    scores = found.scores.anomaly_score_B[-SHOWN:]
    figures.insert(0, f"<figure><h2>anomaly score, and 1</h2>{_drawn(scores, np.ones_like(scores))}</figure>")
    told = f"score {found.score:.6g}: {found.verdict}" + (f"; {found.why}" if found.why else "")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(found.entity)}</title><style>{STYLE}</style></head><body><main>"
        f"<h1>{escape(found.entity)} at {escape(_when(found))}</h1>"
        f'<p class="soft">{escape(str(origin))}, version '
        f"{escape(found.version)}, {escape(told)}. Blue is actual, orange is expected; the last point is the reading, "
        f"before it the newest {len(scores) - 1} of its entity.</p>{''.join(figures)}</main></body></html>\n"
    )


def _rows(found: Explanation) -> Iterator[tuple[str, float, float, float]]:
    """Feature, actual, expected, share; the largest share first."""
    part_F = found.scores.feature_score_BF[-1]
    share_F = part_F / part_F.sum() if part_F.sum() > 0 else np.zeros_like(part_F)
    for f in np.argsort(-share_F, kind="stable").tolist():
        actual, expected = found.batch.x_BF[-1, f], found.scores.expected_BF[-1, f]
        yield found.features[f], float(actual), float(expected), float(share_F[f])


def _drawn(actual_B: F64, expected_B: F64) -> str:
    """Two lines in one picture, with the range at its edges."""
    both = np.concatenate([actual_B, expected_B])
    low, high = float(np.nanmin(both)), float(np.nanmax(both))
    span = high - low or 1.0
    x_B = np.linspace(MARGIN, WIDTH - 90, len(actual_B)) if len(actual_B) > 1 else np.array([MARGIN])

    def line(value_B: F64, colour: str) -> str:
        y_B = HEIGHT - MARGIN - (value_B - low) / span * (HEIGHT - 2 * MARGIN)
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(x_B, y_B, strict=True) if not np.isnan(y))
        end = _end(x_B, y_B, colour)
        return f'<polyline fill="none" stroke="{colour}" stroke-width="1.6" points="{points}"/>{end}'

    edges = "".join(
        f'<text x="{WIDTH - 70}" y="{y}" font-size="12" fill="#616e7c">{_number(value)}</text>'
        for y, value in ((14, high), (HEIGHT - 4, low))
    )
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{line(expected_B, "#dd6b20")}{line(actual_B, "#2563eb")}'
        f"{edges}</svg>"
    )


def _end(x_B: F64, y_B: F64, colour: str) -> str:
    return "" if np.isnan(y_B[-1]) else f'<circle cx="{x_B[-1]:.1f}" cy="{y_B[-1]:.1f}" r="3.5" fill="{colour}"/>'


def _number(value: float) -> str:
    return "missing" if np.isnan(value) else f"{value:.6g}"


def _when(found: Explanation) -> str:
    return rfc3339(max(int(found.batch.timestamp_ms_B[-1]), 0))
