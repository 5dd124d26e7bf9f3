"""ZMU_OUTPUT__DELIVERY=exactly-once against a real Kafka. What kill -9 and zombies do to it: tests/faults."""

from __future__ import annotations

import random
import uuid
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from kafka import KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka.errors import CommitFailedError, KafkaError

from tests import factory
from tests.integration.conftest import Plant, much_junk
from tests.integration.test_worker import expected_ids, ids
from tests.programs import Program, until
from worker.kafka.offsets import GroupOffsets
from worker.kafka.sink import Message, Receipt
from worker.kafka.transactions import KafkaTransactions
from worker.settings import KafkaSettings, OutputSettings
from worker.source import Pledge

READINGS = factory.random_readings(4000, anomalous_every=100)
EXACTLY_ONCE = {"ZMU_OUTPUT__DELIVERY": "exactly-once", "ZMU_BATCH__MAX_RECORDS": "50"}


def test_told_to_stop_and_started_again(plant: Plant) -> None:
    environment = plant.environment | EXACTLY_ONCE
    plant.send([*READINGS, b"junk", None])
    with Program("worker", "run", **environment) as worker:
        until(lambda: worker.metric('zmu_transactions_total{result="committed"}') > 1, 60, lambda: worker.stderr)
        assert worker.stop() == 0, worker.stderr
    with Program("worker", "run", "--until-drained", **environment) as worker:
        assert worker.wait() == 0, worker.stderr
    assert ids(plant) == Counter(expected_ids(plant))
    assert len(plant.read("dead")) == 2
    assert sum(plant.committed().values()) == len(READINGS) + 2


def test_a_dead_letter_too_large_for_its_topic_goes_without_its_value(plant: Plant, topic: Callable[..., str]) -> None:
    plant.topics["dead"] = topic(1, name="small", max_message_bytes=2000)
    plant.send([*READINGS[:200], random.Random(0).randbytes(100_000), b"junk"])     # incompressible
    environment = plant.environment | EXACTLY_ONCE | {"ZMU_DEAD_LETTERS__TOPIC": plant.topics["dead"]}
    with Program("worker", "run", "--until-drained", **environment) as worker:
        assert worker.wait() == 0, worker.stderr
    assert sorted(r.value for r in plant.read("dead")) == [b"", b"junk"]
    assert ids(plant) == Counter(expected_ids(plant))


def test_dead_letters_too_large_together_for_their_topic_go_in_smaller_batches(
    plant: Plant, topic: Callable[..., str]
) -> None:
    junk = much_junk(plant, topic)
    environment = plant.environment | EXACTLY_ONCE | {"ZMU_DEAD_LETTERS__TOPIC": plant.topics["dead"]}
    with Program("worker", "run", "--until-drained", **environment) as worker:
        assert worker.wait() == 0, worker.stderr
    assert sorted(record.value for record in plant.read("dead")) == sorted(junk)


class Member:
    """A member of the group, and a producer of the name."""

    def __init__(self, plant: Plant, name: str) -> None:
        self._plant, self.topic = plant, plant.topics["input"]
        self.output = KafkaTransactions(
            KafkaSettings(bootstrap_servers=plant.broker), OutputSettings(transaction_timeout_ms=5_000), 10_000, name
        )
        self.consumer = KafkaConsumer(
            self.topic, bootstrap_servers=plant.broker, group_id=plant.environment["ZMU_INPUT__GROUP_ID"],
            enable_auto_commit=False, metadata_max_age_ms=1_000,
        )

    def join(self) -> object:
        """Returns who it then is."""
        while not self.consumer.assignment():
            self.consumer.poll(timeout_ms=100)
        return self.consumer.group_metadata()

    def commit(self, offset: int, member: object) -> Receipt:
        offsets = {TopicPartition(self.topic, 0): OffsetAndMetadata(offset, "", -1)}
        outcome = self.output.commit(Pledge(offsets, member))
        until(outcome.done, 30)
        return outcome

    def say(self, text: bytes) -> None:
        receipt = self.output.send(Message(self._plant.topics["output"], b"key", text, []))
        self.output.flush(30)
        assert receipt.error() is None

    def close(self) -> None:
        self.output.close()
        self.consumer.close(autocommit=False)


@pytest.fixture
def member(plant: Plant) -> Iterator[Callable[[str], Member]]:
    made: list[Member] = []

    def make(name: str) -> Member:
        made.append(Member(plant, name))
        return made[-1]

    yield make
    for each in made:
        each.close()


def said(plant: Plant) -> list[bytes | None]:
    return [record.value for record in plant.read("output")]


def test_a_successor_of_the_same_name_shuts_out_the_one_before(plant: Plant, member: Callable[[str], Member]) -> None:
    name = f"t-{uuid.uuid4().hex}"
    zombie = member(name)
    who = zombie.join()
    zombie.say(b"first")
    assert zombie.commit(1, who).error() is None
    zombie.say(b"zombie")
    heir = member(name)
    heir.say(b"heir")
    assert isinstance(zombie.commit(2, who).error(), KafkaError)
    assert heir.commit(3, who).error() is None
    assert said(plant) == [b"first", b"heir"]
    assert plant.committed()[0] == 3


def test_the_group_refuses_a_member_of_the_past(plant: Plant, member: Callable[[str], Member]) -> None:
    one = member(f"t-{uuid.uuid4().hex}")
    who = one.join()
    one.say(b"first")
    assert one.commit(1, who).error() is None
    one.say(b"late")
    past = who._replace(generation_id=who.generation_id - 1)        # type: ignore[attr-defined]
    assert isinstance(one.commit(2, past).error(), CommitFailedError)
    one.output.renew()
    assert said(plant) == [b"first"]
    assert plant.committed()[0] == 1
    one.say(b"again")
    assert one.commit(2, who).error() is None
    assert said(plant) == [b"first", b"again"]


def test_a_member_that_the_group_has_forgotten_stands_by_its_old_name(
    plant: Plant, member: Callable[[str], Member]
) -> None:
    """kafka-python would commit in no name, and the group take it."""
    one = member(f"t-{uuid.uuid4().hex}")
    one.join()
    offsets = GroupOffsets(one.consumer, one.topic, "earliest", 10_000)
    who = offsets.member()
    one.consumer._coordinator.reset_generation()        # as its heartbeat does when the group no longer knows it
    assert one.consumer.group_metadata().generation_id == -1
    assert offsets.member() == who
    past = who._replace(generation_id=who.generation_id + 1)    # type: ignore[attr-defined]
    one.say(b"late")
    assert isinstance(one.commit(2, past).error(), CommitFailedError)
    assert plant.committed()[0] == 0


def test_what_is_aborted_does_not_show_and_holds_nobody_up(plant: Plant, member: Callable[[str], Member]) -> None:
    one = member(f"t-{uuid.uuid4().hex}")
    one.say(b"dropped")
    one.output.abort()
    one.say(b"kept")
    assert one.commit(5, one.join()).error() is None
    assert said(plant) == [b"kept"]
