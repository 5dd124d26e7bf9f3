"""A backtest for people and programs: lines, JSON, and one page of HTML."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from html import escape
from string import Template
from typing import Any

import msgspec

from training.evaluation.backtest import Backtest, Day, Tally, days_of
from training.reporting.page import STYLE, section, table
from worker.records import rfc3339

ENTITIES_SHOWN = 50                     # those with the most alerts
DAYS_SHOWN = 31                         # the newest
FEATURES_SHOWN = 12

PAGE = Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
$style
.heat td { text-align:center; min-width:52px; padding:6px 4px } .heat th { padding:6px 4px }
.heat th:not(:first-child) { text-align:center } .heat td:first-child { text-align:left; white-space:nowrap }
</style></head><body><main>
<h1>$name: what would have fired</h1>
<p class="soft">version <code>$version</code> over $where</p>
<div class="cards">$cards</div>
$sections
</main></body></html>
""")


def document(found: Backtest) -> dict[str, Any]:
    """Times in RFC 3339; shares sum to 1 over all features."""
    total = found.total("anomalies")
    return {
        "model": {"name": found.name, "version": found.version, "sha256": found.sha256},
        "range": {"where": found.where, "first": _when(found.first_ms), "last": _when(found.last_ms)},
        "readings": found.readings,
        "not_readings": found.left_out,
        "anomalies": total,
        "incidents": found.total("incidents"),
        "sensor_faults": found.total("faults"),
        "severities": dict(found.severities),
        "entities": {
            entity: {day: dataclasses.asdict(tally) for day, tally in sorted(days.items())}
            for entity, days in sorted(found.days.items())
        },
        "contributors": [{"feature": name, "share": share} for name, share in contributors(found)],
        "highest": [msgspec.to_builtins(event) for event in found.highest],
        "overlap": None if found.overlap is None else dataclasses.asdict(found.overlap),
    }


def as_json(found: Backtest) -> str:
    return json.dumps(document(found), indent=1, ensure_ascii=False) + "\n"


def contributors(found: Backtest) -> list[tuple[str, float]]:
    """Features by their part in the scores of all anomalies, the largest first."""
    whole = sum(found.shares.values())
    return sorted(((name, share / whole) for name, share in found.shares.items()), key=lambda pair: -pair[1])


def lines(found: Backtest) -> Iterator[str]:
    days = max(len(days_of(found)), 1)
    yield f"version     {found.name}/{found.version}"
    yield f"readings    {found.readings:,} of {found.where}"
    if found.first_ms is not None and found.last_ms is not None:
        yield f"from        {rfc3339(found.first_ms)} to {rfc3339(found.last_ms)}"
    anomalies, incidents = found.total("anomalies"), found.total("incidents")
    yield f"anomalies   {anomalies:,} ({anomalies / days:,.1f} a day), {incidents:,} incidents"
    yield f"sensors     {found.total('faults'):,} faults of sensors"
    for entity, per_day in _loudest(found)[:8]:
        yield (
            f"entity      {entity}: {sum(t.anomalies for t in per_day.values()):,} anomalies, "
            f"{sum(t.incidents for t in per_day.values()):,} incidents"
        )
    for name, share in contributors(found)[:5]:
        yield f"feature     {name}: {share:.0%} of the anomalies' scores"
    if found.overlap is not None:
        o = found.overlap
        yield f"then        {o.both:,} were told then as well; {o.only_now:,} only now, {o.only_then:,} only then"


def page(found: Backtest) -> str:
    days = days_of(found)
    shown = days[-DAYS_SHOWN:]
    anomalies = found.total("anomalies")
    cards = [
        (f"{found.readings:,}", "readings"),
        (f"{anomalies:,}", "readings in alarm"),
        (f"{found.total('incidents'):,}", "incidents"),
        (f"{found.total('incidents') / max(len(days), 1):.1f}", "incidents a day"),
        (f"{found.total('faults'):,}", "faults of sensors"),
    ]
    return PAGE.substitute(
        title=escape(f"{found.name} {found.version}: backtest"),
        style=STYLE,
        name=escape(found.name),
        version=escape(found.version),
        where=escape(found.where),
        cards="".join(f'<div class="card"><b>{number}</b><span>{text}</span></div>' for number, text in cards),
        sections="\n".join([_heat(found, shown, len(days)), _features(found), *_overlap(found), _highest(found)]),
    )


def _heat(found: Backtest, days: list[Day], of: int) -> str:
    loudest = _loudest(found)
    most = max((t.anomalies for _, per_day in loudest for t in per_day.values()), default=0)
    rows = []
    for entity, per_day in loudest[:ENTITIES_SHOWN]:
        cells = [_cell(per_day.get(day), most) for day in days]
        rows.append(f"<tr><td>{escape(entity)}</td>{''.join(cells)}</tr>")
    head = "".join(f"<th>{escape(day[5:] if len(day) == 10 else day)}</th>" for day in days)
    cut = []
    if len(loudest) > ENTITIES_SHOWN:
        cut.append(f"the {ENTITIES_SHOWN} loudest of {len(loudest)} entities")
    if of > len(days):
        cut.append(f"the newest {len(days)} of {of} days")
    body = "<p>No alarm at all.</p>"
    if rows:
        body = f'<div class="wide"><table class="heat"><thead><tr><th>entity</th>{head}</tr></thead>'
        body += f"<tbody>{''.join(rows)}</tbody></table></div>"
    told = "Incidents that opened, in brackets readings in alarm. Days are UTC. Entities without an alarm are not here."
    return section("Alerts by day", told + (f" Shown: {', '.join(cut)}." if cut else ""), body)


def _cell(tally: Tally | None, most: int) -> str:
    if tally is None or not (tally.anomalies or tally.incidents):
        return "<td></td>"
    strength = 0.12 + 0.6 * (tally.anomalies / most if most else 0)
    return f'<td style="background:rgba(200,53,43,{strength:.2f})">{tally.incidents} ({tally.anomalies:,})</td>'


def _features(found: Backtest) -> str:
    rows = [
        (escape(name), f"{share:.1%}",
         f'<div style="background:var(--blue);height:10px;width:{240 * share:.0f}px"></div>')
        for name, share in contributors(found)[:FEATURES_SHOWN]
    ]
    return section("What drove them", "Each feature's part in the scores of all readings in alarm.",
                   table(("feature", "share", ""), rows))


def _overlap(found: Backtest) -> list[str]:
    if found.overlap is None:
        return []
    o = found.overlap
    rows = [
        ("told then, and would be now", f"{o.both:,}"), ("only now", f"{o.only_now:,}"),
        ("only then", f"{o.only_then:,}"),
    ]
    return [section("Against what was told", "The worker's own events of the same readings.", table(("", ""), rows))]


def _highest(found: Backtest) -> str:
    rows = [
        (escape(event.timestamp), escape(event.entity), f"{event.anomaly_score:.3g}",
         ", ".join(f"{escape(part.feature)} {part.share:.0%}" for part in event.contributions[:3]))
        for event in found.highest
    ]
    return section("Highest scores", "Of each entity and day.", table(("time", "entity", "score", "most by"), rows))


def _loudest(found: Backtest) -> list[tuple[str, dict[Day, Tally]]]:
    return sorted(found.days.items(), key=lambda pair: (-sum(t.anomalies for t in pair[1].values()), pair[0]))


def _when(ms: int | None) -> str | None:
    return None if ms is None else rfc3339(ms)
