"""Where snapshots of state are kept: the port, and a compacted topic behind it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.admin import OffsetSpec
from kafka.errors import CorruptRecordError, RetriableError

from worker import log
from worker.errors import BrokerError, BrokerUnreachable
from worker.heartbeat import Heartbeat
from worker.kafka import statetopic
from worker.kafka.brokers import client_options, explained, opened
from worker.kafka.sink import Message, Receipt, Sends
from worker.records import Record
from worker.settings import InputSettings, KafkaSettings
from worker.state.restore import Loaded
from worker.state.snapshots import Row, pack

STALL_SECONDS = 90.0                    # longer than the minute after which a broker ends a dead worker's transaction
FETCH_BYTES = 8 * 2**20
LOAD_RECORDS = 5_000


class StateStore(Protocol):
    """Rows by input partition. Of each entity at least the record sent last is kept."""

    def ensure(self) -> str:
        """It is there and fits the input; returns its id. Raises BrokerError."""

    def load(self, partition: int) -> Loaded:
        """What is there, from the beginning to the log's present end. Raises BrokerError."""

    def publish(self, partition: int, rows: Sequence[Row]) -> Sequence[Receipt]:
        """Hands rows over, in order; their fate is in the receipts. Those without data drop their entities."""

    def close(self) -> None: ...


class KafkaStateStore:
    """The topic `<group>-state`, made where it is missing; state partition = input partition.

    Reads with a consumer of its own, outside any group. Writes with the sink that it is given, so that rows can be
    part of that one's transactions. Raises BrokerError.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        settings: InputSettings,
        sink: Sends,
        heartbeat: Heartbeat,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kafka, self._input_topic, self._sink = kafka, settings.topic, sink
        self._heartbeat, self._clock = heartbeat, clock
        self.topic = statetopic.name_for(settings.group_id)
        self._admin: KafkaAdminClient | None = None
        self._consumer: KafkaConsumer | None = None
        self._log = log.get("state")

    def ensure(self) -> str:
        """The topic is there, with a partition for each of the input's. Returns its id."""
        try:
            with explained(self._kafka):
                return statetopic.ensure(self._connected_admin(), self.topic, self._input_topic)
        except BrokerError:
            self.close()
            raise

    def load(self, partition: int) -> Loaded:
        topic_id = self.ensure()                # again: the input may have grown, the topic been made anew
        try:
            with explained(self._kafka):
                return self._read(TopicPartition(self.topic, partition), topic_id)
        except BrokerError:
            self.close()                        # kafka-python's consumer does not get over every error
            raise

    def _read(self, tp: TopicPartition, topic_id: str) -> Loaded:
        # To the high watermark, not only to the end of what is committed: a transaction that is just being ended may
        # show in the group's offsets before it shows here, and its rows must not be missed.
        end = int(self._connected_admin().list_partition_offsets({tp: OffsetSpec.LATEST})[tp].offset)
        consumer = self._connected_consumer()
        consumer.assign([tp])
        consumer.seek(tp, 0)                    # or where the log begins
        last: dict[bytes | None, Record] = {}
        unreadable = 0
        position, moved = 0, self._clock()
        while position < end:
            self._heartbeat.beat()
            try:
                for record in consumer.poll(timeout_ms=200, max_records=LOAD_RECORDS).get(tp, ()):
                    last.pop(record.key, None)  # older ones need no memory; and the order is the log's
                    last[record.key] = record
            except CorruptRecordError as error:
                # Offset by offset: the consumer does not say where the damaged batch ends.
                self._log.warning("state topic damaged", topic=tp.topic, partition=tp.partition, error=str(error))
                unreadable += 1
                consumer.seek(tp, position + 1)
            except RetriableError as error:
                self._log.warning("load failed and is tried again", error=str(error), type=type(error).__name__)
            at = consumer.position(tp, timeout_ms=self._kafka.request_timeout_ms)
            if at is not None and at > position:
                position, moved = int(at), self._clock()
            elif self._clock() - moved > STALL_SECONDS:
                raise BrokerUnreachable(
                    f"state of partition {tp.partition}: topic {tp.topic!r} gives nothing after offset {position}, of "
                    f"{end}, for {STALL_SECONDS:g} s; a transaction may be open, or the broker ill"
                )
        return Loaded(list(last.values()), end, topic_id, unreadable)

    def publish(self, partition: int, rows: Sequence[Row]) -> Sequence[Receipt]:
        receipts: list[Receipt] = []
        for row in rows:
            key, value, headers = pack(row)
            receipts.append(self._sink.send(Message(self.topic, key, value, headers, partition=partition)))
            if receipts[-1].done() and receipts[-1].error() is not None:
                break                           # each of the others would be waited for as long, in vain
        return receipts

    def close(self) -> None:
        admin, self._admin = self._admin, None
        consumer, self._consumer = self._consumer, None
        if admin is not None:
            admin.close()
        if consumer is not None:
            consumer.close(autocommit=False, timeout_ms=5_000)

    def _connected_admin(self) -> KafkaAdminClient:
        if self._admin is None:
            self._admin = opened(KafkaAdminClient, **client_options(self._kafka))
        return self._admin

    def _connected_consumer(self) -> KafkaConsumer:
        if self._consumer is None:
            self._consumer = opened(
                KafkaConsumer,
                **client_options(self._kafka),
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                allow_auto_create_topics=False,
                isolation_level="read_committed",
                fetch_max_wait_ms=100,
                max_partition_fetch_bytes=FETCH_BYTES,
                metrics_enabled=False,
            )
        return self._consumer
