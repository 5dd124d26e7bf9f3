"""docs/security.md's scrape configuration, taken by a real Prometheus, against /metrics behind TLS and a password."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.demo.ports import free_port
from tests.certificates import Authority
from tests.documents import ROOT, blocks
from tests.programs import until
from worker.http import HttpServer
from worker.metrics import Metrics
from worker.settings import HttpSettings

PASSWORD = "only-prometheus-knows"


def documented() -> list[dict[str, Any]]:
    (block,) = (block for block in blocks(ROOT / "docs/security.md") if block.language == "yaml")
    found: list[dict[str, Any]] = yaml.safe_load(block.text)
    return found


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus (Debian's package) is not installed")
def test_prometheus_scrapes_by_the_documented_configuration(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pem = authority.sign("metrics", "DNS:localhost")
    (tmp_path / "password").write_text(PASSWORD)
    settings = HttpSettings(
        host="127.0.0.1", port=0, ssl_certfile=pem.with_suffix(".crt"), ssl_keyfile=pem.with_suffix(".key"),
        username="prometheus", password_file=tmp_path / "password",
    )
    server = HttpServer(settings, Metrics().registry, lambda: (True, {}), lambda: (True, {}))
    text = json.dumps({"global": {"scrape_interval": "500ms"}, "scrape_configs": documented()})
    for theirs, ours in {
        "/etc/prometheus/zmu-ca.crt": str(authority.certificate),
        "/etc/prometheus/zmu-password": str(tmp_path / "password"),
        "localhost:9108": f"localhost:{server.port}",
    }.items():
        assert theirs in text
        text = text.replace(theirs, ours)
    (tmp_path / "prometheus.json").write_text(text)
    address = f"127.0.0.1:{free_port()}"
    command = ["prometheus", f"--config.file={tmp_path / 'prometheus.json'}", f"--web.listen-address={address}",
               f"--storage.tsdb.path={tmp_path / 'tsdb'}", "--log.level=warn"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)

    def told() -> list[dict[str, Any]]:
        try:
            with urllib.request.urlopen(f"http://{address}/api/v1/targets", timeout=5) as answer:
                found: list[dict[str, Any]] = json.load(answer)["data"]["activeTargets"]
                return found
        except OSError:
            return []

    try:
        until(lambda: [target["health"] for target in told()] == ["up"], 30, lambda: f"{told()}")
    finally:
        process.terminate()
        process.wait(20)
        server.close()
