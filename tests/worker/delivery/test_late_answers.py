"""At least once, with an output that answers when it likes: no crash changes a score or loses one."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import factory
from tests.worker.world import Sending, World, landed, remembered, said
from worker.kafka.sink import Message
from worker.memory import MemorySink, MemorySource, MemoryStateStore


class Late(MemorySink):
    """Acknowledges when it likes, and a message lands no sooner. Rows of state land on their topic."""

    def __init__(self, topic: MemoryStateStore, chance: random.Random) -> None:
        super().__init__()
        self._topic, self._chance = topic, chance

    def send(self, message: Message) -> LateAnswer:     # type: ignore[override]
        return LateAnswer(lambda: self._land(message))

    def _land(self, message: Message) -> bool:
        if self._chance.random() < 0.2:
            return False
        if message.topic == "state":
            landed(message, self._topic)
        else:
            self.messages.append(message)
        return True


class LateAnswer:
    def __init__(self, land: Callable[[], bool]) -> None:
        self._land, self._done = land, False

    def error(self) -> None:
        return None

    def done(self) -> bool:
        self._done = self._done or self._land()
        return self._done


@pytest.mark.parametrize("seed", range(6))
def test_no_crash_changes_a_score_or_loses_one(tmp_path: Path, seed: int) -> None:
    factory.publish(tmp_path, **factory.remembering())  # type: ignore[arg-type]
    records = remembered(600)
    undisturbed = World(tmp_path, records, batch=32)
    undisturbed.loop.run_until_drained()
    expected = said(undisturbed)

    chance = random.Random(seed)
    source = MemorySource("sensor-readings", records)
    topic = MemoryStateStore()
    worlds: list[World] = []
    while not worlds or sum(source.committed.values()) < len(records):
        survivor = MemorySource("sensor-readings", records)
        survivor.committed, survivor.notes = dict(source.committed), dict(source.notes)
        source = survivor
        world = World(
            tmp_path, records, Late(topic, chance), batch=chance.choice([7, 32]), store=Sending(topic),
            source=source, interval_seconds=chance.choice([0.0, 0.0, 0.01]),
        )
        worlds.append(world)
        for _ in range(chance.randint(2, 12)):      # and then it is gone, in the middle of things
            world.loop._turn()
        assert 'zmu_state_entities_total{result="lost"} 0.0' in world.exposition()
        topic.compact(0, chance.randint(0, 200))
    assert len(worlds) > 3
    assert said(*worlds) == expected
