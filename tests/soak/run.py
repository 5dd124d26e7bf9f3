"""One run: a paced load, a worker that is watched, another that comes and goes, models that change, poison."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from signal import SIGKILL, SIGTERM

from kafka import KafkaConsumer, TopicPartition

from deploy.demo.broker import EmbeddedBroker
from tests import factory
from tests.faults.oracle import place
from tests.faults.site import QUICK, Site
from tests.faults.workers import Worker
from tests.programs import until
from tests.soak.figures import MB, Figures, Sample, of_samples, sample
from tests.soak.load import Load
from worker.models.registry import Registry

PARTITIONS = 6
SAMPLE_SECONDS = 2.0
WORKER = {
    "ZMU_BATCH__MAX_RECORDS": "1000", "ZMU_STATE__SNAPSHOT_SECONDS": "5", "ZMU_KAFKA__SESSION_TIMEOUT_MS": "6000",
    "ZMU_OUTPUT__TRANSACTION_TIMEOUT_MS": "10000", "ZMU_MODEL__RELOAD_SECONDS": "2",
}


class Reader:
    """A subscriber of committed records: how often each event and each dead letter came. A context manager."""

    def __init__(self, servers: str, topic: str, name: Callable[[object], str]) -> None:
        self.found: Counter[str] = Counter()
        self._name = name
        self._consumer = KafkaConsumer(
            bootstrap_servers=servers, isolation_level="read_committed", enable_auto_commit=False,
            auto_offset_reset="earliest",
        )
        self._tp = TopicPartition(topic, 0)
        self._consumer.assign([self._tp])
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, name="reader")

    def __enter__(self) -> Reader:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._consumer.close()

    def _read(self) -> None:
        while not self._stop.is_set():
            for records in self._consumer.poll(timeout_ms=200).values():
                self.found.update(map(self._name, records))

    @property
    def repeated(self) -> int:
        return self.found.total() - len(self.found)


class Unrest:
    """A second worker that comes and goes, by SIGTERM and by kill -9, and an alias that moves. A context manager."""

    def __init__(self, site: Site, stretch: float) -> None:
        """stretch: of all waits."""
        self._site, self._stretch = site, stretch
        self._chance = random.Random(7)
        self._registry = Registry(str(site.registry), "default")
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._members), threading.Thread(target=self._models)]
        self.joined, self.broken = 0, ""

    def __enter__(self) -> Unrest:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _wait(self, least: float, most: float) -> bool:
        return self._stop.wait(self._chance.uniform(least, most) * self._stretch)

    def _members(self) -> None:
        while not self._wait(10, 30):
            with self._site.worker(**WORKER) as second:
                self._wait(10, 40)
                how = self._chance.choice((SIGTERM, SIGKILL))
                code = second.code if second.code is not None else second.stop(how)
                self.joined += 1
                if code != (0 if how == SIGTERM else -9):
                    self.broken = second.log
                    return

    def _models(self) -> None:
        names = ("v2", "v1")
        while not self._wait(20, 40):
            self._registry.point("champion", names[0])
            names = names[1], names[0]


def soak(minutes: float, per_second: float, delivery: str, say: Callable[[str], None]) -> Figures:
    with EmbeddedBroker(properties=QUICK) as broker, Site(broker, delivery, PARTITIONS) as site:
        factory.publish(site.registry, "v2", champion=False, **factory.remembering())   # type: ignore[arg-type]
        servers, topics = broker.bootstrap_servers, site.topics
        with site.worker(**WORKER) as worker, _events(servers, topics) as events, _dead(servers, topics) as dead:
            worker.ready()
            with Load(servers, topics["input"], PARTITIONS, per_second) as load:
                with Unrest(site, min(minutes / 10, 1.0)) as unrest:
                    samples = _watched(worker, minutes * 60, lambda done: say(_line(done, load, events, dead)))
                site.sent = 0
            assert not unrest.broken, unrest.broken
            site.sent = load.sent
            site.done(180, lambda: worker.log)
            reloads = int(worker.metric(r'zmu_model_reloads_total\{result="loaded"\}'))
            assert worker.stop() == 0, worker.log
            must, places = load.event_ids(), {f"{topics['input']}/{p}/{offset}" for p, offset in load.poison}
            # What was committed is there to be read, a moment later.
            until(lambda: (must <= events.found.keys() and places <= dead.found.keys()) or _ended(site, events), 60)
        memory, files, threads = of_samples(samples)
        return Figures(
            minutes, delivery, load.sent, len(must), len(places), len(must - events.found.keys()),
            len(places - dead.found.keys()), events.repeated + dead.repeated, unrest.joined, reloads, memory, files,
            threads,
        )


def _ended(site: Site, events: Reader) -> bool:
    """Whether a reader of all sees no more than this one has seen."""
    return len({json.loads(record.value)["event_id"] for record in site.read("output")}) <= len(events.found)


def _events(servers: str, topics: dict[str, str]) -> Reader:
    return Reader(servers, topics["output"], lambda record: json.loads(record.value)["event_id"])   # type: ignore[attr-defined]


def _dead(servers: str, topics: dict[str, str]) -> Reader:
    return Reader(servers, topics["dead"], place)       # type: ignore[arg-type]


def _watched(worker: Worker, seconds: float, say: Callable[[Sample], None]) -> list[Sample]:
    began = said = time.monotonic()
    samples = []
    while (now := time.monotonic()) - began < seconds:
        assert worker.code is None, worker.log
        samples.append(sample(worker.pid, now - began))
        if now - said >= 30:
            said = now
            say(samples[-1])
        time.sleep(SAMPLE_SECONDS)
    return samples


def _line(done: Sample, load: Load, events: Reader, dead: Reader) -> str:
    return (
        f"{done.seconds:6.0f} s  sent {load.sent:>9,}  events {len(events.found):>8,} of which repeated "
        f"{events.repeated}  dead letters {len(dead.found):>6,}  {done.resident_bytes / MB:.1f} MB  {done.files} files"
    )
