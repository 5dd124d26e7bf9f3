"""A real Prometheus (Debian's package) that scrapes programs on this machine by deploy/prometheus/prometheus.yml."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.promql import DEPLOY, RULES
from tests.deploy.serving import Serving

SCRAPE_INTERVAL = "500ms"
# In Grafana they come from the panel's width and the data source; four scrapes are Grafana's own least.
GRAFANA = {"__rate_interval": "4s", "__interval": "4s", "__range": "1m"}


class PromQLError(Exception):
    """What Prometheus says of an expression."""


class Prometheus(Serving):
    """targets: addresses by the name of the job that scrapes them.

    alertmanager: the address of one that is told of alerts, and these do not wait for what they notice to last.
    """

    PROGRAM = "prometheus"

    def __init__(self, folder: Path, targets: Mapping[str, str], alertmanager: str | None = None) -> None:
        super().__init__(folder)
        self._targets, self._alertmanager = targets, alertmanager

    def _arguments(self) -> list[str]:
        config = self._folder / "prometheus.json"                           # JSON is YAML
        config.write_text(json.dumps(self._configuration()))
        return [f"--config.file={config}", f"--storage.tsdb.path={self._folder / 'tsdb'}", "--log.level=warn"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """An instant vector, now. Raises PromQLError."""
        found: list[dict[str, Any]] = self._get("query", query=expression)["result"]
        return found

    def query_range(self, expression: str, start: float, end: float, step: float) -> list[dict[str, Any]]:
        """A matrix; times in epoch seconds. Raises PromQLError."""
        times = {"start": str(start), "end": str(end), "step": str(step)}
        found: list[dict[str, Any]] = self._get("query_range", query=expression, **times)["result"]
        return found

    def rules(self) -> list[dict[str, Any]]:
        """Every rule with its health and, for alerts, its state."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def _configuration(self) -> dict[str, Any]:
        config = _local(self._targets)
        if self._alertmanager is None:
            del config["alerting"]
            return config
        (receiver,) = config["alerting"]["alertmanagers"]
        receiver["static_configs"] = [{"targets": [self._alertmanager]}]
        for path in RULES.glob("*.yml"):
            hurried = re.sub(r"^ +for: .*\n", "", path.read_text(), flags=re.MULTILINE)
            (self._folder / path.name).write_text(hurried)
        config["rule_files"] = [str(self._folder / "*.yml")]
        return config

    def _get(self, path: str, **parameters: str) -> Any:
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=20) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            with error:
                raise PromQLError(json.load(error)["error"]) from None


def as_grafana_asks(expression: str) -> str:
    """With the variables filled in, "All" for those of the dashboard."""
    for name, value in GRAFANA.items():
        expression = expression.replace(f"${name}", value)
    return re.sub(r"\$\w+", ".*", expression)


def _local(targets: Mapping[str, str]) -> dict[str, Any]:
    """deploy/prometheus/prometheus.yml, in a hurry, and with addresses in place of names to look up."""
    config: dict[str, Any] = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
    config["global"] |= {"scrape_interval": SCRAPE_INTERVAL, "scrape_timeout": SCRAPE_INTERVAL}
    config["global"]["evaluation_interval"] = "1s"
    config["rule_files"] = [str(RULES / "*.yml")]
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    for name, address in targets.items():
        del jobs[name]["dns_sd_configs"]
        jobs[name]["static_configs"] = [{"targets": [address]}]
    config["scrape_configs"] = [jobs[name] for name in targets]
    return config
