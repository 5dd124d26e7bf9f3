"""A byte flipped on the broker's disk, which it serves as it lies there."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord

from deploy.demo.broker import EmbeddedBroker
from tests.faults.oracle import Expected, judge
from tests.faults.site import Site
from tests.faults.table import Tried
from tests.programs import until
from worker.kafka.heads import HEADER, Header, next_batch

# The byte of a batch, and the bits of it. Of all but the length, which the broker itself goes by.
FLIPS = {
    "value": (90, 0x04), "time stamp": (30, 0x10), "checksum": (18, 0x80), "count": (60, 0x01),
    "first offset": (7, 0x80),          # of those from 128 on it leads back, and the broker finds it no more by its own
}


READ = 80                               # offsets of a partition that are behind the group by then


class Segment(NamedTuple):
    """The log of a partition, on a disk that nobody writes to."""

    path: Path

    @classmethod
    def of(cls, broker: EmbeddedBroker, topic: str, partition: int) -> Segment:
        return cls(broker.folder / "data" / f"{topic}-{partition}" / f"{0:020}.log")

    def batches(self) -> list[tuple[int, Header]]:
        """Where each begins, and its head."""
        log = memoryview(self.path.read_bytes())
        found, at = [], 0
        while (raw := next_batch(log, at)) is not None:
            found.append((at, Header._make(HEADER.unpack_from(raw))))
            at += len(raw)
        return found

    def middle(self) -> tuple[int, Header]:
        """Of what the group has not read."""
        unread = [(at, head) for at, head in self.batches() if head.base_offset >= READ]
        return unread[len(unread) // 2]

    def flip(self, at: int, bits: int) -> None:
        log = bytearray(self.path.read_bytes())
        log[at] ^= bits
        self.path.write_bytes(log)


def flipped(broker: EmbeddedBroker, delivery: str, times: int) -> Iterator[Tried]:
    """A batch that fails its checks is told of and passed over, and no other reading is lost. One batch a partition,
    in the middle of its log, while the worker is down.
    """
    for what, (place, bits) in list(FLIPS.items())[:times]:
        with Site(broker, delivery) as site:
            site.send(150)
            site.drain()
            site.send(450)
            records = site.read("input")
            broker.stop()
            lost: dict[int, tuple[int, int]] = {}
            for partition in range(site.partitions):
                segment = Segment.of(broker, site.topics["input"], partition)
                at, head = segment.middle()
                segment.flip(at + place, bits)
                lost[partition] = head.base_offset, head.last_offset
            broker.start()
            began = time.monotonic()
            with site.worker() as worker:
                site.done(otherwise=lambda: worker.log)
                seconds = time.monotonic() - began
                until(lambda: worker.metric(r'zmu_records_dead_lettered_total\{reason="corrupt_batch"\}') == 3, 20,
                      lambda: worker.log)
                assert worker.stop() == 0, worker.log
            expected = _without(site, records, lost)
            verdict = judge(expected, site.read("output"), site.read("dead"), site.read("incidents"))
            yield Tried.judged(f"a byte flipped in a segment: {what}", delivery, site.partitions, verdict, seconds)


def _without(site: Site, records: list[ConsumerRecord], lost: dict[int, tuple[int, int]]) -> Expected:
    """What an undisturbed worker says of the others, and one dead letter for each batch, at its first offset."""
    good = [r for r in records if not lost[r.partition][0] <= r.offset <= lost[r.partition][1]]
    expected = Expected.of(site.registry, sorted(good, key=lambda r: (r.partition, r.offset)))
    topic = site.topics["input"]
    return expected._replace(dead=expected.dead | {f"{topic}/{p}/{first}" for p, (first, _) in lost.items()})


def cut(broker: EmbeddedBroker, delivery: str, times: int) -> Iterator[Tried]:
    """A partition has lost its end, with readings that were done: the worker goes back to where it ends now, says so,
    and does what takes their place. What it had said of the lost ones stays said, and they stay in the state of their
    entities: the oracle looks at the other partitions.
    """
    with Site(broker, delivery) as site, site.worker() as worker:
        worker.ready()
        site.send(300, poison=False)
        site.done(otherwise=lambda: worker.log)
        broker.kill()
        segment = Segment.of(broker, site.topics["input"], 1)
        at, head = segment.batches()[-1]
        segment.path.write_bytes(segment.path.read_bytes()[:at])
        broker.start()
        site.sent -= head.records
        worker.says("the topic lost its end")
        site.send(300, poison=False)
        seconds = site.done(otherwise=lambda: worker.log)
        until(lambda: site.committed() == sum(_ends(site).values()), 30, lambda: worker.log)
        assert worker.stop() == 0, worker.log
        records = [record for record in site.read("input") if record.partition != 1]
        expected = Expected.of(site.registry, sorted(records, key=lambda r: (r.partition, r.offset)))
        others = [r for r in site.read("output") if json.loads(r.value)["source"]["partition"] != 1]
        verdict = judge(expected, others, [], [])
        yield Tried.judged("a partition that lost its end", delivery, 1, verdict, seconds)


def _ends(site: Site) -> dict[TopicPartition, int]:
    tps = [TopicPartition(site.topics["input"], partition) for partition in range(site.partitions)]
    with contextlib.closing(KafkaConsumer(bootstrap_servers=site.broker.bootstrap_servers)) as consumer:
        return dict(consumer.end_offsets(tps))
