"""The one loop: poll → decode → score → decide → publish → commit."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from worker import windows
from worker.checkpoint import RETRY_SECONDS, Checkpoint
from worker.codec.events import dead_letter, event_message
from worker.codec.readings import ReadingDecoder, ReadingSchema
from worker.detector import Scores
from worker.entities import Entities
from worker.errors import BrokerError
from worker.events import EventBuilder
from worker.heartbeat import Heartbeat
from worker.metrics import Metrics
from worker.records import Batch, Refusal
from worker.reload import Models
from worker.settings import Settings
from worker.sink import Message
from worker.source import Change, CommitLost, Fetched, Source
from worker.state import States

MAX_ENTITIES = 1_000_000
IDLE_SECONDS = 0.5                      # how long a quiet poll lasts: the time that a signal may have to wait


class Loop:
    """Scores what the source gives, until told to stop. Everything that does input or output is a port."""

    def __init__(
        self,
        settings: Settings,
        source: Source,
        checkpoint: Checkpoint,
        models: Models,
        metrics: Metrics,
        heartbeat: Heartbeat,
        stopping: Callable[[], bool],
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._settings, self._source, self._checkpoint = settings, source, checkpoint
        self._models, self._metrics, self._heartbeat = models, metrics, heartbeat
        self._stopping, self._sleep = stopping, sleep
        self._entities = Entities()
        self._states = States(())
        self._newest_ms: dict[int, int] = {}        # timestamp of the newest record done, by partition
        self._take_model()

    def run(self) -> None:
        """Until told to stop. Raises Stopped where the output still refuses then."""
        while not self._stopping():
            self._turn()

    def run_until_drained(self) -> None:
        """Until everything that was in the topic at the start is scored and committed."""
        ends = self._source.ends()
        while not self._stopping() and not self._drained(ends):
            self._turn()

    def _turn(self) -> None:
        self._heartbeat.beat()
        if self._models.take():
            self._take_model()
        batch = self._settings.batch
        fetched = self._source.poll(batch.max_records, batch.max_wait_ms / 1000, IDLE_SECONDS)
        self._metrics.polled()
        self._rebalance(fetched.changes)
        if fetched.records:
            self._process(fetched)
        self._report_lag()

    def _process(self, fetched: Fetched) -> None:
        records = fetched.records
        self._count(fetched)
        if len(self._entities) > MAX_ENTITIES:
            self._entities.clear()          # names made at random, one for each reading or so
            self._states = self._models.current.detector.states()
        with self._metrics.stage("decode"):
            batch, refused = self._decoder.decode(records)
        with self._metrics.stage("score"):
            self._states.reserve(self._entities.capacity)
            scores = self._models.current.detector.score(batch, self._states)
        messages = self._decide(batch, scores, refused)
        offsets = {record.partition: record.offset + 1 for record in records}
        self._rebalance(self._checkpoint.complete(messages, offsets))
        self._metrics.batch_done(batch.timestamp_ms_B)

    def _decide(self, batch: Batch, scores: Scores, refused: Sequence[Refusal]) -> list[Message]:
        """What the batch has to say: an event for each anomaly, a dead letter for each refused record."""
        events = list(self._events.events(self._source.topic, batch, scores, self._entities))
        self._metrics.batch_scored(self._models.current.version, scores.anomaly_score_B)
        self._metrics.anomalies_found(Counter(event.severity for event in events))
        self._metrics.records_refused(refused)
        self._metrics.entities(len(self._entities))
        return [
            *(event_message(self._settings.output.topic, event) for event in events),
            *(dead_letter(self._settings.dead_letters.topic, refusal) for refusal in refused),
        ]

    def _rebalance(self, changes: Sequence[Change]) -> None:
        for change in changes:
            held = set(self._source.assignment())
            total = len(held)
            if change.kind == "assigned":
                # Changes may have piled up while the output was slow: what came may have gone again.
                begun = [partition for partition in change.partitions if partition in held]
                for partition in begun:
                    self._begin(partition)
                self._metrics.assigned(self._source.topic, begun, total)
            else:
                for partition in change.partitions:
                    self._states.reset(self._entities.release_partition(partition))
                    self._newest_ms.pop(partition, None)
                self._metrics.revoked(self._source.topic, change.partitions, total, change.kind)

    def _begin(self, partition: int) -> None:
        """Where the group left off; a group that never was here commits its first place at once. Otherwise `latest`
        would mean a later place after a crash, and lose the readings between.
        """
        attempt = 0
        while not self._stopping():
            self._heartbeat.beat()
            try:
                start = self._source.start(partition)
                self._source.seek(partition, start.offset)
                if start.fresh:
                    self._source.commit({partition: start.offset})
            except CommitLost as error:
                self._metrics.commit_failed(error)      # the group moves on: another change is on its way
            except BrokerError as error:
                self._metrics.survived("assign", error)
                self._sleep(RETRY_SECONDS[min(attempt, len(RETRY_SECONDS) - 1)])
                attempt += 1
                continue
            return

    def _take_model(self) -> None:
        """A new version goes on with the entities' last readings; what its chart and alarm remember is its own."""
        detector = self._models.current.detector
        manifest, before = detector.manifest, self._states
        self._states = detector.states()
        self._states.carry(before, self._entities.codes(), windows.COLUMNS)
        form = self._settings.input
        schema = ReadingSchema(
            features=manifest.features,
            entity_field=form.entity_field,
            timestamp_field=form.timestamp_field,
            values_field=form.values_field,
            max_record_bytes=form.max_record_bytes,
        )
        self._decoder = ReadingDecoder(schema, self._entities)
        self._events = EventBuilder(manifest, self._settings.output, now_ms=lambda: time.time_ns() // 1_000_000)

    def _drained(self, ends: Mapping[int, int]) -> bool:
        here = self._source.assignment()       # none where there are more workers than partitions
        return self._source.joined and all(self._source.position(p) >= ends.get(p, 0) for p in here)

    def _count(self, fetched: Fetched) -> None:
        by_partition = Counter(record.partition for record in fetched.records)
        size_bytes = sum(len(record.value or b"") for record in fetched.records)
        self._metrics.batch_fetched(self._source.topic, by_partition, size_bytes, fetched.reason)
        self._newest_ms.update((record.partition, record.timestamp) for record in fetched.records)

    def _report_lag(self) -> None:
        """Age of the newest reading done, while there are later ones; clocks that disagree are clamped at 0."""
        now_ms = time.time() * 1000
        for partition in self._source.assignment():
            lag = self._source.lag(partition)
            if lag is not None:
                behind = lag and partition in self._newest_ms
                seconds = (now_ms - self._newest_ms[partition]) / 1000 if behind else 0.0
                self._metrics.lag(self._source.topic, partition, lag, seconds)
