"""The state topic on a real broker: made, grown, filled, loaded, compacted, damaged."""

from __future__ import annotations

import struct
import threading
import time
import uuid
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType

from deploy.demo.broker import EmbeddedBroker
from tests import kafka
from tests.programs import until
from worker.errors import BrokerError
from worker.heartbeat import Heartbeat
from worker.kafka.sink import KafkaSink, Receipt
from worker.kafka.statestore import KafkaStateStore
from worker.settings import InputSettings, KafkaSettings, OutputSettings
from worker.state.restore import Loaded
from worker.state.snapshots import Row, Stand, name_of, pack, unpack

LAYOUT, MODEL = "aa" * 8, "bb" * 8


def row(name: str, next_offset: int, data: bytes | None) -> Row:
    return Row(name, data, next_offset, 1, 2, LAYOUT, MODEL)


def contents(loaded: Loaded) -> dict[str, bytes | None]:
    return {row.name: row.data for row in map(unpack, loaded.records)}


class Place:
    """A worker's state store, and what is around it."""

    def __init__(self, broker: str, admin: KafkaAdminClient, input_topic: str) -> None:
        self.broker, self.admin, self.input_topic = broker, admin, input_topic
        self._kafka = KafkaSettings(bootstrap_servers=broker)
        self.settings = InputSettings(topic=input_topic, group_id=f"group-{uuid.uuid4().hex[:10]}")
        self.sink = KafkaSink(self._kafka, OutputSettings(), 1_048_576)
        self._stores: list[KafkaStateStore] = []
        self.store = self.another_store()

    def another_store(self, clock: Callable[[], float] = time.monotonic) -> KafkaStateStore:
        self._stores.append(KafkaStateStore(self._kafka, self.settings, self.sink, Heartbeat(60), clock))
        return self._stores[-1]

    def publish(self, partition: int, *rows: Row) -> None:
        receipts = self.sent(partition, *rows)
        assert [error for receipt in receipts if (error := receipt.error())] == []

    def sent(self, partition: int, *rows: Row) -> list[Receipt]:
        receipts = list(self.store.publish(partition, rows))
        self.sink.flush(30)
        assert all(receipt.done() for receipt in receipts)
        return receipts

    def partitions(self) -> int:
        (found,) = self.admin.describe_topics([self.store.topic])
        return len(found["partitions"])

    def close(self) -> None:
        for store in self._stores:
            store.close()
        self.sink.close()
        if self.store.topic in self.admin.list_topics():
            self.admin.delete_topics([self.store.topic])


@pytest.fixture
def place(broker: str, admin: KafkaAdminClient, topic: Callable[..., str]) -> Iterator[Place]:
    made = Place(broker, admin, topic(3, name="readings"))
    yield made
    made.close()


def test_the_topic_is_made_compacted_with_the_input_s_partitions(place: Place) -> None:
    topic_id = place.store.ensure()
    assert place.partitions() == 3
    resource = ConfigResource(ConfigResourceType.TOPIC, place.store.topic)
    configs = place.admin.describe_configs([resource], config_filter="all")["topic"][place.store.topic]
    assert configs["cleanup.policy"]["value"] == "compact"
    assert uuid.UUID(hex=topic_id).int
    assert place.store.ensure() == place.another_store().ensure() == topic_id      # and by another worker


def test_rows_come_back_from_their_partition_in_order(place: Place) -> None:
    assert place.store.load(1) == Loaded([], 0, place.store.ensure())
    place.publish(1, row("a", 5, b"1"), row("b", 5, b"2"), row("ü", 5, bytes(1000)))
    place.publish(2, row("a", 9, b"3"))
    place.publish(1, row("a", 7, b"4"), row("b", 7, None))
    loaded = place.store.load(1)
    assert [(unpack(r).name, unpack(r).next_offset) for r in loaded.records] == [("ü", 5), ("a", 7), ("b", 7)]
    assert contents(loaded) == {"a": b"4", "b": None, "ü": bytes(1000)}
    assert loaded.end == 5
    assert contents(place.store.load(2)) == {"a": b"3"}
    assert contents(place.another_store().load(2)) == {"a": b"3"}
    assert place.store.load(0).records == []


def test_it_grows_with_the_input(place: Place) -> None:
    place.store.ensure()
    place.publish(0, row("a", 5, b"1"))
    place.admin.create_partitions({place.input_topic: 5})
    until(lambda: len(place.admin.describe_topics([place.input_topic])[0]["partitions"]) == 5, 30)
    assert place.store.load(4).records == []
    assert place.partitions() == 5
    # The producer has not heard of the partition yet: an answer, not an exception. One built anew has.
    place.sent(4, row("a", 5, b"2"))
    place.sink.renew()
    place.publish(4, row("a", 6, b"3"))
    assert contents(place.store.load(4)) == {"a": b"3"}
    assert contents(place.store.load(0)) == {"a": b"1"}


def test_a_topic_that_forgets_the_silent_is_refused(place: Place) -> None:
    place.admin.create_topics(
        {place.store.topic: {"num_partitions": 3, "replication_factor": 1, "configs": {"cleanup.policy": "delete"}}}
    )
    with pytest.raises(BrokerError, match=r"cleanup\.policy=delete.*set it to compact"):
        place.store.load(0)


def test_a_topic_with_too_few_partitions_gets_the_others(place: Place) -> None:
    place.admin.create_topics(
        {place.store.topic: {"num_partitions": 2, "replication_factor": 1, "configs": {"cleanup.policy": "compact"}}}
    )
    place.admin.wait_for_topics([place.store.topic])
    place.store.ensure()
    assert place.partitions() == 3


def test_a_group_whose_name_cannot_name_a_topic_is_refused(place: Place) -> None:
    place.settings = place.settings.model_copy(update={"group_id": "my group"})
    with pytest.raises(BrokerError, match="ZMU_INPUT__GROUP_ID"):
        place.another_store()


def test_a_topic_made_anew_has_another_id(place: Place) -> None:
    before = place.store.load(0).topic_id
    place.admin.delete_topics([place.store.topic])
    until(lambda: place.store.topic not in place.admin.list_topics(), 30)
    assert place.store.load(0).topic_id != before


def test_a_committed_offset_carries_the_note(place: Place) -> None:
    stand = Stand(2**62, 2**64 - 1, 2**63, 2**62, place.store.ensure())
    tp = TopicPartition(place.input_topic, 0)
    consumer = KafkaConsumer(
        bootstrap_servers=place.broker, group_id=place.settings.group_id, enable_auto_commit=False
    )
    consumer.assign([tp])
    consumer.commit({tp: OffsetAndMetadata(7, stand.note(), -1)})
    found = consumer.committed(tp, metadata=True)
    consumer.close()
    assert (found.offset, Stand.read(found.metadata)) == (7, stand)


@pytest.mark.parametrize("fate", ["commit", "abort"])
def test_a_load_waits_for_an_open_transaction_to_end(place: Place, fate: str) -> None:
    place.store.ensure()
    place.publish(0, row("a", 5, b"1"))
    producer = KafkaProducer(bootstrap_servers=place.broker, transactional_id=f"t-{uuid.uuid4().hex}")
    producer.init_transactions()
    producer.begin_transaction()
    key, value, headers = pack(row("a", 6, b"2"))
    producer.send(place.store.topic, key=key, value=value, headers=headers, partition=0)
    producer.flush(timeout=30)
    place.publish(0, row("b", 5, b"3"))
    ticks = iter(range(10**9))
    hasty = place.another_store(clock=lambda: next(ticks) * 40.0)
    with pytest.raises(BrokerError, match=r"gives nothing after offset 1, of 3.*transaction may be open"):
        hasty.load(0)
    producer.commit_transaction() if fate == "commit" else producer.abort_transaction()
    loaded = place.store.load(0)
    producer.close(timeout=5)
    assert contents(loaded) == {"a": b"2" if fate == "commit" else b"1", "b": b"3"}


def test_ten_thousand_entities_of_four_kilobytes(place: Place) -> None:
    rng = np.random.default_rng(1)
    x_SW = rng.standard_normal((10_000, 1_000)).astype(np.float32)
    rows = [row(f"machine-{i:05}", 100, x_SW[i].tobytes()) for i in range(len(x_SW))]
    place.store.ensure()
    place.publish(0, *rows)
    assert contents(place.store.load(0)) == {r.name: r.data for r in rows}


@pytest.fixture(scope="module")
def quick_to_compact() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker(properties={"log.cleaner.backoff.ms": "200"}) as broker:
        yield broker


@pytest.fixture
def own(quick_to_compact: EmbeddedBroker) -> Iterator[Place]:
    admin = KafkaAdminClient(bootstrap_servers=quick_to_compact.bootstrap_servers)
    readings = f"readings-{uuid.uuid4().hex[:10]}"
    admin.create_topics({readings: {"num_partitions": 1, "replication_factor": 1}})
    admin.wait_for_topics([readings])
    made = Place(quick_to_compact.bootstrap_servers, admin, readings)
    yield made
    made.close()
    admin.close()


def test_after_compaction_the_newest_row_of_each_entity_is_there(own: Place) -> None:
    eager = {"cleanup.policy": "compact", "segment.ms": "100", "min.cleanable.dirty.ratio": "0.01"}
    own.admin.create_topics({own.store.topic: {"num_partitions": 1, "replication_factor": 1, "configs": eager}})
    own.admin.wait_for_topics([own.store.topic])
    for at in range(20):
        own.publish(0, *(row(f"pump-{i}", at, bytes([i, at])) for i in range(50)))
    newest = {f"pump-{i}": bytes([i, 19]) for i in range(50)}
    before = own.store.load(0)
    assert contents(before) == newest
    assert before.end == 1000

    def compacted() -> bool:
        own.publish(0, row("clock", 20, time.monotonic_ns().to_bytes(8, "big")))    # rolls the segment
        return sum(r.key != b"clock" for r in kafka.contents(own.broker, own.store.topic)) == 50

    until(compacted, 60)
    after = [r for r in own.store.load(0).records if name_of(r) != "clock"]
    assert {r.name: r.data for r in map(unpack, after)} == newest
    assert {r.offset for r in after} == {r.offset for r in before.records} == set(range(950, 1000))


def test_rows_on_their_way_when_the_producer_is_built_anew_are_given_up(
    own: Place, quick_to_compact: EmbeddedBroker
) -> None:
    own.store.ensure()
    own.publish(0, row("a", 1, b"1"))
    quick_to_compact.freeze()
    receipts = own.store.publish(0, [row("a", 2, bytes(5000)), row("b", 2, bytes(5000))])
    thaw = threading.Timer(1.0, quick_to_compact.thaw)
    thaw.start()
    own.sink.renew()                                        # what a batch does whose events were refused
    thaw.join()
    assert all(receipt.done() and receipt.error() is not None for receipt in receipts)
    own.publish(0, row("a", 3, b"3"))
    assert "a" in contents(own.store.load(0))


def test_a_damaged_batch_is_counted_and_passed(own: Place, quick_to_compact: EmbeddedBroker) -> None:
    own.store.ensure()
    for at in range(6):
        own.publish(0, row(f"pump-{at}", at, bytes(100)))
    segment = quick_to_compact.folder / "data" / f"{own.store.topic}-0" / f"{0:020}.log"
    with segment.open("r+b") as file:
        places = [place for place, offset in batches(segment.read_bytes()) if offset in (2, 3)]
        for place in places:
            file.seek(place)
            (byte,) = file.read(1)
            file.seek(place)
            file.write(bytes([byte ^ 0xFF]))
    loaded = own.store.load(0)
    assert loaded.unreadable == len(places) == 2
    assert {name_of(r) for r in loaded.records} >= {"pump-0", "pump-4", "pump-5"}
    assert loaded.end == 6


def batches(segment: bytes) -> Iterator[tuple[int, int]]:
    """Where each record batch's last byte lies, and its first offset."""
    place = 0
    while place < len(segment):
        offset, length = struct.unpack_from(">qi", segment, place)
        place += 12 + length
        yield place - 1, offset
