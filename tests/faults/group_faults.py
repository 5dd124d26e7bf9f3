"""Faults of the group and of the topic: members come and go, partitions are added, offsets expire."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Iterator
from signal import SIGKILL, SIGTERM

from kafka import TopicPartition

from deploy.demo.broker import EmbeddedBroker
from tests.faults.site import Site
from tests.faults.table import Tried
from tests.faults.workers import Worker
from tests.programs import until


def storm(broker: EmbeddedBroker, delivery: str, times: int) -> Iterator[Tried]:
    return _storm(broker, delivery, times, "range")


def storm_cooperative(broker: EmbeddedBroker, delivery: str, times: int) -> Iterator[Tried]:
    return _storm(broker, delivery, times, "cooperative-sticky")


def _storm(broker: EmbeddedBroker, delivery: str, times: int, assignor: str) -> Iterator[Tried]:
    """Three workers; one after the other leaves, in order or not, and another joins, while readings come."""
    chance = random.Random(11)
    with Site(broker, delivery) as site, contextlib.ExitStack() as leaving:
        site.environment["ZMU_INPUT__ASSIGNOR"] = assignor
        workers = [leaving.enter_context(site.worker()) for _ in range(3)]
        for _ in range(times):
            site.send(200)
            time.sleep(chance.uniform(0, 1.0))
            gone = workers.pop(chance.randrange(3))
            gone.says('"event": "started"')
            how = chance.choice((SIGTERM, SIGKILL))
            assert gone.stop(how) == (0 if how == SIGTERM else -9), gone.log
            workers.append(leaving.enter_context(site.worker()))
        seconds = site.done(otherwise=lambda: _logs(workers))
        for worker in workers:
            worker.says('"event": "started"')
        assert [worker.stop() for worker in workers] == [0, 0, 0], _logs(workers)
        yield Tried.judged(f"rebalance storm, three workers, {assignor}", delivery, times, site.verdict(), seconds)


def _logs(workers: list[Worker]) -> str:
    return "\n".join(worker.log for worker in workers)


def partitions_added(broker: EmbeddedBroker, delivery: str, times: int) -> Iterator[Tried]:
    """What is written to them before anyone has seen them is read too."""
    with Site(broker, delivery) as site:
        environment = {"ZMU_KAFKA__METADATA_MAX_AGE_MS": "1000", "ZMU_INPUT__START": "latest"}
        with site.worker(**environment) as worker:
            worker.says('"event": "partitions assigned"')
            site.send(200)
            seconds = 0.0
            for _ in range(times):
                site.partitions += 2
                with site.admin() as admin:
                    admin.create_partitions({site.topics["input"]: site.partitions})
                until(site.grown, 30)
                site.send(200)
                seconds = max(seconds, site.done(otherwise=lambda: worker.log))
            assert worker.stop() == 0, worker.log
        yield Tried.judged("partitions added", delivery, times, site.verdict(), seconds)


def expired(broker: EmbeddedBroker, delivery: str, times: int) -> Iterator[Tried]:
    """Readings deleted before they were read: the policy decides, a warning says which, and what is left is done."""
    with Site(broker, delivery) as site:
        site.send(300)
        site.drain()
        site.send(600)
        with site.admin() as admin:
            admin.delete_records({TopicPartition(site.topics["input"], p): 150 for p in range(site.partitions)})
        seen = len(site.read("output")) + len(site.read("dead"))
        with site.worker(until_drained=True) as worker:
            assert worker.wait() == 0, worker.log
            assert "offsets expired" in worker.log, worker.log
        assert site.committed() == site.sent
        verdict = site.verdict()
        # What was found in readings that are there no more is right all the same.
        assert len(verdict.wrong) == seen, verdict
        yield Tried("offsets expired", delivery, 1, verdict.lost, verdict.repeated, 0, None)
