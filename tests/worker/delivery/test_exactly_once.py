"""Transactions on in-memory ports: what is read committed, whatever goes wrong."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from kafka.errors import KafkaTimeoutError, MessageSizeTooLargeError

from tests import factory
from tests.worker.world import Sending, World, landed, remembered, said
from worker.delivery.checkpoint import Stopped
from worker.delivery.exactly_once import ExactlyOnce
from worker.heartbeat import Heartbeat
from worker.kafka.sink import Failed, Message
from worker.memory import MaybeCommitted, MemorySource, MemoryStateStore, MemoryTransactions
from worker.metrics import Metrics
from worker.source import Change, Fetched, Pledge

FOREVER = 1e9


def identities(*worlds: World) -> Counter[str]:
    """Of all that can be read, how often."""
    found: Counter[str] = Counter()
    for world in worlds:
        for message in world.sink.messages:
            if message.topic != "state":
                found[str(dict(message.headers)["ce_id"])] += 1
    return found


def test_events_and_offsets_show_together(folder: Path) -> None:
    world = World(
        folder, factory.records(factory.random_readings(100, 10)), MemoryTransactions(), batch=10,
        interval_seconds=FOREVER,
    )
    for _ in range(5):
        world.loop._turn()
    assert isinstance(world.sink, MemoryTransactions)
    assert world.sink.messages == []
    assert world.source.committed == {0: 0}
    assert len([m for m in world.sink.open if m.topic == "sensor-anomalies"]) == 4
    world.loop.run_until_drained()
    assert len(world.events()) == 10
    assert world.source.committed == {0: 100}
    assert 'zmu_transactions_total{result="committed"} 2.0' in world.exposition()    # the second is of the leaving


def test_what_is_refused_is_sent_again_with_all_the_rest(folder: Path) -> None:
    sink = MemoryTransactions([KafkaTimeoutError("slow")] * 3)
    world = World(folder, factory.records(factory.random_readings(100, 10)), sink, batch=50)
    world.loop.run_until_drained()
    assert sink.renewals == 3
    assert set(identities(world).values()) == {1}
    assert len(world.events()) == 10
    assert world.source.committed == {0: 100}
    assert 'zmu_rebalances_total{kind="rewound"} 0.0' in world.exposition()


@pytest.mark.parametrize("took_place", [False, True])
def test_a_commit_without_an_answer_is_settled_by_a_producer_built_anew(folder: Path, took_place: bool) -> None:
    lost: Exception = MaybeCommitted("lost") if took_place else KafkaTimeoutError("lost")
    sink = MemoryTransactions(endings=[None, lost, None, lost])
    world = World(folder, factory.records(factory.random_readings(200, 10)), sink, batch=20)
    world.loop.run_until_drained()
    assert sink.renewals == 2
    assert set(identities(world).values()) == {1}
    assert len(world.events()) == 20
    assert world.source.committed == {0: 200}
    assert 'zmu_rebalances_total{kind="rewound"} 2.0' in world.exposition()


def test_told_to_stop_while_the_output_refuses_it_commits_nothing(folder: Path) -> None:
    sink = MemoryTransactions([KafkaTimeoutError("refused")] * 100)
    world = World(folder, factory.records(factory.random_readings(10, 5)), sink)
    world.stopping = lambda: bool(world.slept)
    with pytest.raises(Stopped, match="refused"):
        world.loop.run()
    assert world.source.committed == {0: 0}
    assert sink.messages == []


class Leaving(MemorySource):
    """A group that takes partition 0 away once, with records of partition 1 on their way, and gives it back."""

    def __init__(self, topic: str, records: Sequence[object], at: int) -> None:
        super().__init__(topic, records)        # type: ignore[arg-type]
        self.at, self.polls, self.away = at, 0, False

    def poll(self, max_records: int, max_wait_seconds: float, idle_seconds: float) -> Fetched:
        self.polls += 1
        if self.polls == self.at:
            self.away = True
            self.committed[0] += 5                                      # another's work
            fetched = super().poll(max_records, max_wait_seconds, idle_seconds)
            fetched.records = [r for r in fetched.records if r.partition == 1]
            fetched.changes = [Change("revoked", (0,))]
            return fetched
        if self.polls == self.at + 3:
            self.away = False
            return Fetched(changes=[Change("assigned", (0,))])
        fetched = super().poll(max_records, max_wait_seconds, idle_seconds)
        fetched.records = [r for r in fetched.records if not (self.away and r.partition == 0)]
        return fetched

    def assignment(self) -> set[int]:
        return set(super().assignment()) - ({0} if self.away else set())

    def commit(self, offsets: Mapping[int, int], notes: Mapping[int, str]) -> None:
        assert not (self.away and 0 in offsets), "of a partition that is another's"
        super().commit(offsets, notes)


@pytest.mark.parametrize("at", [3, 4, 7])
def test_what_belongs_to_a_lost_partition_never_shows(folder: Path, at: int) -> None:
    values = factory.random_readings(100, 5)
    records = [*factory.records(values), *factory.records(values, partition=1)]
    source = Leaving("sensor-readings", records, at)
    world = World(folder, records, MemoryTransactions(), batch=16, source=source, interval_seconds=FOREVER)
    world.loop.run_until_drained()
    found = identities(world)
    assert set(found.values()) == {1}
    assert source.committed == {0: 100, 1: 100}
    begun = {event["source"]["partition"] for event in world.events()}    # type: ignore[index]
    assert begun == {0, 1}
    # The five of the other owner are not ours to say.
    assert len(world.events()) == 40 - 1
    assert 'zmu_transactions_total{result="aborted"} 1.0' in world.exposition()


class Narrow(MemoryTransactions):
    """Takes no value of more than 1,000 bytes; one too large takes the others of its group down with it."""

    def send(self, message: Message) -> Failed:     # type: ignore[override]
        if len(message.value or b"") > 1000:
            return Failed(MessageSizeTooLargeError("too large"))
        return super().send(message)                # type: ignore[return-value]


def test_a_dead_letter_too_large_for_its_topic_goes_without_its_value(folder: Path) -> None:
    values = [*factory.random_readings(20, 10), b"x" * 5000, b"junk", b"y" * 2000, b"z" * 3000]
    world = World(folder, factory.records(values), Narrow(), batch=8)
    world.loop.run_until_drained()
    dead = [(m.value, dict(m.headers).get("value.omitted_bytes")) for m in world.sink.messages if "dlq" in m.topic]
    assert dead == [(b"", b"5000"), (b"junk", None), (b"", b"2000"), (b"", b"3000")]
    assert len(world.events()) == 2
    assert world.source.committed == {0: 24}


class Slow(MemoryTransactions):
    """A commit that the broker answers when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.answered = False

    def commit(self, pledge: Pledge) -> Slow:       # type: ignore[override]
        self._pledge = pledge
        return self

    def done(self) -> bool:
        if self.answered and self.open:
            super().commit(self._pledge)
        return self.answered

    def error(self) -> None:
        return None


def test_while_a_commit_is_under_way_the_loop_goes_on_and_its_messages_wait(folder: Path) -> None:
    sink = Slow()
    world = World(folder, factory.records(factory.random_readings(100, 10)), sink, batch=10)
    for _ in range(5):
        world.loop._turn()
    assert len([m for m in sink.open if m.topic == "sensor-anomalies"]) == 1     # the first batch's, being committed
    assert world.source.position(0) == 40
    sink.answered = True
    world.loop.run_until_drained()
    assert len(world.events()) == 10
    assert set(identities(world).values()) == {1}
    assert world.source.committed == {0: 100}


def test_rows_of_state_that_are_refused_are_sent_again_and_the_snapshot_holds(folder: Path) -> None:
    topic = MemoryStateStore()
    sink = StateToo(topic, [])
    world = World(folder, factory.records(factory.random_readings(60, 10)), sink, batch=10, store=Sending(topic))
    world.loop._turn()
    world.loop._turn()
    sink._refusals = [ValueError("a partition that it has not heard of")] * 3
    world.loop.run_until_drained()
    assert sink.renewals == 3
    assert 'zmu_snapshots_total{result="failed"} 0.0' in world.exposition()
    assert set(identities(world).values()) == {1}
    assert world.source.committed == {0: 60}
    assert world.source.notes[0].startswith("s=60,")


def test_a_commit_that_hangs_is_given_up() -> None:
    now = [0.0]
    source, sink = MemorySource("sensor-readings", factory.records(factory.random_readings(9, 3))), Slow()
    source.poll(0, 0, 0)
    checkpoint = ExactlyOnce(
        source, sink, 0.0, Metrics(), Heartbeat(10), lambda: False, clock=lambda: now[0], sleep=lambda _: None
    )
    assert checkpoint.complete([Message("t", b"k", b"v", [])], {0: 3}, {}) == []
    now[0] = 29.0
    assert checkpoint.settle() == []
    assert sink.renewals == 0
    now[0] = 31.0
    assert checkpoint.settle() == [Change("rewound", (0,))]
    assert sink.renewals == 1
    assert checkpoint.writable
    assert checkpoint.due_seconds == float("inf")
    assert source.committed == {}


@pytest.mark.parametrize("seed", range(6))
def test_no_crash_changes_a_score_or_repeats_one(tmp_path: Path, seed: int) -> None:
    factory.publish(tmp_path, **factory.remembering())  # type: ignore[arg-type]
    records = remembered(600)
    undisturbed = World(tmp_path, records, batch=32)
    undisturbed.loop.run_until_drained()
    expected = said(undisturbed)

    chance = random.Random(seed)
    source = MemorySource("sensor-readings", records)
    topic = MemoryStateStore()
    worlds = []
    while not worlds or sum(source.committed.values()) < len(records):
        survivor = MemorySource("sensor-readings", records)
        survivor.committed, survivor.notes = dict(source.committed), dict(source.notes)
        source = survivor
        endings = [chance.choice([None, None, None, KafkaTimeoutError("x"), MaybeCommitted("x")]) for _ in range(10)]
        sink = StateToo(topic, endings)
        world = World(
            tmp_path, records, sink, batch=chance.choice([1, 7, 32]), store=Sending(topic), source=source,
            interval_seconds=chance.choice([0.0, 0.0, 0.01]),
        )
        worlds.append(world)
        for _ in range(chance.randint(2, 12)):      # and then it is gone, in the middle of things
            world.loop._turn()
        topic.compact(0, chance.randint(0, 200))
    assert len(worlds) > 3
    assert said(*worlds) == expected
    assert set(identities(*worlds).values()) == {1}


class StateToo(MemoryTransactions):
    """Rows of state show with the rest."""

    def __init__(self, topic: MemoryStateStore, endings: Sequence[Exception | None]) -> None:
        super().__init__(endings=endings)
        self._topic = topic

    def commit(self, pledge: Pledge) -> object:     # type: ignore[override]
        before = len(self.messages)
        outcome = super().commit(pledge)
        for message in self.messages[before:]:
            if message.topic == "state":
                landed(message, self._topic)
        self.messages = [message for message in self.messages if message.topic != "state"]
        return outcome
