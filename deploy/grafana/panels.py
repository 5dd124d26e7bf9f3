"""Panels of a Grafana dashboard as plain dictionaries, in Grafana's JSON model (schema 41).

In expressions $W stands for the labels that choose workers, $T for those and the topic, $I for the rate's window.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Panel = dict[str, Any]

SOURCE = {"type": "prometheus", "uid": "${datasource}"}
WORKERS = 'group=~"$group",instance=~"$instance"'
TOPICS = f'{WORKERS},topic=~"$topic"'

# A fact has the same colour in whatever panel it comes.
_COLOURS = {
    "critical": "red", "warning": "orange", "failed": "red", "refused": "red", "lost": "red", "aborted": "orange",
    "ok": "green", "success": "green", "promoted": "green", "loaded": "green", "restored": "green",
    "committed": "green", "budget": "red",
}  # fmt: skip



Queries = Mapping[str, str] | str
"""Legend → expression; or one expression without a legend."""
Steps = Iterable[tuple[float | None, str]]
"""(from, colour); None is from the beginning."""


def stat(title: str, text: str, query: str, unit: str, steps: Steps = ((None, "blue"),), **more: Any) -> Panel:
    """One number, and how it went behind it."""
    return _panel(
        "stat", title, text, query, 4, 4, unit,
        defaults={"thresholds": _thresholds(steps), "noValue": "no data", **more},
        options={
            "colorMode": "value",
            "graphMode": "area",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "textMode": "auto",
        },
    )  # fmt: skip


def lines(
    title: str, text: str, queries: Queries, unit: str, width: int = 12, *,
    stacked: bool = False, log: bool = False, line_at: float | None = None, least: float | None = 0,
) -> Panel:  # fmt: skip
    """Courses over time. line_at: a threshold, drawn red."""
    custom: dict[str, Any] = {
        "lineWidth": 1,
        "fillOpacity": 40 if stacked else 8,
        "showPoints": "never",
        "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
    }
    defaults: dict[str, Any] = {"custom": custom}
    if log:
        custom["scaleDistribution"] = {"type": "log", "log": 10}
    elif least is not None:
        defaults["min"] = least
    if line_at is not None:
        custom["thresholdsStyle"] = {"mode": "line"}
        defaults["thresholds"] = _thresholds([(None, "transparent"), (line_at, "red")])
    panel = _panel(
        "timeseries", title, text, queries, width, 8, unit, defaults,
        {
            "legend": {"displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull", "max"]},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
    )  # fmt: skip
    panel["fieldConfig"]["overrides"] = [
        {
            "matcher": {"id": "byName", "options": name},
            "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": colour}}],
        }
        for name, colour in _COLOURS.items()
    ]
    return panel


def heat(title: str, text: str, histogram: str, axis: str, unit: str = "short", width: int = 12) -> Panel:
    """A histogram over time. histogram: its _bucket series with selectors."""
    query = f"sum by (le) (increase({histogram}[$I]))"
    panel = _panel(
        "heatmap", title, text, {"{{le}}": query}, width, 8, "short", {},
        {
            "calculate": False,
            "cellGap": 1,
            "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64, "scale": "exponential", "exponent": 0.4},
            "filterValues": {"le": 1e-9},
            "yAxis": {"axisPlacement": "left", "axisLabel": axis, "unit": unit},
            "rowsFrame": {"layout": "le"},
            "tooltip": {"mode": "single", "yHistogram": True},
            "legend": {"show": True},
        },
    )  # fmt: skip
    panel["targets"][0]["format"] = "heatmap"
    panel["maxDataPoints"] = 120
    return panel


def bars(title: str, text: str, query: str, legend: str, unit: str, width: int = 12) -> Panel:
    """One bar for each series, as of now."""
    panel = _panel(
        "bargauge", title, text, {legend: query}, width, 8, unit,
        {"min": 0, "thresholds": _thresholds([(None, "blue")])},
        {
            "orientation": "horizontal",
            "displayMode": "basic",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        },
    )  # fmt: skip
    panel["targets"][0] |= {"format": "heatmap" if "by (le)" in query else "time_series", "instant": True}
    return panel


def table(
    title: str, text: str, queries: Queries, columns: Mapping[str, str], width: int = 12, height: int = 8
) -> Panel:
    """The present. columns: name of a label or of a value → its heading, in order; others are left out.

    Of several queries, the value of each is named "Value #A" and so on, and rows of equal labels become one.
    """
    panel = _panel("table", title, text, queries, width, height, "short", {}, {"showHeader": True})
    for target in panel["targets"]:
        target |= {"format": "table", "instant": True}
    order = {name: place for place, name in enumerate(columns)}
    organize = {"indexByName": order, "renameByName": dict(columns), "includeByName": dict.fromkeys(columns, True)}
    several = [{"id": "merge", "options": {}}] if len(panel["targets"]) > 1 else []
    panel["transformations"] = [*several, {"id": "organize", "options": organize}]
    return panel


def row(title: str) -> Panel:
    return {"type": "row", "title": title, "collapsed": False, "panels": []}


def placed(panels: Iterable[Panel]) -> list[Panel]:
    """With ids, and with places from left to right; a row, or what does not fit any more, begins a new line."""
    x = y = height = 0
    found = []
    for number, panel in enumerate(panels, 1):
        width, tall = panel.pop("size", (24, 1))
        if panel["type"] == "row" or x + width > 24:
            x, y, height = 0, y + height, 0
        found.append({"id": number, **panel, "gridPos": {"x": x, "y": y, "w": width, "h": tall}})
        x, height = x + width, max(height, tall)
    return found


def filled(expression: str) -> str:
    return expression.replace("$W", WORKERS).replace("$T", TOPICS).replace("[$I]", "[$__rate_interval]")


def _panel(
    kind: str, title: str, text: str, queries: Queries, width: int, height: int, unit: str,
    defaults: Mapping[str, Any], options: Mapping[str, Any],
) -> Panel:  # fmt: skip
    named = {"": queries} if isinstance(queries, str) else queries
    return {
        "type": kind,
        "title": title,
        "description": text,
        "datasource": SOURCE,
        "size": (width, height),
        "targets": [
            {"datasource": SOURCE, "refId": chr(ord("A") + n), "expr": filled(expr), "legendFormat": legend}
            for n, (legend, expr) in enumerate(named.items())
        ],
        "fieldConfig": {"defaults": {"unit": unit, **defaults}, "overrides": []},
        "options": dict(options),
    }


def _thresholds(steps: Steps) -> dict[str, Any]:
    return {"mode": "absolute", "steps": [{"color": colour, "value": value} for value, colour in steps]}
