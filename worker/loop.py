"""The one loop: poll → decode → score → decide → publish → commit."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from worker import log
from worker.codec.columns import ColumnDecoder, Decoded
from worker.codec.events import dead_letter, event_message
from worker.codec.incidents import incident_message
from worker.codec.readings import ReadingSchema
from worker.delivery.checkpoint import RETRY_SECONDS, Checkpoint, Stopped
from worker.errors import BrokerError
from worker.events import EventBuilder
from worker.hand import Hand
from worker.heartbeat import Heartbeat
from worker.kafka import damage
from worker.kafka.batches import newest_ms, next_offsets
from worker.kafka.sink import Message
from worker.kafka.statestore import StateStore
from worker.metrics import Metrics
from worker.models.reload import Models
from worker.records import Batch
from worker.settings import Settings
from worker.source import Change, CommitLost, Fetched, Source
from worker.state.partitions import Partitions
from worker.state.snapshotter import Snapshotter
from worker.watch import Seen, Watch

IDLE_SECONDS = 0.5                      # how long a quiet poll lasts: the time that a signal may have to wait
TEND_SECONDS = 1.0
LAST_SNAPSHOT_SECONDS = 5.0


class Loop:
    """Scores what the source gives, until told to stop. Everything that does input or output is a port."""

    def __init__(
        self,
        settings: Settings,
        source: Source,
        checkpoint: Checkpoint,
        models: Models,
        store: StateStore | None,
        metrics: Metrics,
        heartbeat: Heartbeat,
        stopping: Callable[[], bool],
        sleep: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """store: None where no state is kept."""
        self._settings, self._source, self._checkpoint = settings, source, checkpoint
        self._models, self._metrics, self._heartbeat = models, metrics, heartbeat
        self._stopping, self._sleep, self._clock = stopping, sleep, clock
        self._watch = Watch(settings, source.topic, clock)
        interval = settings.state.snapshot_seconds
        snapshotter = Snapshotter(store, self._watch.entities, interval, clock) if store and interval else None
        self._partitions = Partitions(source, self._watch, snapshotter, metrics)
        self._newest_ms: dict[int, int] = {}        # timestamp of the newest record done, by partition
        self._last_read: dict[int, float] = {}      # when a partition last had a record
        self._tended = self._joined = clock()
        # So long a group may wait for its slowest member. Later, who hears a broker and is not taken in is stuck.
        self._patience_seconds = settings.kafka.max_poll_interval_ms / 1000
        self._take_model()

    def run(self) -> None:
        """Until told to stop. Raises Stopped where the output still refuses then."""
        while not self._stopping():
            self._turn()
        self._leave()

    def run_until_drained(self) -> None:
        """Until everything that was in the topic at the start is scored and committed."""
        ends = self._source.ends()
        while not self._stopping() and not (self._drained(ends) and self._finished()):
            self._turn()
        self._leave()

    def _leave(self) -> None:
        """After the last batch: what the next owner needs, so that it has nothing to read again."""
        self._rebalance(self._checkpoint.finish())
        try:
            self._partitions.last_snapshots()
            deadline = self._clock() + LAST_SNAPSHOT_SECONDS
            while not self._partitions.settled() and self._clock() < deadline:
                self._heartbeat.beat()
                self._rebalance(self._checkpoint.rebalanced(self._source.idle()))
                self._rebalance(self._checkpoint.settle())
            held = self._partitions.held()
            self._rebalance(self._checkpoint.complete([], held, self._partitions.notes(held)))
        except (BrokerError, Stopped) as error:
            self._metrics.survived("snapshot", error)   # the one before it still counts
        self._checkpoint.finish()

    def _turn(self) -> None:
        self._heartbeat.turn()
        if self._models.take():
            self._take_model()
        fetched = self._fetch()
        if fetched.records:
            hand = Hand(self._source.topic, fetched.records, self._models.current.version)
            with log.about(hand.facts), self._metrics.tracing.batch(hand):
                self._process(fetched)
        if self._clock() - self._tended >= TEND_SECONDS:
            self._tended = self._clock()
            self._tend()
        self._partitions.snapshot()
        self._rebalance(self._checkpoint.settle())

    def _fetch(self) -> Fetched:
        if self._source.leaving:                # what is done here is not for another to do again
            self._rebalance(self._checkpoint.finish())
        batch = self._settings.batch
        idle_seconds = min(IDLE_SECONDS, self._checkpoint.due_seconds)
        fetched = self._source.poll(batch.max_records, batch.max_wait_ms / 1000, idle_seconds)
        self._metrics.polled()
        changes = self._checkpoint.rebalanced(fetched.changes)
        self._rebalance(changes)
        if changes:                             # what came of their partitions comes again, here or elsewhere
            touched = {partition for change in changes for partition in change.partitions}
            left: list[Any] = [records for records in fetched.records if records.partition not in touched]
            fetched.records = left
        return fetched

    def _process(self, fetched: Fetched) -> None:
        with self._metrics.stage("decode"):
            decoded = self._decoder.decode(fetched.records)
        batch, refused = decoded.batch, [*decoded.refused, *damage.refusals(fetched.records)]
        self._count(fetched, decoded)
        self._partitions.touched(batch.entity_B)
        known, batch = self._partitions.split(batch)
        at_once = self._settings.batch.max_records      # a batch of the producer's may hold many times that
        for part in known.slices(at_once):
            self._heartbeat.beat()
            self._watch.process(part)               # read again: remembered, and not said again
        messages: list[Message] = []
        for part in batch.slices(at_once):
            self._heartbeat.beat()
            with self._metrics.stage("score"):
                seen = self._watch.process(part)
            messages += self._decide(part, seen)
        refused = [r for r in refused if not self._partitions.silent(r.record.partition, r.record.offset)]
        self._metrics.records_refused(refused)
        messages += [dead_letter(self._settings.dead_letters.topic, refusal) for refusal in refused]
        read = next_offsets(fetched.records)
        self._complete(messages, self._partitions.due(read), lambda: self._metrics.batch_done(batch.timestamp_ms_B))
        self._heartbeat.beat()

    def _decide(self, batch: Batch, seen: Seen) -> list[Message]:
        """What a batch has to say: events and incidents."""
        topic, entities = self._source.topic, self._watch.entities
        events = list(self._events.events(topic, batch, seen.scores, entities))
        faults = list(self._events.faults(topic, seen.findings, batch, seen.scores, entities))
        version = self._models.current.version
        self._metrics.batch_scored(version, seen.scores.anomaly_score_B, int(seen.scores.warming_B.sum()))
        self._metrics.anomalies_found(Counter(event.severity for event in events))
        self._metrics.faults_found(Counter(event.kind for event in faults))
        return [
            *(event_message(self._settings.output.topic, event) for event in (*events, *faults)),
            *(incident_message(self._settings.incidents.topic, incident) for incident in seen.incidents),
        ]

    def _complete(
        self, messages: Sequence[Message], offsets: Mapping[int, int], then: Callable[[], None] = lambda: None
    ) -> None:
        sent = self._metrics.tracing.sent(messages)
        changes = self._checkpoint.complete(sent, offsets, self._partitions.notes(offsets), then)
        self._partitions.done(offsets)
        self._rebalance(changes)

    def _tend(self) -> None:
        """Once a second or so: what no reading tells."""
        if self._source.joined:
            self._joined = self._clock()
        self._report_lag()
        self._see_whether_still()
        entities, topic = self._watch.entities, self._source.topic
        messages: list[Message] = []
        for partition in self._partitions.live():
            if self._source.lag(partition):
                continue                            # what is missing may well be there, unread
            idle_seconds = self._clock() - self._last_read.setdefault(partition, self._clock())
            findings, incidents = self._watch.quiet(partition, idle_seconds)
            faults = list(self._events.silences(topic, findings, entities))
            self._metrics.faults_found(Counter(event.kind for event in faults))
            messages += [event_message(self._settings.output.topic, event) for event in faults]
            messages += [incident_message(self._settings.incidents.topic, incident) for incident in incidents]
            self._partitions.touched(np.array([finding.entity for finding in findings], np.int32))
        messages += self._forget_leavers()
        if messages:                            # with offsets, for the group to say whether we still may speak
            self._complete(messages, self._partitions.held())
        self._metrics.entities(len(entities), sum(map(self._events.is_cold, entities.used_names())))

    def _forget_leavers(self) -> list[Message]:
        codes = self._watch.leavers()
        if not len(codes):
            return []
        entities = self._watch.entities
        for code in codes.tolist():
            self._partitions.forget(entities.partitions[code], [entities.names[code]])
        told = self._watch.forget(codes)
        return [incident_message(self._settings.incidents.topic, incident) for incident in told]

    def _rebalance(self, changes: Sequence[Change]) -> None:
        for change in changes:
            held = set(self._source.assignment())
            total = len(held)
            # Changes may have piled up while the output was slow: what came may have gone again.
            begun = [partition for partition in change.partitions if partition in held]
            if change.kind == "rewound":
                begun = [partition for partition in begun if self._partitions.holds(partition)]
                self._metrics.rewound(begun)
                for partition in begun:
                    self._partitions.release(partition)
                    self._begin(partition)
            elif change.kind == "assigned":
                for partition in begun:
                    self._begin(partition)
                self._metrics.assigned(self._source.topic, begun, total)
            else:
                for partition in change.partitions:
                    self._partitions.release(partition)
                    self._newest_ms.pop(partition, None)
                    self._last_read.pop(partition, None)
                self._metrics.revoked(self._source.topic, change.partitions, total, change.kind)

    def _begin(self, partition: int) -> None:
        attempt = 0
        while not self._stopping():
            self._heartbeat.beat()
            try:
                self._partitions.begin(partition)
            except CommitLost as error:
                self._metrics.commit_failed(error)      # the group moves on: another change is on its way
            except BrokerError as error:
                self._metrics.survived("assign", error)
                self._sleep(RETRY_SECONDS[min(attempt, len(RETRY_SECONDS) - 1)])
                attempt += 1
                continue
            return

    def _take_model(self) -> None:
        detector = self._models.current.detector
        manifest = detector.manifest
        self._watch.serve(detector)
        self._partitions.rewrite_all()
        schema = ReadingSchema.of(manifest.features, self._settings.input)
        self._decoder = ColumnDecoder(schema, self._watch.entities)
        self._events = EventBuilder(manifest, self._settings.output, now_ms=lambda: time.time_ns() // 1_000_000)

    def _finished(self) -> bool:
        """Whether what was done is final."""
        changes = self._checkpoint.finish()
        self._rebalance(changes)
        return not changes

    def _see_whether_still(self) -> None:
        """A loop that turns and gets nothing done, though there are readings, is stuck: see worker/watchdog.py."""
        if not self._heartbeat.doubtful:
            return
        try:
            drained = self._drained(self._source.ends())
            if drained or (not self._source.joined and self._clock() - self._joined < self._patience_seconds):
                self._heartbeat.beat()
        except BrokerError:
            self._heartbeat.beat()              # readiness tells

    def _drained(self, ends: Mapping[int, int]) -> bool:
        here = self._source.assignment()       # none where there are more workers than partitions
        return self._source.joined and all(self._source.position(p) >= ends.get(p, 0) for p in here)

    def _count(self, fetched: Fetched, decoded: Decoded) -> None:
        by_partition = decoded.by_partition()
        self._metrics.batch_fetched(self._source.topic, by_partition, decoded.value_bytes, fetched.reason)
        self._metrics.decoded(by_partition.total(), decoded.path)
        self._newest_ms.update(newest_ms(fetched.records))
        self._last_read.update(dict.fromkeys(by_partition, self._clock()))

    def _report_lag(self) -> None:
        """Age of the newest reading done, while there are later ones; clocks that disagree are clamped at 0."""
        now_ms = time.time() * 1000
        for partition in self._source.assignment():
            lag = self._source.lag(partition)
            if lag is not None:
                behind = lag and partition in self._newest_ms
                seconds = (now_ms - self._newest_ms[partition]) / 1000 if behind else 0.0
                self._metrics.lag(self._source.topic, partition, lag, seconds)
