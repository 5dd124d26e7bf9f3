"""The loop on its in-memory ports: order of publish and commit, refusals, reloads, retries."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests import factory
from tests.worker.world import World, remembered, said
from worker.delivery.checkpoint import Stopped
from worker.memory import MemorySink, MemorySource, MemoryStateStore, MemoryTransactions
from worker.records import Batch, event_id
from worker.source import Change, Fetched
from worker.watch import Seen, Watch


def test_every_anomaly_becomes_one_event_and_every_record_is_committed(folder: Path) -> None:
    world = World(folder, factory.records(factory.random_readings(500, anomalous_every=50)))
    world.loop.run_until_drained()
    events = world.events()
    assert [event["source"]["offset"] for event in events] == list(range(49, 500, 50))  # type: ignore[index]
    assert world.source.committed == {0: 500}
    assert events[0]["event_id"] == str(event_id("sensor-readings", 0, 49))
    assert events[0]["contributions"][0]["feature"] == "pressure"  # type: ignore[index]
    assert 'zmu_records_scored_total{model_version="v1"} 500.0' in world.exposition()
    assert "zmu_realised_alarm_rate 0.02" in world.exposition()
    assert "_created" not in world.exposition()


def test_the_batch_size_changes_no_event(folder: Path) -> None:
    values = factory.random_readings(300, anomalous_every=10)
    seen = []
    for size in (1, 7, 300):
        world = World(folder, factory.records(values), batch=size)
        world.loop.run_until_drained()
        seen.append([{k: v for k, v in event.items() if k != "detected_at"} for event in world.events()])
    assert seen[0] == seen[1] == seen[2]


def test_refused_records_become_dead_letters_as_received(folder: Path) -> None:
    values = [*factory.random_readings(3, 10), b"junk", None, b'{"pressure": "x"}']
    world = World(folder, factory.records(values))
    world.loop.run_until_drained()
    dead = [m for m in world.sink.messages if m.topic == "sensor-readings.dlq"]
    assert [m.value for m in dead] == [b"junk", None, b'{"pressure": "x"}']
    headers = dict(dead[2].headers)
    assert headers["error.code"] == b"wrong_type"
    assert headers["error.feature"] == b"pressure"
    assert headers["source.offset"] == b"5"
    assert world.source.committed == {0: 6}
    assert 'zmu_records_dead_lettered_total{reason="empty"} 1.0' in world.exposition()


def test_nothing_is_committed_before_the_output_took_it(folder: Path) -> None:
    world = World(folder, factory.records(factory.random_readings(10, 5)), MemorySink([OSError("refused")] * 3))
    world.loop.run_until_drained()
    assert len(world.slept) >= 2                     # it waited, and sent again
    assert len(world.events()) == 2
    assert world.source.committed == {0: 10}


def test_told_to_stop_while_the_output_refuses_it_commits_nothing(folder: Path) -> None:
    world = World(folder, factory.records(factory.random_readings(10, 5)), MemorySink([OSError("refused")] * 100))
    world.stopping = lambda: bool(world.slept)
    with pytest.raises(Stopped, match="refused"):
        world.loop.run()
    assert world.source.committed == {0: 0}         # where a fresh group began, and no more


def test_a_newer_champion_is_taken_between_two_batches(folder: Path) -> None:
    world = World(folder, factory.records(factory.random_readings(100, 10)), batch=10)
    world.loop._turn()
    world.loop._turn()
    factory.publish(folder, "v2")
    world.models.look()
    world.loop.run_until_drained()
    versions = [event["model"]["version"] for event in world.events()]  # type: ignore[index]
    assert versions == ["v1"] + ["v2"] * 9
    assert world.source.committed == {0: 100}


@pytest.mark.parametrize("fault", ["features", "hash", "missing"])
def test_a_champion_that_does_not_fit_is_refused_and_the_old_one_stays(folder: Path, fault: str) -> None:
    world = World(folder, factory.records(factory.random_readings(20, 10)), batch=10)
    if fault == "features":
        factory.publish(folder, "v2", features=("pressure", "temperature", "flow"))
    elif fault == "hash":
        factory.publish(folder, "v2", sha256="0" * 64)
    else:
        (folder / "default" / "aliases" / "champion").write_text("v7")
    for _ in range(3):
        world.models.look()
    world.loop.run_until_drained()
    assert {event["model"]["version"] for event in world.events()} == {"v1"}  # type: ignore[index]
    assert 'zmu_model_reloads_total{result="refused"} 1.0' in world.exposition()    # said once, not at every look


def test_a_registry_that_goes_away_costs_nothing_but_a_count(folder: Path) -> None:
    world = World(folder, factory.records(factory.random_readings(20, 10)), batch=10)
    (folder / "default").rename(folder / "gone")
    (folder / "default").write_text("in the way")
    world.models.look()
    world.loop.run_until_drained()
    assert world.source.committed == {0: 20}
    assert 'zmu_errors_total{stage="reload"' in world.exposition()


def test_a_version_whose_files_come_late_is_taken(folder: Path) -> None:
    world = World(folder, factory.records(factory.random_readings(20, 10)), batch=10)
    factory.publish(folder, "v2")
    weights = folder / "default" / "v2" / "model.safetensors"
    weights.rename(folder / "late")
    world.models.look()
    assert not world.models.take()
    (folder / "late").rename(weights)
    world.models.look()
    assert world.models.take()
    assert world.models.current.version == "v2"


def test_partitions_that_came_and_went_meanwhile_are_left_alone(folder: Path) -> None:
    world = World(folder, factory.records(factory.random_readings(20, 10)))
    world.loop._rebalance([Change("assigned", (0, 5)), Change("lost", (5,))])
    assert 5 not in world.source.committed
    assert 'partition="5"' not in world.exposition()


class Expiring(MemorySource):
    """Its partition 0 loses what lies before 150, and the same poll gives readings of the other."""

    expired = False

    def poll(self, max_records: int, max_wait_seconds: float, idle_seconds: float) -> Fetched:
        fetched = super().poll(max_records, max_wait_seconds, idle_seconds)
        if not self.expired and self._positions.get(1, 0) > 100:
            self.expired = True
            self.seek(0, 150)
            self.commit({0: 150}, {0: ""})
            fetched.changes.append(Change("rewound", (0,)))
        return fetched


@pytest.mark.parametrize("sink", [MemorySink, MemoryTransactions])
def test_where_offsets_expire_a_partition_begins_anew_and_its_old_offset_is_not_committed_again(
    tmp_path: Path, sink: type[MemorySink]
) -> None:
    factory.publish(tmp_path, **factory.remembering())  # type: ignore[arg-type]
    records = remembered(600)
    zero, one = ([r for r in records if r.partition == p] for p in (0, 1))
    source = Expiring("sensor-readings", [*zero[:100], *one])
    world = World(tmp_path, [], sink(), batch=200, store=MemoryStateStore(), source=source)
    while not source.expired:
        world.loop._turn()
    world.loop._tend()
    assert world.loop._partitions.held()[0] == 150
    world.loop.run_until_drained()
    assert source.committed == {0: 150, 1: len(one)}
    assert 'zmu_rebalances_total{kind="rewound"}' in world.exposition()
    # The partition that lost nothing says what it would have said alone; but for group_id, which others may give.
    alone = World(tmp_path, one, batch=200)
    alone.loop.run_until_drained()
    here, there = ({name: d | {"group_id": None} for name, d in said(w).items()} for w in (alone, world))
    assert here
    assert {name: there.get(name) for name in here} == here


@pytest.mark.parametrize("seed", range(6))
def test_no_crash_changes_a_score(tmp_path: Path, seed: int) -> None:
    factory.publish(tmp_path, **factory.remembering())  # type: ignore[arg-type]
    records = remembered(600)
    undisturbed = World(tmp_path, records, batch=32)
    undisturbed.loop.run_until_drained()
    expected = said(undisturbed)
    kinds = {document.get("kind", document.get("state")) for document in expected.values()}
    assert {"anomaly", "missing", "open"} <= kinds

    chance = random.Random(seed)
    store = MemoryStateStore()
    source = MemorySource("sensor-readings", records)
    worlds = []
    while not worlds or sum(source.committed.values()) < len(records):
        survivor = MemorySource("sensor-readings", records)
        survivor.committed, survivor.notes = dict(source.committed), dict(source.notes)
        source = survivor
        worlds.append(World(tmp_path, records, batch=chance.choice([1, 7, 32]), store=store, source=source))
        for _ in range(chance.randint(2, 8)):       # and then it is gone, in the middle of things
            worlds[-1].loop._turn()
        store.compact(0, chance.randint(0, 200))
    assert len(worlds) > 5
    assert said(*worlds) == expected


class Outside(MemorySource):
    """A broker answers, and the group takes no one in."""

    def poll(self, max_records: int, max_wait_seconds: float, idle_seconds: float) -> Fetched:
        return Fetched()


def test_a_member_that_the_group_never_takes_in_is_stuck_in_the_end(folder: Path) -> None:
    now = 0.0
    source = Outside("sensor-readings", factory.records(factory.random_readings(3, 10)))
    world = World(folder, (), source=source, clock=lambda: now)
    patience_seconds = world.settings.kafka.max_poll_interval_ms / 1000

    def stopping() -> bool:
        nonlocal now
        now += 0.5
        return bool(world.heartbeat.fault) or now > 2 * patience_seconds

    world.stopping = stopping
    world.loop.run()
    assert "the group does not take us in" in world.heartbeat.fault
    assert patience_seconds < now < patience_seconds + 15       # a slow member is waited for; the limit is 10 s here


class Whole(MemorySource):
    """A producer's batch is taken whole, however many readings it holds."""

    def poll(self, max_records: int, max_wait_seconds: float, idle_seconds: float) -> Fetched:
        return super().poll(1_000_000, max_wait_seconds, idle_seconds)


def test_a_batch_larger_than_asked_for_is_scored_in_parts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = factory.records(factory.random_readings(300, anomalous_every=10))
    plain = World(folder, records)
    plain.loop.run_until_drained()
    world = World(folder, (), batch=64, source=Whole("sensor-readings", records))
    sizes: list[int] = []
    process = Watch.process

    def noted(watch: Watch, batch: Batch) -> Seen:
        sizes.append(len(batch))
        return process(watch, batch)

    monkeypatch.setattr(Watch, "process", noted)
    world.loop.run_until_drained()
    assert sizes == [64, 64, 64, 64, 44]
    assert said(world) == said(plain)
    assert world.source.committed == {0: 300}
