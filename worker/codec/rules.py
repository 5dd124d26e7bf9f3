"""What holds for a reading whatever it is written in, JSON or Arrow: its entity, its time; and how one is refused."""

from __future__ import annotations

import datetime

import numpy as np

from worker.records import LATEST_MS, Record

UNKEYED = "unkeyed"                     # the entity of readings that name none
MAX_ENTITY_CHARACTERS = 512
FLOAT32_MAX = float(np.finfo(np.float32).max)
SECONDS_BELOW = 1e11                    # a smaller number is epoch seconds (to the year 5138), a larger one ms


class Refused(Exception):
    def __init__(self, code: str, message: str, feature: str | None = None) -> None:
        super().__init__(code, message, feature)
        self.code, self.message, self.feature = code, message, feature


def entity_of(record: Record, name: str | None, field: object) -> str:
    """name: of the field that names it; None: the message's key does. Raises Refused."""
    if name is not None:
        if isinstance(field, bool) or not isinstance(field, str | int) or field == "":
            raise Refused("bad_entity", f"{name} is {kind_of(field)}; it must be the entity's name")
        entity = str(field)
    elif record.key:
        try:
            entity = record.key.decode()
        except UnicodeDecodeError:
            raise Refused("bad_entity", "the message key is not UTF-8") from None
    else:
        return UNKEYED
    if len(entity) > MAX_ENTITY_CHARACTERS:
        raise Refused("bad_entity", f"the entity's name has {len(entity)} characters, over {MAX_ENTITY_CHARACTERS}")
    return entity


def timestamp_of(record: Record, name: str | None, field: object) -> int:
    """ms since the epoch. name: of the field that holds it; without one, or where it is null, Kafka's counts.

    Raises Refused.
    """
    if name is None or field is None:
        if record.timestamp > LATEST_MS:
            raise Refused("bad_timestamp", f"Kafka's timestamp is {record.timestamp} ms, after the year 9999")
        return max(record.timestamp, 0)
    if isinstance(field, str):
        timestamp_ms = _parsed(name, field)
    elif isinstance(field, int | float) and not isinstance(field, bool):
        timestamp_ms = round(field * 1000) if abs(field) < SECONDS_BELOW else round(field)
    else:
        raise Refused("bad_timestamp", f"{name} is {kind_of(field)}; it must be epoch ms, epoch s or RFC 3339")
    if not 0 <= timestamp_ms <= LATEST_MS:
        raise Refused("bad_timestamp", f"{name} is {field!r}, outside 1970 to 9999")
    return timestamp_ms


def kind_of(value: object) -> str:
    """For messages."""
    if value is None:
        return "null or absent"
    if isinstance(value, str):
        return f"the string {value[:32]!r}"
    names = {dict: "an object", list: "an array", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), type(value).__name__)


def overflow(feature: str) -> str:
    """For messages."""
    return f"{feature} is larger than a 32-bit float can hold ({FLOAT32_MAX:.2g})"


def require_size(value: bytes, most_bytes: int) -> None:
    """Raises Refused."""
    if len(value) > most_bytes:
        raise Refused(
            "too_large", f"{len(value)} bytes; at most {most_bytes} are read (ZMU_INPUT__MAX_RECORD_BYTES)"
        )


def _parsed(name: str, text: str) -> int:
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise Refused("bad_timestamp", f"{name} is {text[:64]!r}, which is not RFC 3339") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return round(moment.timestamp() * 1000)
