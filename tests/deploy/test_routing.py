"""What is wrong with a worker reaches people: a real Prometheus notices it, a real Alertmanager tells the receivers.

By deploy/prometheus/ as it is, but for its pauses, its addresses, and the receivers that it leaves to be filled in.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.alertmanager import Alertmanager, Receiver
from tests.deploy.prometheus import Prometheus
from tests.programs import until
from worker.errors import ModelError
from worker.http import HttpServer
from worker.metrics import Metrics
from worker.settings import HttpSettings

pytestmark = [
    pytest.mark.skipif(not Prometheus.there(), reason="prometheus (Debian's package) is not installed"),
    pytest.mark.skipif(not Alertmanager.there(), reason="prometheus-alertmanager (Debian's package) is not installed"),
]


class Worker:
    """What a worker serves, without the worker."""

    def __init__(self) -> None:
        self.ready = False
        self.metrics = Metrics()
        self.metrics.ready_by(lambda: self.ready)
        settings = HttpSettings(host="127.0.0.1", port=0)
        self._server = HttpServer(settings, self.metrics.registry, lambda: (True, {}), lambda: (self.ready, {}))
        self.address = f"127.0.0.1:{self._server.port}"

    def close(self) -> None:
        self._server.close()


@pytest.fixture
def worker() -> Iterator[Worker]:
    with contextlib.closing(Worker()) as made:
        yield made


def test_a_firing_alert_reaches_whom_it_concerns(worker: Worker, tmp_path: Path) -> None:
    worker.metrics.model_refused(ModelError("of other features"), kept="v1")
    with contextlib.ExitStack() as stack:
        receiver = stack.enter_context(Receiver())
        alertmanager = stack.enter_context(Alertmanager(tmp_path, receiver.url))
        prometheus = stack.enter_context(Prometheus(tmp_path, {"zmu-worker": worker.address}, alertmanager.address))

        def told() -> str:
            states = {rule["name"]: rule["state"] for rule in prometheus.rules() if "state" in rule}
            return f"{receiver.told('pages')}\n{receiver.told('tickets')}\n{states}\n{alertmanager.alerts()}"

        until(lambda: ("ZmuNotReady", "firing") in receiver.told("pages"), 30, told)
        until(lambda: ("ZmuModelRefused", "firing") in receiver.told("tickets"), 30, told)
        page = receiver.told("pages")["ZmuNotReady", "firing"]
        labels = {"group": "zmu-worker", "instance": worker.address, "severity": "page"}
        assert labels.items() <= page["labels"].items()
        assert page["annotations"]["summary"] == f"{worker.address} is not ready"
        assert page["annotations"]["runbook_url"].endswith("#zmunotready")

        worker.ready = True
        until(lambda: ("ZmuNotReady", "resolved") in receiver.told("pages"), 30, told)

        # What follows from another alert is not told as well.
        worker.close()
        until(lambda: ("ZmuWorkersGone", "firing") in receiver.told("pages"), 30, told)
        until(lambda: _suppressed(alertmanager) == {"ZmuWorkerDown"}, 30, told)
        assert {name for name, _ in receiver.told("pages")} == {"ZmuNotReady", "ZmuWorkersGone"}


def _suppressed(alertmanager: Alertmanager) -> set[str]:
    return {a["labels"]["alertname"] for a in alertmanager.alerts() if a["status"]["state"] == "suppressed"}
