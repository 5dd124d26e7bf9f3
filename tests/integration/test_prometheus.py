"""Dashboards and alerts before a real Prometheus that scrapes a worker and a training at work."""

from __future__ import annotations

import contextlib
import json
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import NewTopic

from tests import factory
from tests.deploy.prometheus import Prometheus, as_grafana_asks
from tests.deploy.promql import asked, rules, selectors
from tests.programs import Program, until, worker_environment
from tests.training import machine

HISTORY = 600
TRAINING = {
    "ZMU_TRAINING__PROFILE": "pointwise",
    "ZMU_TRAINING__EPOCHS": "3",
    "ZMU_TRAINING__MIN_STEPS": "200",
    "ZMU_TRAINING__RIVALS": "false",
    "OMP_NUM_THREADS": "1",
}
# What a query reads that this plant has none of.
ELSEWHERE = {"zmu_transactions_total", "zmu_rollbacks_total"}


class Stream:
    """Readings, twenty at a time: one of them out of range, and junk between them."""

    def __init__(self, producer: KafkaProducer, topic: str) -> None:
        self._producer, self._topic = producer, topic
        self._rows = iter(machine.rows(20_000, seed=1))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def send(self, number: int, first_ms: int, step_ms: int) -> None:
        for i in range(number):
            row = next(self._rows) | {"timestamp": first_ms + i * step_ms}
            if i % 20 == 19 and step_ms < 1000:
                row["pressure"] = 40.0                          # live, not in what training learns from
            self._producer.send(self._topic, key=b"pump-%d" % (i % 12), value=json.dumps(row).encode())
        self._producer.flush(timeout=30)

    def __enter__(self) -> Stream:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.3):
            self.send(20, round(time.time() * 1000) - 200, 10)
            self._producer.send(self._topic, key=b"pump-1", value=b"junk")


@pytest.fixture(scope="module")
def topics(admin: KafkaAdminClient) -> Iterator[dict[str, str]]:
    unique = uuid.uuid4().hex[:10]
    made = {which: f"{which}-{unique}" for which in ("input", "output", "dead")}
    admin.create_topics([NewTopic(name, 4 if which == "input" else 1, 1) for which, name in made.items()])
    admin.wait_for_topics(list(made.values()))
    yield made
    admin.delete_topics(list(made.values()))


@pytest.fixture(scope="module")
def prometheus(broker: str, topics: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """It has scraped both programs at work, and a model that the worker refused."""
    if not Prometheus.there():
        pytest.skip("prometheus (Debian's package prometheus) is not installed")
    folder = tmp_path_factory.mktemp("prometheus")
    with contextlib.ExitStack() as stack:
        producer = stack.enter_context(contextlib.closing(KafkaProducer(bootstrap_servers=broker, acks="all")))
        stream = Stream(producer, topics["input"])
        stream.send(HISTORY, round(time.time() * 1000) - 1000 * HISTORY, 1000)
        environment = _environment(broker, folder / "models", topics)
        training = stack.enter_context(Program("training", "schedule", "--every", "6h", **environment, **TRAINING))
        worker = stack.enter_context(Program("worker", "run", **environment))
        targets = {"zmu-worker": f"127.0.0.1:{worker.port}", "zmu-training": f"127.0.0.1:{training.port}"}
        prometheus = stack.enter_context(Prometheus(folder, targets))
        worker.ready()
        stack.enter_context(stream)
        factory.publish(folder / "models", "of-other-sensors")
        until(lambda: worker.metric('zmu_model_reloads_total{result="refused"}') > 0, 20, lambda: worker.stderr)
        yield prometheus


def _environment(broker: str, registry: Path, topics: Mapping[str, str]) -> dict[str, str]:
    return worker_environment(broker, registry, topics) | {
        "ZMU_MODEL__WAIT_SECONDS": "100",
        "ZMU_STATE__SNAPSHOT_SECONDS": "1",
        "ZMU_QUALITY__LIMITS": '{"pressure": [0, 16]}',
    }


def test_every_query_of_every_panel_returns_data(prometheus: Prometheus) -> None:
    """Also those of variables and of annotations."""
    missing = {where: expression for where, expression in asked() if not _elsewhere(expression)}
    assert missing

    def all_there() -> bool:
        for where, expression in list(missing.items()):
            if prometheus.query(as_grafana_asks(expression)):
                del missing[where]
        return not missing

    until(all_there, 30, lambda: "\n".join(f"no data: {where}: {expression}" for where, expression in missing.items()))


def test_every_query_is_understood(prometheus: Prometheus) -> None:
    for _, expression in asked():
        prometheus.query(as_grafana_asks(expression))


def test_every_rule_is_evaluated(prometheus: Prometheus) -> None:
    """By Prometheus itself, its annotations filled in where it has something to say."""
    until(lambda: all(rule["health"] != "unknown" for rule in prometheus.rules()), 20)
    found = prometheus.rules()
    assert [rule["name"] for rule in found] == [rule.get("alert") or rule["record"] for rule in rules()]
    assert {rule["name"]: rule.get("lastError") for rule in found if rule["health"] != "ok"} == {}


def test_alerts_notice_what_is_wrong_with_this_plant(prometheus: Prometheus) -> None:
    """5 % junk, 5 % anomalies, a model of other sensors; and all else is well."""

    def noticed() -> dict[str, str]:
        states = {rule["name"]: rule.get("state", "inactive") for rule in prometheus.rules()}
        return {name: state for name, state in states.items() if state != "inactive"}

    wrong = {"ZmuModelRefused": "firing", "ZmuDeadLetters": "pending", "ZmuAlarmsOverBudget": "pending"}
    until(lambda: wrong.items() <= noticed().items(), 30, lambda: str(noticed()))
    # The history that training learnt from is scored too, and is old; what is out of range is drift as well.
    assert noticed().keys() - wrong.keys() <= {"ZmuLatencyBudgetBurning", "ZmuLatencyBudgetLeaking", "ZmuDrift"}


def test_series_that_alerts_read_are_there(prometheus: Prometheus) -> None:
    """By name: an alert on a series that is never scraped would rest for ever."""
    names = {name for rule in rules() for name, _ in selectors(rule["expr"])} - ELSEWHERE
    assert {name for name in names if not prometheus.query(name)} == set()


def _elsewhere(expression: str) -> bool:
    return any(name in ELSEWHERE for name, _ in selectors(expression))
