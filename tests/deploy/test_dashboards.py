"""The dashboards ask for what the programs serve: every metric and label exists, every expression is PromQL."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from training.metrics import Metrics as TrainingMetrics
from worker.metrics import Metrics as WorkerMetrics

FOLDER = Path(__file__).parents[2] / "deploy" / "grafana" / "dashboards"
SCRAPE_LABELS = {"job", "instance", "group"}        # given by prometheus.yml, not by the programs


def dashboards() -> dict[str, dict[str, Any]]:
    return {path.name: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}


def panels(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for panel in dashboard["panels"]:
        yield panel
        yield from panel.get("panels", ())


def expressions() -> list[str]:
    found = []
    for dashboard in dashboards().values():
        found += [target["expr"] for panel in panels(dashboard) for target in panel.get("targets", ())]
        found += [a["expr"] for a in dashboard["annotations"]["list"] if "expr" in a]
        found += [
            re.sub(r"^label_values\((.*), (\w+)\)$", r"\1", variable["definition"])
            for variable in dashboard["templating"]["list"]
            if variable["type"] == "query"
        ]
    return found


def served() -> dict[str, set[str]]:
    """Labels by the name of every series that worker and training can serve."""
    return _series(WorkerMetrics().registry) | _series(TrainingMetrics().registry)


def _series(registry: CollectorRegistry) -> dict[str, set[str]]:
    suffixes = {"counter": ("_total",), "info": ("_info",), "histogram": ("_bucket", "_sum", "_count")}
    found: dict[str, set[str]] = {}
    for collector in registry._collector_to_names:
        labels = {str(name) for name in getattr(collector, "_labelnames", ())}
        for family in collector.collect():
            labels |= {str(name) for sample in family.samples for name in sample.labels}
            for suffix in suffixes.get(family.type, ("",)):
                extra = {"le"} if suffix == "_bucket" else set()
                found[family.name + suffix] = labels - {"le"} | extra
    return found


def uses(expression: str) -> Iterator[tuple[str, set[str]]]:
    """Each series that an expression reads, and the labels it selects by."""
    for name, selector in re.findall(r"\b((?:zmu|process|python)_\w+)(\{[^}]*\})?", expression):
        yield name, set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", selector))


@pytest.mark.parametrize("expression", expressions())
def test_series_and_labels_exist(expression: str) -> None:
    series = served()
    read = list(uses(expression))
    assert read
    grouped = {label for labels in re.findall(r"by \(([^)]*)\)", expression) for label in labels.split(", ")}
    for name, selected in read:
        assert name in series, f"{name} is served by neither program"
        if name == "zmu_model_info":
            continue                                 # its labels are the model's facts, set when one is loaded
        assert selected | grouped <= series[name] | SCRAPE_LABELS, name


@pytest.mark.parametrize("name", list(dashboards()))
def test_legends_name_labels_that_the_query_keeps(name: str) -> None:
    for panel in panels(dashboards()[name]):
        for target in panel.get("targets", ()):
            wanted = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            grouping = re.search(r"by \(([^)]*)\)", target["expr"])
            if grouping:
                assert wanted <= set(grouping[1].split(", ")), panel["title"]
            else:
                assert wanted <= SCRAPE_LABELS, panel["title"]


@pytest.mark.parametrize("name", list(dashboards()))
def test_a_dashboard_is_complete(name: str) -> None:
    dashboard = dashboards()[name]
    assert dashboard["uid"] == Path(name).stem
    variables = [variable["name"] for variable in dashboard["templating"]["list"]]
    assert variables == ["datasource", "group", "topic", "instance"]
    ids = [panel["id"] for panel in panels(dashboard)]
    assert len(ids) == len(set(ids))
    for panel in panels(dashboard):
        assert panel["title"]
        if panel["type"] != "row":
            assert panel["description"], panel["title"]
            assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}
            refs = [target["refId"] for target in panel["targets"]]
            assert len(refs) == len(set(refs)), panel["title"]


@pytest.mark.parametrize("name", list(dashboards()))
def test_panels_do_not_overlap(name: str) -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in panels(dashboards()[name]):
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, f"{panel['title']} lies on {taken[x, y]}"
                taken[x, y] = panel["title"]


def test_the_scores_threshold_is_an_edge_of_the_histogram() -> None:
    """The share of anomalous readings is read at le="1.0": without that edge the panel would be empty."""
    metrics = WorkerMetrics()
    metrics._score.labels("v1").observe(0.5)
    samples = [sample for family in metrics.registry.collect() for sample in family.samples]
    edges = {sample.labels["le"] for sample in samples if sample.name == "zmu_anomaly_score_bucket"}
    assert "1.0" in edges
    assert any('le="1.0"' in expression for expression in expressions())


def test_every_expression_is_promql(tmp_path: Path) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool (Debian's package prometheus) is not installed")
    rules = [
        {"record": f"panel:{number}", "expr": re.sub(r"\$\w+", ".*", expression.replace("$__rate_interval", "1m"))}
        for number, expression in enumerate(expressions())
    ]
    file = tmp_path / "rules.json"                   # JSON is YAML
    file.write_text(json.dumps({"groups": [{"name": "dashboards", "rules": rules}]}))
    checked = subprocess.run(["promtool", "check", "rules", str(file)], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
