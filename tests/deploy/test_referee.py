"""The demo's verdicts, and what it reads from /metrics."""

from __future__ import annotations

import math
import uuid

import numpy as np
import pytest
from prometheus_client import generate_latest

from deploy.demo.faults import Fault
from deploy.demo.referee import QUIET_MS, Referee
from deploy.demo.view import Scores, culprits
from deploy.demo.vitals import Scraper
from worker.http import HttpServer
from worker.metrics import Metrics
from worker.records import Contribution, Event, ModelRef, Origin, rfc3339
from worker.settings import HttpSettings

NOW_MS = 1_764_000_000_000
CAVITATION = Fault("cavitation", "pump-1", NOW_MS, NOW_MS + 10_000)


def event(entity: str, after_ms: int, score: float = 3.0, blamed: str = "pressure", latency_ms: int = 50) -> Event:
    return Event(
        kind="anomaly",
        event_id=uuid.uuid4(),
        entity=entity,
        timestamp=rfc3339(NOW_MS + after_ms),
        detected_at=rfc3339(NOW_MS + after_ms + latency_ms),
        anomaly_score=score,
        p_value=0.0,
        severity="critical",
        contributions=(Contribution(blamed, 4.0, 2.0, 0.9), Contribution("speed", 1.0, 1.0, 0.04)),
        model=ModelRef("pumps", "1", ""),
        source=Origin("sensor-readings", 0, 0),
    )


@pytest.fixture
def referee() -> Referee:
    referee = Referee()
    referee.expect([CAVITATION])
    return referee


def test_an_anomaly_during_the_fault_catches_it(referee: Referee) -> None:
    alarm = referee.see(event("pump-1", 400))
    (outcome,) = referee.outcomes
    assert alarm.fault is CAVITATION
    assert outcome.verdict(NOW_MS + 500) == "caught"
    assert outcome.delay_seconds == pytest.approx(0.45)
    assert outcome.named
    assert referee.false_alarms == []


def test_the_first_anomaly_sets_the_delay_and_the_highest_the_blame(referee: Referee) -> None:
    referee.see(event("pump-1", 400, score=2.0, blamed="pressure"))
    referee.see(event("pump-1", 500, score=9.0, blamed="temperature"))
    referee.see(event("pump-1", 600, score=4.0, blamed="flow"))
    (outcome,) = referee.outcomes
    (alarm,) = referee.alarms
    assert outcome.delay_seconds == pytest.approx(0.45)
    assert outcome.named is False
    assert alarm.readings == 3
    assert alarm.peak.anomaly_score == 9.0


@pytest.mark.parametrize(("entity", "after_ms"), [("pump-2", 400), ("pump-1", -10), ("pump-1", 10_000 + 5_001)])
def test_an_anomaly_elsewhere_is_a_false_alarm(referee: Referee, entity: str, after_ms: int) -> None:
    alarm = referee.see(event(entity, after_ms))
    assert referee.false_alarms == [alarm]
    assert referee.outcomes[0].delay_seconds is None


def test_an_anomaly_just_after_the_fault_is_neither_catch_nor_false(referee: Referee) -> None:
    referee.see(event("pump-1", 10_000))
    assert referee.false_alarms == []
    assert referee.outcomes[0].verdict(NOW_MS + 10_001) == "watching"
    assert referee.outcomes[0].verdict(NOW_MS + 20_000) == "missed"


def test_a_pause_begins_a_new_alarm(referee: Referee) -> None:
    for after_ms in (0, QUIET_MS, 2 * QUIET_MS + 1):
        referee.see(event("pump-1", after_ms))
    assert [alarm.readings for alarm in referee.alarms] == [2, 1]


def test_a_drop_out_without_anomaly_is_not_missed() -> None:
    referee = Referee()
    referee.expect([Fault("dropout", "pump-1", NOW_MS, NOW_MS + 1000, "flow")])
    (outcome,) = referee.outcomes
    assert [outcome.verdict(NOW_MS + after) for after in (-1, 0, 20_000)] == ["coming", "watching", "tolerated"]


def test_a_machine_is_normal_again_when_its_anomalies_end() -> None:
    scores = Scores()
    scores.note("pump-1", NOW_MS, 3.0)
    scores.note("pump-1", NOW_MS + 100, 2.0)
    assert scores.now("pump-1", NOW_MS + 200) == 2.0
    assert scores.now("pump-1", NOW_MS + 5000) is None
    assert scores.now("pump-2", NOW_MS) is None
    assert scores.last("pump-1", NOW_MS + 1000, 3) == [None, 3.0, None]


def test_small_shares_blame_nobody() -> None:
    assert culprits(event("pump-1", 0), 3) == ["pressure 90%: 4, not 2"]


def test_vitals_are_what_the_worker_s_own_metrics_say() -> None:
    metrics = Metrics()
    metrics.assigned("sensor-readings", [0, 1], 2)
    metrics.lag("sensor-readings", 0, 5, 0.1)
    metrics.lag("sensor-readings", 1, 7, 0.1)
    metrics.anomalies_found({"warning": 2, "critical": 1})
    metrics.model_loaded("pumps", "v7", "abc", "vae", 1.0, 0.01, "cpu")
    now = iter([10.0, 12.0])
    server = HttpServer(HttpSettings(host="127.0.0.1", port=0), metrics.registry, _yes, _yes)
    try:
        scraper = Scraper(f"http://127.0.0.1:{server.port}/metrics", lambda: next(now))
        assert scraper.look().scored == 0
        assert math.isnan(scraper.last.score_p50)
        metrics.batch_scored("v7", np.linspace(0.0, 1.0, 500), warming=0)
        vitals = scraper.look()
    finally:
        server.close()
    assert scraper.answers
    assert (vitals.scored, vitals.readings_per_second, vitals.lag_records) == (500, 250, 12)
    assert (vitals.anomalies, vitals.model) == (3, "v7")
    assert vitals.score_p50 == pytest.approx(0.5, abs=0.05)
    assert vitals.score_p99 == pytest.approx(0.99, abs=0.05)


def test_a_worker_that_does_not_answer_leaves_the_last_vitals() -> None:
    scraper = Scraper("http://127.0.0.1:9/metrics", lambda: 0.0)
    assert scraper.look() is scraper.last
    assert not scraper.answers


def test_every_metric_that_the_demo_reads_is_exported() -> None:
    exported = generate_latest(Metrics().registry).decode()
    for name in (
        "zmu_records_scored_total", "zmu_consumer_lag_records", "zmu_records_dead_lettered_total",
        "zmu_anomalies_total", "zmu_end_to_end_latency_seconds", "zmu_anomaly_score", "zmu_model_info",
    ):
        assert f"# HELP {name}" in exported, name


def _yes() -> tuple[bool, dict[str, object]]:
    return True, {}
