"""What must be on the topics: made by an undisturbed worker in memory, from the records as they lie on the input."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from kafka.consumer.fetcher import ConsumerRecord

from tests.worker.world import World
from worker.kafka.sink import Message

Document = dict[str, object]


class Expected(NamedTuple):
    events: dict[str, Document]         # by event_id
    dead: set[str]                      # places of the records that are no readings

    @classmethod
    def of(cls, registry: Path, records: Sequence[ConsumerRecord]) -> Expected:
        world = World(registry, records)
        try:
            world.source.topic = records[0].topic
            world.loop.run_until_drained()
        finally:
            World.made.remove(world)
            world.models.close()
        messages = world.sink.messages
        events = dict(_event(m) for m in messages if m.topic == "sensor-anomalies")
        dead = {place(m) for m in messages if m.topic.endswith(".dlq")}
        assert events
        return cls(events, dead)


class Verdict(NamedTuple):
    lost: int
    repeated: int                       # records more than there should be, of the same id
    wrong: list[str]                    # ids that should not be there, or whose content is another

    def sound(self, delivery: str) -> bool:
        return not self.lost and not self.wrong and (delivery == "at-least-once" or not self.repeated)


def judge(
    expected: Expected,
    events: Sequence[ConsumerRecord],
    dead: Sequence[ConsumerRecord],
    incidents: Sequence[ConsumerRecord],
) -> Verdict:
    found = [_event(record) for record in events]
    wrong = [name for name, document in found if expected.events.get(name) != document]
    places = [place(record) for record in dead]
    wrong += sorted(set(places) - expected.dead)
    lost = len(expected.events.keys() - {name for name, _ in found}) + len(expected.dead - set(places))
    told = [dict(record.headers)["ce_id"].decode() for record in incidents]
    return Verdict(lost, sum(_more(ids) for ids in ([name for name, _ in found], places, told)), wrong)


def place(record: ConsumerRecord | Message) -> str:
    headers = dict(record.headers)
    return "/".join(headers[f"source.{part}"].decode() for part in ("topic", "partition", "offset"))


def _event(record: ConsumerRecord | Message) -> tuple[str, Document]:
    document: Document = json.loads(record.value or b"")
    del document["detected_at"]                     # the one field that goes by the clock
    return str(document["event_id"]), document


def _more(ids: Iterable[str]) -> int:
    counts = Counter(ids)
    return counts.total() - len(counts)
