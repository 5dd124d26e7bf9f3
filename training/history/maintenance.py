"""Times in which machines are worked on, told on a topic of their own that each training reads whole.

    key "pump-3/bearing", value {"start": "2026-01-31T08:00:00Z", "end": "2026-01-31T12:00:00Z", "entities": ["pump-3"]}

The last word on a key counts, and no value takes it back: the topic may be compacted. Records without a key stand each
for itself. Other fields (who, why) are welcome and not looked at.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import msgspec
from msgspec import Meta
from pydantic import ValidationError

from training.progress import Progress
from training.settings import Maintenance, Settings
from worker.kafka import topics
from worker.records import Record

MOST_RECORDS = 200_000                  # that are read, the newest

_TIME = {"format": "date-time"}


class Work(msgspec.Struct, frozen=True):
    """A value of the maintenance topic."""

    start: Annotated[str, Meta(description="RFC 3339; UTC where it names no zone.", extra_json_schema=_TIME)]
    end: Annotated[str, Meta(description="Later than `start`; itself not part of it.", extra_json_schema=_TIME)]
    entities: Annotated[tuple[str, ...], Meta(description="None: all of the plant.")] = ()


_DECODER = msgspec.json.Decoder(Work)


@dataclass
class Told:
    by_key: dict[object, Maintenance] = field(default_factory=dict)
    invalid: list[str] = field(default_factory=list)    # which record, and why

    def take(self, record: Record) -> None:
        place = (record.partition, record.offset)
        key = place if record.key is None else record.key
        self.by_key.pop(key, None)
        if record.value is None:
            return
        try:
            work = _DECODER.decode(record.value)
            self.by_key[key] = Maintenance(start=work.start, end=work.end, entities=work.entities)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValidationError) as error:
            why = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
            self.invalid.append(f"partition {place[0]}, offset {place[1]}: {why}")


def windows(settings: Settings, progress: Progress) -> tuple[Maintenance, ...]:
    """Of the settings and of the topic; one that is not there says nothing. Raises BrokerError."""
    training = settings.training
    told = Told()
    if training.maintenance_topic is not None:
        for record in topics.newest(settings, training.maintenance_topic, MOST_RECORDS):
            told.take(record)               # a key's records in their order, whatever the senders' clocks say
    if told.by_key:
        progress.say(f"maintenance: {len(told.by_key):,} times told on topic {training.maintenance_topic}")
    if told.invalid:
        progress.say(f"maintenance: {len(told.invalid):,} records passed over; the last at {told.invalid[-1]}")
    return (*training.maintenance, *told.by_key.values())
