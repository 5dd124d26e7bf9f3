"""What the dashboards have in common: variables, marks at model changes, links to one another."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from deploy.grafana.panels import SOURCE, Panel, filled, placed


def dashboard(uid: str, title: str, text: str, panels: Iterable[Panel]) -> dict[str, Any]:
    return {
        "uid": uid,
        "title": title,
        "description": text,
        "tags": ["zmu", "kafka", "anomaly-detection"],
        "schemaVersion": 41,
        "version": 1,
        "id": None,
        "editable": True,
        "graphTooltip": 1,
        "timezone": "browser",
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "links": [
            {
                "type": "dashboards", "title": "zmu", "tags": ["zmu"], "asDropdown": False, "includeVars": True,
                "keepTime": True, "targetBlank": False, "icon": "external link", "tooltip": "", "url": "",
            }
        ],
        "fiscalYearStartMonth": 0,
        "weekStart": "",
        "preload": False,
        "liveNow": False,
        "annotations": {"list": [
            _mark("Model loaded", "purple", "zmu_model_loaded_timestamp_seconds{$W} * 1000", "{{instance}}"),
            _mark("Version passed its gates", "green", "zmu_training_last_success_timestamp_seconds * 1000", ""),
        ]},
        "templating": {"list": [
            {
                "name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus",
                "current": {}, "hide": 0, "includeAll": False, "multi": False, "options": [], "refresh": 1,
                "regex": "", "skipUrlSync": False,
            },
            _variable("group", "Group", "zmu_assigned_partitions"),
            _variable("topic", "Topic", "zmu_records_consumed_total"),
            _variable("instance", "Worker", 'zmu_assigned_partitions{group=~"$group"}'),
        ]},
        "panels": placed(panels),
    }  # fmt: skip


def _mark(name: str, colour: str, expr: str, text: str) -> dict[str, Any]:
    """A line at the time that is the series' value."""
    return {
        "name": name,
        "enable": True,
        "hide": False,
        "iconColor": colour,
        "datasource": SOURCE,
        "expr": f"{filled(expr)} > 0",
        "useValueForTime": True,
        "step": "60s",
        "titleFormat": name,
        "textFormat": text,
        "tagKeys": "instance",
    }


def _variable(name: str, label: str, series: str) -> dict[str, Any]:
    query = f"label_values({series}, {name})"
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": name},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "current": {"text": "All", "value": "$__all"},
        "hide": 0,
        "options": [],
        "regex": "",
        "skipUrlSync": False,
    }
