"""The dashboards ask for what the programs serve: every metric and label exists, every expression is PromQL.

tests/integration/test_prometheus.py asks a real Prometheus.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from deploy.grafana.__main__ import made
from tests.deploy.prometheus import as_grafana_asks
from tests.deploy.promql import DASHBOARDS, SCRAPE_LABELS, asked, dashboards, grouped, panels, selectors, served
from worker.metrics import Metrics

each_dashboard = pytest.mark.parametrize("name", list(dashboards()))


def test_the_files_are_what_the_code_makes() -> None:
    there = {path.name: path.read_text() for path in DASHBOARDS.glob("*.json")}
    assert there == made(), "run: python -m deploy.grafana"


def test_there_is_one_for_each_question() -> None:
    assert list(dashboards()) == ["zmu-fleet.json", "zmu-model.json", "zmu-worker.json"]


@pytest.mark.parametrize(("where", "expression"), asked())
def test_series_and_labels_exist(where: str, expression: str) -> None:
    series = served()
    read = list(selectors(expression))
    assert read or re.search(r"\bzmu:|\bALERTS\b", expression)
    possible = SCRAPE_LABELS | {"alertname", "severity"}
    for name, chosen in read:
        assert name in series, f"{name} is served by neither program"
        # The model's facts are labels of an info, set when one is loaded.
        labels = SCRAPE_LABELS | series[name] | ({"name", "version"} if name == "zmu_model_info" else set())
        assert chosen.keys() <= labels, name
        possible |= labels
    assert grouped(expression) <= possible


@each_dashboard
def test_legends_name_labels_that_the_query_keeps(name: str) -> None:
    for panel in panels(dashboards()[name]):
        for target in panel.get("targets", ()):
            wanted = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            assert wanted <= (grouped(target["expr"]) or SCRAPE_LABELS), panel["title"]


@each_dashboard
def test_columns_of_tables_are_labels_or_values(name: str) -> None:
    facts = {"instance", "name", "version", "kind", "device", "sha256"}     # of zmu_model_info
    for panel in panels(dashboards()[name]):
        if panel["type"] == "table":
            queries = panel["targets"]
            known = {f"Value #{target['refId']}" for target in queries}.union(*(grouped(t["expr"]) for t in queries))
            [organize] = [t["options"] for t in panel["transformations"] if t["id"] == "organize"]
            assert organize["renameByName"].keys() <= known | facts, panel["title"]


@each_dashboard
def test_a_dashboard_is_complete(name: str) -> None:
    dashboard = dashboards()[name]
    assert dashboard["uid"] == Path(name).stem
    variables = [variable["name"] for variable in dashboard["templating"]["list"]]
    assert variables == ["datasource", "group", "topic", "instance"]
    assert [mark["name"] for mark in dashboard["annotations"]["list"]] == ["Model loaded", "Version passed its gates"]
    ids = [panel["id"] for panel in panels(dashboard)]
    assert len(ids) == len(set(ids))
    for panel in panels(dashboard):
        assert panel["title"]
        if panel["type"] != "row":
            assert panel["description"], panel["title"]
            assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}
            refs = [target["refId"] for target in panel["targets"]]
            assert len(refs) == len(set(refs)), panel["title"]


@each_dashboard
def test_panels_do_not_overlap(name: str) -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in panels(dashboards()[name]):
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, f"{panel['title']} lies on {taken[x, y]}"
                taken[x, y] = panel["title"]


@each_dashboard
def test_every_placeholder_is_a_variable(name: str) -> None:
    """$W and its like belong to the code and are filled in."""
    text = json.dumps(dashboards()[name]["panels"]) + json.dumps(dashboards()[name]["annotations"])
    used = set(re.findall(r"\$\{?(\w+)", text))
    assert used <= {"datasource", "group", "topic", "instance", "__rate_interval"}


def test_the_scores_threshold_is_an_edge_of_the_histogram() -> None:
    """The share of anomalous readings is read at le="1.0": without that edge the panel would be empty."""
    metrics = Metrics()
    metrics._score.labels("v1").observe(0.5)
    samples = [sample for family in metrics.registry.collect() for sample in family.samples]
    edges = {sample.labels["le"] for sample in samples if sample.name == "zmu_anomaly_score_bucket"}
    assert "1.0" in edges
    assert any('le="1.0"' in expression for _, expression in asked())


def test_every_expression_is_promql(tmp_path: Path) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool (Debian's package prometheus) is not installed")
    rules = [
        {"record": f"panel:{number}", "expr": as_grafana_asks(expression)}
        for number, (_, expression) in enumerate(asked())
    ]
    file = tmp_path / "rules.json"                   # JSON is YAML
    file.write_text(json.dumps({"groups": [{"name": "dashboards", "rules": rules}]}))
    checked = subprocess.run(["promtool", "check", "rules", str(file)], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@each_dashboard
def test_grafanas_own_types_read_it(name: str) -> None:
    """By Grafana's foundation SDK: what its types do not know would get lost on the way through them."""
    missing = "grafana-foundation-sdk is not installed"
    dashboard = pytest.importorskip("grafana_foundation_sdk.models.dashboard", reason=missing)
    cog = pytest.importorskip("grafana_foundation_sdk.cog.encoder", reason=missing)
    given = dashboards()[name]
    read = dashboard.Dashboard.from_json(json.loads(json.dumps(given)))
    written: dict[str, Any] = json.loads(cog.JSONEncoder(sort_keys=True).encode(read))
    assert [panel["title"] for panel in written["panels"]] == [panel["title"] for panel in given["panels"]]
    for before, after in zip(given["panels"], written["panels"], strict=True):
        for key in before.keys() - {"panels", "targets"}:
            assert after[key] == before[key], f"{before['title']}: {key}"
