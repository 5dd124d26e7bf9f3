"""Where records come from: a consumer group of Kafka, behind the port of worker/source.py."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal

from kafka import ConsumerRebalanceListener, KafkaConsumer, TopicPartition
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from kafka.errors import (
    AuthorizationError,
    KafkaError,
    LogTruncationError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    RetriableError,
)

from worker import log
from worker.errors import BrokerError, StreamError
from worker.kafka import rawfetch
from worker.kafka.batches import size
from worker.kafka.brokers import client_options, explain, explained, opened
from worker.kafka.commits import GroupCommits
from worker.kafka.damage import Damage, DamagedBatch
from worker.kafka.offsets import GroupOffsets, Start
from worker.kafka.sink import Receipt
from worker.settings import InputSettings, KafkaSettings
from worker.source import Change, CommitLost, Fetched, Pledge

RETRY_PAUSE_SECONDS = 0.1
DAMAGED_PAUSE_SECONDS = 0.5             # another copy of it may take over meanwhile
LOOK_SECONDS = 5.0
_ASSIGNORS: dict[str, tuple[type, ...]] = {
    "range": (RangePartitionAssignor, RoundRobinPartitionAssignor), "cooperative-sticky": (CooperativeStickyAssignor,),
}


class KafkaSource:
    """A member of a consumer group that commits by hand.

    Raises BrokerError where the broker does not answer or the client's settings are wrong.
    """

    def __init__(
        self, kafka: KafkaSettings, settings: InputSettings, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.topic = settings.topic
        self._settings, self._kafka, self._clock = settings, kafka, clock
        self._changes: list[Change] = []
        self._looked = clock()
        self._listener = _Listener(self._changes)
        self._log = log.get("source")
        with explained(kafka):
            self._consumer = opened(
                KafkaConsumer,
                **client_options(kafka),
                group_id=settings.group_id,
                enable_auto_commit=False,
                auto_offset_reset="none",           # starts and expired offsets are decided here, and said
                allow_auto_create_topics=False,
                isolation_level=settings.isolation_level,
                partition_assignment_strategy=_ASSIGNORS[settings.assignor],
                session_timeout_ms=kafka.session_timeout_ms,
                heartbeat_interval_ms=max(kafka.session_timeout_ms // 3, 1),
                max_poll_interval_ms=kafka.max_poll_interval_ms,
                metadata_max_age_ms=kafka.metadata_max_age_ms,
                fetch_max_wait_ms=100,
                metrics_enabled=False,
            )
            whole = settings.fetch == "batches" and rawfetch.attach(self._consumer, Damage())
            self._consumer.subscribe([self.topic], listener=self._listener)
        self._log.info("reads", topic=self.topic, fetch="batches" if whole else "records")
        self._offsets = GroupOffsets(self._consumer, self.topic, settings.start, kafka.request_timeout_ms)
        self._commits = GroupCommits(self._consumer, self.topic, kafka.request_timeout_ms)

    def poll(self, max_records: int, max_wait_seconds: float, idle_seconds: float) -> Fetched:
        fetched = Fetched()
        records: list[Any] = []
        deadline = self._clock() + idle_seconds
        while True:
            wait_ms = max(int((deadline - self._clock()) * 1000), 0)
            found = self._poll(wait_ms, max_records - size(records))
            changed = self._take_changes(fetched.changes)
            if changed:
                records = [r for r in records if r.partition not in changed]
            if found and not records:
                deadline = self._clock() + max_wait_seconds
            for partition, more in found.items():
                # A partition that was just assigned starts where the caller seeks.
                if partition not in changed:
                    records += more
            fetched.records = records
            if size(records) >= max_records:
                fetched.reason = "full"
                return fetched
            over = bool(fetched.changes) or self._clock() >= deadline
            if (records or over) and not any(self.lag(partition) for partition in self.assignment()):
                fetched.reason = "drained"          # nothing to wait for
                return fetched
            if over:
                return fetched

    def _poll(self, wait_ms: int, max_records: int) -> dict[int, list[Any]]:
        coordinator = self._consumer._coordinator
        if coordinator.rejoining:
            coordinator.request_rejoin()    # kafka-python forgets a join under way whose reason is gone meanwhile
        if not self._consumer.assignment() and self._clock() - self._looked >= LOOK_SECONDS:
            # A broker that has just begun may not know the topic's partitions yet: the group shares out none then,
            # and shares out anew only where its leader sees that there are some.
            self._looked = self._clock()
            coordinator._cluster.request_update()
        try:
            found = self._consumer.poll(timeout_ms=wait_ms, max_records=max_records)
        except NoOffsetForPartitionError:
            return {}                       # just assigned and never committed: the caller of poll seeks
        except OffsetOutOfRangeError as error:
            self._restart_expired(error)
            return {}
        except LogTruncationError as error:
            self._go_back(error)
            return {}
        except DamagedBatch as error:           # it says so a few times, and is passed over then
            self._log.warning(
                "record batch damaged; it is fetched again", partition=error.partition, offset=error.offset,
                why=error.why,
            )
            time.sleep(DAMAGED_PAUSE_SECONDS)
            return {}
        except RetriableError as error:
            self._log.warning("poll failed and is tried again", error=str(error), type=type(error).__name__)
            time.sleep(RETRY_PAUSE_SECONDS)
            return {}
        except KafkaError as error:
            # kafka-python does not get past what it cannot read: its next poll would spin on it for ever.
            if isinstance(error, AuthorizationError):
                raise StreamError(explain(error, self._kafka)) from error
            raise StreamError(
                f"topic {self.topic!r} cannot be read on: {explain(error, self._kafka)}. Where a record is damaged, "
                "move the group past it (kafka-consumer-groups.sh --reset-offsets)"
            ) from error
        return {tp.partition: records for tp, records in found.items()}

    def _restart_expired(self, error: OffsetOutOfRangeError) -> None:
        """Offsets that the broker has deleted (retention): go on where the group stands if that is still there, else
        by the set policy, and say so. The loop begins the partition anew: it holds rows and offsets of before.
        """
        for tp, offset in error.args[0].items():
            try:
                start, kept = self._offsets.restart(tp)
                if not kept:
                    self.commit({tp.partition: start}, {})
                self._consumer.seek(tp, start)
            except (KafkaError, BrokerError, CommitLost) as failed:
                self._log.warning("offsets expired; going on failed and is tried again", error=str(failed))
                continue
            self._changes.append(Change("rewound", (tp.partition,)))
            missing = "what was to be read again is missing" if kept else "readings are missing"
            self._log.warning(
                f"offsets expired: {missing}",
                partition=tp.partition, wanted=offset, resumed=start, policy=self._settings.start,
            )

    def _go_back(self, error: LogTruncationError) -> None:
        """A partition's log has lost its end: a copy leads now that did not have it. What comes takes its place."""
        for tp, found in error.divergent_offsets.items():
            at = self._position(tp)
            try:
                place = self._offsets.of_policy(tp) if found is None else found.offset
                self.commit({tp.partition: place}, {})
                self._consumer.seek(tp, place)
            except (KafkaError, BrokerError, CommitLost) as failed:     # the next fetch finds it out of range
                self._log.warning("the topic lost its end; going back failed", error=str(failed))
                continue
            self._changes.append(Change("rewound", (tp.partition,)))
            lost = "the topic lost its end: readings that were done are gone"
            self._log.warning(lost, partition=tp.partition, done=at, resumed=place)

    def start(self, partition: int) -> Start:
        with explained(self._kafka):
            return self._offsets.start(partition, lambda offsets: self.commit(offsets, {}))

    def seek(self, partition: int, offset: int) -> None:
        self._consumer.seek(TopicPartition(self.topic, partition), offset)

    def commit(self, offsets: Mapping[int, int], notes: Mapping[int, str]) -> None:
        self._commits.commit(offsets, notes)

    def begin_commit(self, offsets: Mapping[int, int], notes: Mapping[int, str]) -> Receipt:
        return self._commits.begin(offsets, notes)

    def member(self) -> object:
        return self._offsets.member()

    def pledge(self, offsets: Mapping[int, int], notes: Mapping[int, str], member: object) -> Pledge:
        return Pledge(self._commits.with_notes(offsets, notes), member)

    def idle(self) -> list[Change]:
        paused = self._consumer.assignment()
        self._consumer.pause(*paused)
        try:
            self._poll(100, 1)
        finally:
            self._consumer.resume(*(self._consumer.assignment() & paused))
        changes: list[Change] = []
        self._take_changes(changes)
        return changes

    def assignment(self) -> Collection[int]:
        return {tp.partition for tp in self._consumer.assignment()}

    @property
    def leaving(self) -> bool:
        # A member that the group has shut out can commit nothing any more.
        coordinator = self._consumer._coordinator
        return coordinator.stable() and not coordinator.rejoining and coordinator.need_rejoin()

    @property
    def joined(self) -> bool:
        # A broker that has gone leaves the state as it was; its coordinator is given up, after a session at the latest.
        coordinator = self._consumer._coordinator
        # Of a share that is none, cooperative assignment does not tell.
        untold = self._settings.assignor == "cooperative-sticky" and self._consumer.group_metadata().generation_id >= 0
        return (self._listener.joined or untold) and coordinator.stable() and coordinator.coordinator_id is not None

    def ends(self) -> Mapping[int, int]:
        with explained(self._kafka):
            ends = self._consumer.end_offsets(self._offsets.partitions())
        return {tp.partition: offset for tp, offset in ends.items()}

    def position(self, partition: int) -> int:
        tp = TopicPartition(self.topic, partition)
        # Where it has one already, nobody is asked: what only looks must not find out that the log has lost its end, as
        # the poll does, and move the group back under a batch that is on its way.
        return self._position(tp) if self._placed(tp) else int(self._consumer.position(tp))

    def _placed(self, tp: TopicPartition) -> bool:
        state = self._consumer._subscription.assignment.get(tp)
        return state is not None and state.position is not None

    def _position(self, tp: TopicPartition) -> int:
        """As kafka-python has it."""
        return int(self._consumer._subscription.assignment[tp].position.offset)

    def lag(self, partition: int) -> int | None:
        tp = TopicPartition(self.topic, partition)
        end = self._consumer.highwater(tp)
        try:
            return None if end is None else max(int(end) - self.position(partition), 0)
        except NoOffsetForPartitionError:
            return None                     # it, or another, was just assigned and never committed

    def close(self) -> None:
        self._consumer.close(autocommit=False, timeout_ms=5_000)

    def _take_changes(self, into: list[Change]) -> set[int]:
        """Moves the noted changes over and returns the partitions that they touch."""
        changes = self._changes[:]
        del self._changes[: len(changes)]
        into += changes
        return {partition for change in changes for partition in change.partitions}


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Notes what happened; the loop, which has nothing in flight while it polls, acts on it after the poll.

    Called on kafka-python's own thread: list.append is the whole of it.
    """

    def __init__(self, changes: list[Change]) -> None:
        self._changes = changes
        self.joined = False

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        self.joined = True
        self._note("assigned", assigned)

    def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        self._note("revoked", revoked)

    def on_partitions_lost(self, lost: Collection[TopicPartition]) -> None:
        self._note("lost", lost)

    def _note(self, kind: Literal["assigned", "revoked", "lost"], touched: Collection[TopicPartition]) -> None:
        if touched:
            self._changes.append(Change(kind, tuple(sorted(tp.partition for tp in touched))))
