"""A reading as a type of its own: msgspec decodes it at once and takes nothing that does not fit it."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

if TYPE_CHECKING:
    from worker.codec.readings import ReadingSchema


class Typed(NamedTuple):
    decoder: msgspec.json.Decoder[Any]      # of readings with `values`, `entity`, `timestamp`: None where absent
    features: Callable[[Any], Any]          # of a reading, those that it names: a tuple, of one feature the value alone


def typed_of(schema: ReadingSchema) -> Typed | None:
    """None where msgspec cannot have such a type: every reading is read patiently then."""
    try:
        decoder = msgspec.json.Decoder(_struct(schema))
    except ValueError:
        return None
    return Typed(decoder, attrgetter(*(f"f_{i}" for i in range(len(schema.features)))))


def _struct(schema: ReadingSchema) -> type[msgspec.Struct]:
    """A reading as a type for msgspec, its features first and renamed, since names of features can be any text.

    Raises ValueError for a name that JSON would escape, which msgspec does not take.
    """
    names: dict[str, str] = {}
    fields: list[tuple[str, Any, Any]] = []
    for i, feature in enumerate(schema.features):
        names[f"f_{i}"] = feature
        fields.append((f"f_{i}", float | None, None))
    fields.append(("values", list[float | None] | None, None))
    names["values"] = schema.values_field
    # Where a role has no field of its own, a name that no reading has keeps it absent.
    fields.append(("entity", str | int | None, None))
    names["entity"] = schema.entity_field if schema.entity_field is not None else "\x7fentity"
    fields.append(("timestamp", int | float | str | None, None))
    names["timestamp"] = schema.timestamp_field if schema.timestamp_field is not None else "\x7ftimestamp"
    return msgspec.defstruct("Reading", fields, rename=names, gc=False)
