"""A reading as a type of its own: msgspec decodes it at once and takes nothing that does not fit it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import msgspec.structs

if TYPE_CHECKING:
    from worker.codec.readings import ReadingSchema


class Typed(NamedTuple):
    decoder: msgspec.json.Decoder[Any]      # of readings with `values`, `entity`, `timestamp`: None where absent
    listing: msgspec.json.Decoder[Any]      # the same for those with nothing else in them, which it decodes sooner
    features: int                           # how many

    def decode_lines(self, text: memoryview, first: memoryview) -> list[Any]:
        """A reading, or several, of each line. first: one of them, which the others may be like."""
        if self.lists(first):
            try:
                return self.listing.decode_lines(text)
            except msgspec.MsgspecError:                    # they are not
                pass
        return self.decoder.decode_lines(text)

    def lists(self, reading: memoryview) -> bool:
        """Whether it has its features in one array, and nothing else in it."""
        try:
            return self.listing.decode(reading).values is not None
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            return False

    def named(self, readings: Iterable[Any]) -> list[tuple[float | None, ...]]:
        """Of each, the features that it gives by name."""
        features, astuple = self.features, msgspec.structs.astuple
        return [astuple(reading)[:features] for reading in readings]


def typed_of(schema: ReadingSchema) -> Typed | None:
    """None where msgspec cannot have such a type: every reading is read patiently then."""
    try:
        whole = msgspec.json.Decoder(_struct(schema, schema.features))
        listing = msgspec.json.Decoder(_struct(schema, (), nothing_else=True))
    except ValueError:
        return None
    return Typed(whole, listing, len(schema.features))


def _struct(schema: ReadingSchema, features: Sequence[str], nothing_else: bool = False) -> type[msgspec.Struct]:
    """A reading as a type for msgspec, its features first and renamed, since names of features can be any text.

    Raises ValueError for a name that JSON would escape, which msgspec does not take.
    """
    names: dict[str, str] = {}
    fields: list[tuple[str, Any, Any]] = []
    for i, feature in enumerate(features):
        names[f"f_{i}"] = feature
        fields.append((f"f_{i}", float | None, None))
    fields.append(("values", list[float | None] | None, None))
    names["values"] = schema.values_field
    # Where a role has no field of its own, a name that no reading has keeps it absent.
    fields.append(("entity", str | int | None, None))
    names["entity"] = schema.entity_field if schema.entity_field is not None else "\x7fentity"
    fields.append(("timestamp", int | float | str | None, None))
    names["timestamp"] = schema.timestamp_field if schema.timestamp_field is not None else "\x7ftimestamp"
    return msgspec.defstruct("Reading", fields, rename=names, gc=False, forbid_unknown_fields=nothing_else)
