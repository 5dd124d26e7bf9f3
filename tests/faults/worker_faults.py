"""Faults of the worker: killed, stopped and continued, told to leave, stuck."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Iterator
from signal import SIGCONT

from deploy.demo.broker import EmbeddedBroker
from tests.faults.hooks import AT_LEAST_ONCE_POINTS, EXACTLY_ONCE_POINTS, Hook, at_random
from tests.faults.site import Site
from tests.faults.table import Tried
from tests.programs import until

# Where it is stopped, and how long it rests when it wakes.
ZOMBIES = {
    "at-least-once": (("polled", 1.5), ("acknowledged", 0.0), ("sending", 0.0), ("rows sent", 0.0)),
    "exactly-once": (("polled", 1.5), ("committing", 0.0), ("offsets sent", 0.0), ("sending", 1.5), ("rows sent", 0.0)),
}


def each(hooks: Iterator[Hook]) -> Callable[[], Hook]:
    return lambda: next(hooks)


def points(delivery: str) -> tuple[str, ...]:
    return AT_LEAST_ONCE_POINTS if delivery == "at-least-once" else EXACTLY_ONCE_POINTS


def killed(broker: EmbeddedBroker, delivery: str, times: int) -> Iterator[Tried]:
    """kill -9 at each named point, each so many times."""
    for point in points(delivery):
        with Site(broker, delivery) as site:
            died = 0
            while died < times:
                site.send(150)
                died += site.drain(each(Hook(point, nth=nth) for nth in itertools.cycle((2, 1, 3))), times - died).died
            drained = site.drain()
            yield Tried.judged(f"worker killed -9: {point}", delivery, died, site.verdict(), drained.seconds)


def killed_at_random(broker: EmbeddedBroker, delivery: str, times: int) -> Iterator[Tried]:
    chance = random.Random(times)
    with Site(broker, delivery) as site:
        died = 0
        while died < times:
            site.send(300)
            died += site.drain(at_random(points(delivery), chance), times - died).died
        drained = site.drain()
        yield Tried.judged("worker killed -9: anywhere", delivery, died, site.verdict(), drained.seconds)


def zombie(broker: EmbeddedBroker, delivery: str, times: int) -> Iterator[Tried]:
    """Stopped past its session, while another takes its partitions; then it wakes."""
    for point, pause_seconds in ZOMBIES[delivery][: 2 * times - 1]:
        with Site(broker, delivery) as site:
            site.send(200)
            with site.worker(Hook(point, "SIGSTOP", 2, pause_seconds)) as stopped:
                until(stopped.stopped, 60, lambda: stopped.log)
                site.send(200)
                with site.worker() as heir:
                    seconds = site.done(otherwise=lambda: heir.log)
                    stopped.signal(SIGCONT)
                    until(lambda: stopped.log.count('"event": "partitions assigned"') == 2, 60, lambda: stopped.log)
                    site.send(400)
                    site.done(otherwise=lambda: heir.log + stopped.log)
                    assert stopped.code is None, stopped.log
                    assert heir.stop() == 0, heir.log
                assert stopped.stop() == 0, stopped.log
            site.drain()
            yield Tried.judged(f"worker stopped, then continued: {point}", delivery, 1, site.verdict(), seconds)


def told_to_leave(broker: EmbeddedBroker, delivery: str, times: int) -> Iterator[Tried]:
    """SIGTERM in the middle of a batch: it ends with 0, and the next start repeats nothing."""
    with Site(broker, delivery) as site:
        asked = [point for point in points(delivery) if point not in ("assigned", "state loaded")][:times]
        for point in asked:
            site.send(150)
            with site.worker(Hook(point, "SIGTERM")) as worker:
                assert worker.wait() == 0, worker.log
        drained = site.drain()
        verdict = site.verdict()
        assert not verdict.repeated, verdict
        yield Tried.judged("SIGTERM in mid-batch", delivery, len(asked), verdict, drained.seconds)


def stuck(broker: EmbeddedBroker, delivery: str, times: int) -> Iterator[Tried]:
    """The watchdog ends a process that will do nothing more, and says why in the last line."""
    ways = ("spin", "still", "hang") if delivery == "at-least-once" else ("spin", "still")
    for how in ways[:times]:
        with Site(broker, delivery) as site:
            site.send(100)
            environment = {"ZMU_KAFKA__REQUEST_TIMEOUT_MS": "600", "ZMU_WATCHDOG_SECONDS": "11.8"}
            with site.worker(Hook("", how), **environment) as worker:
                assert worker.wait() == 1, worker.log
                last = worker.log.splitlines()[-1]
                assert '"event": "stuck: the worker ends, to be started again"' in last, worker.log
                assert "hooks.py" in json.loads(last)["at"]
            drained = site.drain()
            yield Tried.judged(f"loop is stuck: {how}", delivery, 1, site.verdict(), drained.seconds)
