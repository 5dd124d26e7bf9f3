"""Arrow records through the whole loop: what JSON readings would have given, each event of a row of its own, also after
crashes at any point.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pytest

from tests import factory
from tests.worker.streams import rows_of, stream
from tests.worker.world import World, remembered, said
from worker.codec.readings import STREAM
from worker.memory import MemorySource, MemoryStateStore
from worker.records import PlainRecord, Record, event_id

Said = dict[str, dict[str, Any]]


def batched(records: Sequence[Record], seed: int = 1) -> list[Record]:
    """The same readings in the same order, many of them to a record; some stay as they are."""
    chance = random.Random(seed)
    found: list[Record] = []
    for partition, some in groupby(sorted(records, key=lambda r: r.partition), key=lambda r: r.partition):
        left, offset = list(some), 0
        while left:
            taken, left = left[: (n := chance.choice((1, 2, 5, 40)))], left[n:]
            value = taken[0].value if n == 1 else _stream(taken)
            key = taken[0].key if n == 1 else b"line"
            found.append(PlainRecord("sensor-readings", partition, offset, 0, key, value))
            offset += 1
    return found


def _stream(records: Sequence[Record]) -> bytes:
    rows = [json.loads(record.value or b"") for record in records]
    columns = {name: pa.array([row[name] for row in rows], pa.float64()) for name in factory.FEATURES}
    stamps = pa.array([row["timestamp"] for row in rows], pa.timestamp("ms"))
    names = pa.array([(record.key or b"").decode() for record in records])
    return stream({**columns, "timestamp": stamps, "entity": names.dictionary_encode()})


PLACES = {"event_id", "source", "incident_id", "first_event_id", "last_event_id", "group_id"}


def events(*worlds: World) -> Said:
    return {name: document for name, document in said(*worlds).items() if "kind" in document}


def told(found: Said) -> list[dict[str, Any]]:
    """Without what says where the readings lay."""
    bare = [{k: v for k, v in document.items() if k not in PLACES} for document in found.values()]
    return sorted(bare, key=lambda document: json.dumps(document, sort_keys=True))


def test_the_same_scores_as_in_json_and_each_event_names_its_row(tmp_path: Path) -> None:
    factory.publish(tmp_path, **factory.remembering())  # type: ignore[arg-type]
    records = remembered(600)
    plain = World(tmp_path, records)
    plain.loop.run_until_drained()
    world = World(tmp_path, batched(records))
    world.loop.run_until_drained()
    found = events(world)
    assert told(said(world)) == told(said(plain))
    assert {event["kind"] for event in found.values()} == {"anomaly", "missing"}

    at = {(record.partition, record.offset): record for record in batched(records)}
    for name, event in found.items():
        source = event["source"]
        record = at[source["partition"], source["offset"]]
        value, row = record.value or b"", source.get("row")
        assert (row is not None) == (value[:4] == STREAM)
        reading = json.loads(value) if row is None else rows_of(value)[row]
        assert reading.get("entity", (record.key or b"").decode()) == event["entity"]
        kind = event["kind"]
        assert UUID(name) == event_id("sensor-readings", source["partition"], source["offset"], kind, row)
    assert sum("row" in event["source"] for event in found.values()) > 20
    assert 'zmu_records_consumed_total{partition="0",topic="sensor-readings"} ' in world.exposition()
    assert 'zmu_records_scored_total{model_version="v1"} 600.0' in world.exposition()


@pytest.mark.parametrize("seed", range(4))
def test_no_crash_changes_a_score_or_an_id(tmp_path: Path, seed: int) -> None:
    """Rows of a record share its offset: it is done with all of them, or comes again with the same ids."""
    factory.publish(tmp_path, **factory.remembering())  # type: ignore[arg-type]
    records = batched(remembered(600), seed)
    undisturbed = World(tmp_path, records, batch=4)
    undisturbed.loop.run_until_drained()
    chance = random.Random(seed)
    store = MemoryStateStore()
    source = MemorySource("sensor-readings", records)
    worlds: list[World] = []
    while not worlds or sum(source.committed.values()) < len(records):
        survivor = MemorySource("sensor-readings", records)
        survivor.committed, survivor.notes = dict(source.committed), dict(source.notes)
        source = survivor
        worlds.append(World(tmp_path, records, batch=chance.choice([1, 2, 5]), store=store, source=source))
        for _ in range(chance.randint(2, 8)):
            worlds[-1].loop._turn()
        store.compact(0, chance.randint(0, 200))
    assert len(worlds) > 5
    assert said(*worlds) == said(undisturbed)


def test_incidents_are_of_rows(folder: Path) -> None:
    """Two entities go wrong in one record: two incidents, each with the ids of its own events."""
    far = {"temperature": 20.0, "pressure": 9.0, "flow": 50.0}
    columns = {name: [value] * 12 for name, value in far.items()}
    world = World(folder, factory.records([stream({**columns, "entity": ["a", "b"] * 6})]))
    world.loop.run_until_drained()
    found = said(world)
    ids = {name: event["source"]["row"] for name, event in found.items() if "kind" in event}
    opened = [document for document in found.values() if document.get("state") == "open"]
    assert sorted(incident["entity"] for incident in opened) == ["a", "b"]
    assert len({incident["incident_id"] for incident in opened}) == 2
    for incident in opened:
        source = incident["source"]
        assert (source["offset"], source["row"] % 2) == (0, "ab".index(incident["entity"]))
        assert ids[incident["first_event_id"]] == "ab".index(incident["entity"])
        assert ids[incident["last_event_id"]] == source["row"]
        place = event_id("sensor-readings", 0, 0, "incident", source["row"])
        assert incident["incident_id"] == str(place)
    assert len({incident["group_id"] for incident in opened}) == 1


def test_bad_rows_are_dead_letters_and_the_others_are_scored(folder: Path) -> None:
    far = {"temperature": [20.0] * 4, "pressure": [9.0, float("nan"), 9.0, None], "flow": [50.0] * 4}
    records = factory.records([stream({**far, "entity": ["a", "b", "", "d"]}), b"\xff\xff\xff\xffjunk"])
    world = World(folder, records)
    world.loop.run_until_drained()
    assert [(event["entity"], event["source"]["row"]) for event in world.events()] == [("a", 0)]
    letters = [m for m in world.sink.messages if m.topic == "sensor-readings.dlq"]
    headers = [{name: value.decode() for name, value in letter.headers} for letter in letters]
    assert {said["error.code"]: said.get("source.row") for said in headers} == {
        "bad_entity": "2", "non_finite": "1", "invalid_arrow": None,
    }  # fmt: skip
    assert [row["entity"] for letter in letters[:2] for row in rows_of(letter.value or b"")] == ["", "b"]
    assert letters[2].value == records[1].value
    exposition = world.exposition()
    assert 'zmu_records_dead_lettered_total{reason="non_finite"} 1.0' in exposition
    assert 'zmu_records_consumed_total{partition="0",topic="sensor-readings"} 5.0' in exposition
    assert world.source.committed == {0: 2}
