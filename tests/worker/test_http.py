"""/metrics, /healthz and /readyz over real HTTP."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator

import numpy as np
import pytest

from worker.errors import SettingsError
from worker.heartbeat import Heartbeat
from worker.http import HttpServer
from worker.metrics import Metrics
from worker.settings import HttpSettings


class Answers:
    ready = False


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def server(metrics: Metrics) -> Iterator[HttpServer]:
    server = HttpServer(
        HttpSettings(host="127.0.0.1", port=0),
        metrics.registry,
        lambda: (True, {"age": 1}),
        lambda: (Answers.ready, {"model": "v1"}),
    )
    yield server
    server.close()


def get(server: HttpServer, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_health_and_readiness(server: HttpServer) -> None:
    assert get(server, "/healthz") == (200, '{"ok": true, "age": 1}\n')
    Answers.ready = False
    assert get(server, "/readyz")[0] == 503
    Answers.ready = True
    status, body = get(server, "/readyz")
    assert (status, json.loads(body)) == (200, {"ok": True, "model": "v1"})
    assert get(server, "/")[0] == 404


def test_metrics(server: HttpServer, metrics: Metrics) -> None:
    metrics.batch_scored("v1", np.array([0.5, 1.0, 1.0001, 1e9]), warming=0)
    metrics.assigned("t", [0, 1], 2)
    metrics.lag("t", 0, 5, -3.0)
    metrics.lag("t", 7, 5, 1.0)
    status, text = get(server, "/metrics")
    assert status == 200
    assert 'zmu_anomaly_score_bucket{le="1.0",model_version="v1"} 2.0' in text
    assert 'zmu_anomaly_score_bucket{le="+Inf",model_version="v1"} 4.0' in text
    assert 'zmu_anomaly_score_count{model_version="v1"} 4.0' in text
    assert 'zmu_consumer_time_lag_seconds{partition="0",topic="t"} 0.0' in text
    assert 'partition="7"' not in text                  # not ours: no series
    metrics.revoked("t", [0], 1)
    assert 'partition="0"' not in get(server, "/metrics")[1].replace("zmu_records", "")


def test_many_values_at_once_count_like_one_by_one(metrics: Metrics) -> None:
    values = np.random.default_rng(0).lognormal(0, 2, 1000)
    metrics.batch_scored("at once", values, warming=0)
    other = Metrics()
    for value in values:
        other._score.labels("one by one").observe(value)

    def buckets(source: Metrics) -> list[tuple[str, float]]:
        return [
            (sample.labels.get("le", sample.name), round(sample.value, 6))
            for family in source._score.collect()
            for sample in family.samples
        ]

    assert buckets(metrics) == buckets(other)


def test_a_port_that_is_taken(server: HttpServer, metrics: Metrics) -> None:
    settings = HttpSettings(host="127.0.0.1", port=server.port)
    with pytest.raises(SettingsError, match="ZMU_HTTP__PORT"):
        HttpServer(settings, metrics.registry, lambda: (True, {}), lambda: (True, {}))


def test_the_heart_stops_when_nothing_beats() -> None:
    now = [0.0]
    heartbeat = Heartbeat(10, lambda: now[0])
    now[0] = 9.0
    assert heartbeat.alive
    now[0] = 11.0
    assert not heartbeat.alive
    heartbeat.beat()
    assert heartbeat.alive
