"""Faults of the broker: killed, frozen, refusing."""

from __future__ import annotations

import time
from collections.abc import Iterator

from kafka.admin import ConfigResource, ConfigResourceType

from deploy.demo.broker import EmbeddedBroker
from tests.faults.site import Site
from tests.faults.table import Tried
from tests.programs import until

AWAY_SECONDS = 3.0


def killed(broker: EmbeddedBroker, delivery: str, times: int) -> Iterator[Tried]:
    """kill -9, and started again: readiness falls and rises, the process stays, nothing is lost."""
    longest = 0.0
    with Site(broker, delivery) as site, site.worker() as worker:
        worker.ready()
        for _ in range(times):
            site.send(600)
            until(lambda: worker.metric("zmu_records_scored_total") > 0, 60, lambda: worker.log)
            broker.kill()
            until(lambda: worker.get("/readyz")[0] == 503, 30, lambda: worker.log)
            assert worker.get("/healthz")[0] == 200
            time.sleep(AWAY_SECONDS)
            broker.start()
            longest = max(longest, site.done(otherwise=lambda: worker.log))
            worker.ready()
        assert worker.stop() == 0, worker.log
        yield Tried.judged("broker killed -9, and back", delivery, times, site.verdict(), longest)


def frozen(broker: EmbeddedBroker, delivery: str, times: int) -> Iterator[Tried]:
    """It answers nothing for longer than a session, and keeps every connection."""
    longest = 0.0
    with Site(broker, delivery) as site, site.worker() as worker:
        worker.ready()
        for _ in range(times):
            site.send(600)
            until(lambda: worker.metric("zmu_records_scored_total") > 0, 60, lambda: worker.log)
            broker.freeze()
            until(lambda: worker.get("/readyz")[0] == 503, 30, lambda: worker.log)
            time.sleep(AWAY_SECONDS)
            assert worker.get("/healthz")[0] == 200
            broker.thaw()
            longest = max(longest, site.done(otherwise=lambda: worker.log))
        worker.ready()
        assert worker.stop() == 0, worker.log
        yield Tried.judged("broker frozen, and thawed", delivery, times, site.verdict(), longest)


def dead_letters_refused(broker: EmbeddedBroker, delivery: str, times: int) -> Iterator[Tried]:
    """Nothing is committed past what the topic refuses; readiness is no; all goes on when it takes records again."""

    def accept(site: Site, size_bytes: int) -> None:
        configs = {"max.message.bytes": str(size_bytes)}
        with site.admin() as admin:
            admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, site.topics["dead"], configs)])

    longest = 0.0
    with Site(broker, delivery) as site, site.worker() as worker:
        worker.ready()
        for _ in range(times):
            accept(site, 100)     # the records that end a transaction have 78 bytes
            site.send(200)
            until(lambda: worker.get("/readyz")[0] == 503, 60, lambda: worker.log)
            assert worker.get("/healthz")[0] == 200
            assert site.committed() < site.sent
            accept(site, 1_000_000)
            longest = max(longest, site.done(otherwise=lambda: worker.log))
            worker.ready()
        assert worker.stop() == 0, worker.log
        yield Tried.judged("dead-letter topic refuses", delivery, times, site.verdict(), longest)
