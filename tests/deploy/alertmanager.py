"""A real Alertmanager (Debian's package) by deploy/prometheus/alertmanager.yml, and a receiver that it tells."""

from __future__ import annotations

import json
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.promql import DEPLOY
from tests.deploy.serving import Serving

EXAMPLE = DEPLOY / "prometheus" / "alertmanager.yml"


class Receiver:
    """Takes the webhooks of every receiver of the example. A context manager."""

    def __init__(self) -> None:
        self._told: list[dict[str, Any]] = []
        told = self._told

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def __enter__(self) -> Receiver:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/"

    def told(self, receiver: str) -> dict[tuple[str, str], dict[str, Any]]:
        """Alerts that reached a receiver, by name and status (firing, resolved)."""
        return {
            (alert["labels"]["alertname"], alert["status"]): alert
            for message in list(self._told)
            if message["receiver"] == receiver
            for alert in message["alerts"]
        }


class Alertmanager(Serving):
    """hook: the address that all receivers tell, at once; without one, the example as it is."""

    PROGRAM = "prometheus-alertmanager"

    def __init__(self, folder: Path, hook: str | None = None) -> None:
        super().__init__(folder)
        self._config = EXAMPLE
        if hook is not None:
            self._config = folder / "alertmanager.json"                     # JSON is YAML
            self._config.write_text(json.dumps(_in_a_hurry(hook)))

    def _arguments(self) -> list[str]:
        return [f"--config.file={self._config}", f"--storage.path={self._folder}", "--cluster.listen-address="]

    def alerts(self) -> list[dict[str, Any]]:
        """Those that are not resolved, each with its status. Raises OSError."""
        with urllib.request.urlopen(f"http://{self.address}/api/v2/alerts", timeout=5) as answer:
            found: list[dict[str, Any]] = json.load(answer)
            return found


def _in_a_hurry(hook: str) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(EXAMPLE.read_text())
    for route in (config["route"], *config["route"]["routes"]):
        route |= {"group_wait": "500ms", "group_interval": "500ms"}
    for receiver in config["receivers"]:
        receiver["webhook_configs"] = [{"url": hook}]
    return config
