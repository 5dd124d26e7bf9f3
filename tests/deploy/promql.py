"""What deploy/ asks of Prometheus, and what the programs serve."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from prometheus_client import CollectorRegistry

from training.metrics import Metrics as TrainingMetrics
from worker.metrics import Metrics as WorkerMetrics

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARDS = DEPLOY / "grafana" / "dashboards"
RULES = DEPLOY / "prometheus" / "rules"
SCRAPE_LABELS = {"job", "instance", "group"}        # given by prometheus.yml, not by the programs


class Alert(NamedTuple):
    name: str
    expr: str
    labels: dict[str, str]
    annotations: dict[str, str]
    file: str


def rules() -> list[dict[str, Any]]:
    """Alerts and recordings, in order; each with the name of its file."""
    return [
        rule | {"file": path.name}
        for path in sorted(RULES.glob("*.yml"))
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
    ]


def alerts() -> list[Alert]:
    return [
        Alert(rule["alert"], rule["expr"], rule["labels"], rule["annotations"], rule["file"])
        for rule in rules()
        if "alert" in rule
    ]


def dashboards() -> dict[str, dict[str, Any]]:
    return {path.name: json.loads(path.read_text()) for path in sorted(DASHBOARDS.glob("*.json"))}


def panels(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for panel in dashboard["panels"]:
        yield panel
        yield from panel.get("panels", ())


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


def selectors(expression: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Each series of the programs that an expression reads, with the values it selects by, by label."""
    for name, selector in re.findall(r"\b((?:zmu|process|python)_\w+)(\{[^}]*\})?", expression):
        yield name, dict(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"([^\"]*)\"", selector))


def grouped(expression: str) -> set[str]:
    """Labels that an expression groups or joins by."""
    found = re.findall(r"\b(?:by|on) \(([^)]*)\)", expression)
    return {label for labels in found for label in labels.split(", ")}


def asked() -> list[tuple[str, str]]:
    """(where, expression) of every panel, annotation and variable."""
    found = []
    for file, dashboard in dashboards().items():
        for panel in panels(dashboard):
            for target in panel.get("targets", ()):
                found.append((f"{file}: {panel['title']} {target['refId']}", target["expr"]))
        for annotation in dashboard["annotations"]["list"]:
            if "expr" in annotation:
                found.append((f"{file}: {annotation['name']}", annotation["expr"]))
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query":
                series = re.sub(r"^label_values\((.*), (\w+)\)$", r"\1", variable["definition"])
                found.append((f"{file}: variable {variable['name']}", series))
    return found
