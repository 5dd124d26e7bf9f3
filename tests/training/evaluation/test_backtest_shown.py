"""Pages and figures of a backtest at their edges: nothing found, very much found, names that are markup."""

from __future__ import annotations

import json

from training.evaluation.backtest import Backtest, Overlap, Tally, days_of
from training.evaluation.backtest_shown import DAYS_SHOWN, ENTITIES_SHOWN, as_json, contributors, lines, page

DAY_MS, START_MS = 86_400_000, 1_764_000_000_000


def test_nothing_found_in_nothing_dated() -> None:
    found = Backtest("default", "v1", "0" * 64, "pump.csv", readings=10)
    assert "No alarm at all." in page(found)
    assert "0 (0.0 a day), 0 incidents" in "\n".join(lines(found))
    document = json.loads(as_json(found))
    assert document["anomalies"] == 0
    assert document["range"] == {"where": "pump.csv", "first": None, "last": None}
    assert document["overlap"] is None


def test_every_day_is_there_and_the_page_is_bounded() -> None:
    found = Backtest("default", "v1", "0" * 64, "t", 1000, START_MS, START_MS + 40 * DAY_MS)
    for i in range(ENTITIES_SHOWN + 7):
        found.days[f"pump-{i}"] = {"2025-12-31": Tally(anomalies=i + 1, incidents=1)}
    assert len(days_of(found)) == 41
    html = page(found)
    assert html.count("<tr><td>pump-") == ENTITIES_SHOWN
    assert f"the {ENTITIES_SHOWN} loudest of {ENTITIES_SHOWN + 7} entities" in html
    assert f"the newest {DAYS_SHOWN} of 41 days" in html
    assert "<td>pump-0</td>" not in html
    assert found.total("anomalies") == sum(range(ENTITIES_SHOWN + 8))


def test_names_are_no_markup() -> None:
    found = Backtest("a&b", "v1", "0" * 64, "<topic>", 5)
    found.days["<script>"] = {"2025-12-31": Tally(3, 1)}
    found.shares = {"<b>": 2.0, "x": 1.0}
    found.overlap = Overlap(1, 2, 3)
    html = page(found)
    assert "<script>" not in html
    assert "<td><b></td>" not in html
    assert "<td>&lt;b&gt;</td>" in html
    assert "a&amp;b" in html
    assert contributors(found) == [("<b>", 2 / 3), ("x", 1 / 3)]
