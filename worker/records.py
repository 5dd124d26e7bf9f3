"""What goes in and what comes out: a reading, a batch of readings, a refused record, an anomaly event.

Legend of shapes: B readings of a batch, F features.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha1
from typing import Annotated, Any, Literal, NamedTuple, Protocol
from uuid import NAMESPACE_URL, UUID

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from worker import places
from worker.places import WHOLE

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
Bools = NDArray[np.bool_]


class Record(Protocol):
    """A Kafka record as fetched, undecoded. kafka-python's ConsumerRecord is one."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...         # ms since the epoch, of producer or broker
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes]]: ...


class PlainRecord(NamedTuple):
    """A Record of our own making: of a batch that was read whole, a row of a file, memory."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, Any]] = ()     # bytes or None


@dataclass(frozen=True, slots=True)
class Batch:
    """Readings as columns: element i of every column is of the same reading. Order is the order of arrival."""

    x_BF: F32                   # NaN = missing; never infinite
    entity_B: I32               # codes of worker.entities.Entities
    timestamp_ms_B: I64         # of the reading, ms since the epoch
    partition_B: I32
    offset_B: I64
    row_B: I32 | None = None    # of the reading in its record, WHOLE where it is all of it; None: WHOLE throughout

    def __len__(self) -> int:
        return len(self.offset_B)

    @property
    def rows_B(self) -> I32:
        """row_B, written out."""
        return np.full(len(self), WHOLE, np.int32) if self.row_B is None else self.row_B

    @property
    def place_B(self) -> I64:
        """Offset and row as one number: see worker/places.py."""
        return self.offset_B if self.row_B is None else places.of(self.offset_B, self.row_B)

    def slices(self, rows: int) -> Iterator[Batch]:
        """In order, of so many readings at most."""
        for start in range(0, len(self), rows):
            yield self.take(slice(start, start + rows))

    def take(self, which: Any) -> Batch:
        """The readings that a slice, an index or a mask picks."""
        return Batch(
            self.x_BF[which], self.entity_B[which], self.timestamp_ms_B[which],
            self.partition_B[which], self.offset_B[which], None if self.row_B is None else self.row_B[which],
        )

    @classmethod
    def joined(cls, parts: Sequence[Batch]) -> Batch:
        """One after the other; parts: at least one."""
        if len(parts) == 1:
            return parts[0]
        rows = None if all(part.row_B is None for part in parts) else np.concatenate([part.rows_B for part in parts])
        names = ("x_BF", "entity_B", "timestamp_ms_B", "partition_B", "offset_B")
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names}, row_B=rows)


REASONS = (
    "empty", "too_large", "too_deep", "too_many_fields", "invalid_json", "invalid_arrow", "no_pyarrow", "wrong_type",
    "wrong_length", "no_features", "non_finite", "bad_entity", "bad_timestamp", "corrupt_batch",
)  # fmt: skip


class Refusal(NamedTuple):
    """A record that is no reading, and why; or rows of a record that are none."""

    record: Record                      # its value: of rows, an Arrow stream of these rows only
    code: str                           # of REASONS
    message: str
    feature: str | None = None
    rows: tuple[int, ...] = ()          # of the record as received; none: all of it

    @property
    def readings(self) -> int:
        """Number of readings that are lost with it; a record that cannot be read counts as one."""
        return len(self.rows) or 1


class Contribution(msgspec.Struct, frozen=True):
    """One feature's part in a score. `actual` is null where the feature was missing."""

    feature: str
    actual: float | None
    expected: float
    share: Annotated[float, Meta(ge=0, le=1, description="Of the whole score; over all features shares sum to 1.")]


class ModelRef(msgspec.Struct, frozen=True):
    name: str
    version: str
    sha256: Annotated[str, Meta(description="Of the model's weights.")]


class Origin(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where the reading lies in Kafka."""

    topic: str
    partition: int
    offset: int
    row: Annotated[int | None, Meta(description="Of a record that holds many readings (Arrow): from 0 on.")] = None

    @classmethod
    def at(cls, topic: str, partition: int, place: int) -> Origin:
        """place: see worker/places.py."""
        offset, row = places.parts(place)
        return cls(topic, partition, offset, None if row == WHOLE else row)

    def event_id(self, kind: str = "anomaly") -> UUID:
        return event_id(self.topic, self.partition, self.offset, kind, self.row)

    def __str__(self) -> str:
        """TOPIC/PARTITION/OFFSET, and /ROW where there is one."""
        where = f"{self.topic}/{self.partition}/{self.offset}"
        return where if self.row is None else f"{where}/{self.row}"


Kind = Literal["anomaly", "stuck", "silent", "out_of_range", "missing"]
Severity = Literal["warning", "critical"]


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One anomalous reading. Fields are added within a schema version, never renamed or dropped."""

    schema_version: Literal[1] = 1
    kind: Kind
    event_id: Annotated[UUID, Meta(description="uuid5 of the reading's place (`source`): equal on replay.")]
    entity: str
    timestamp: Annotated[str, Meta(description="Of the reading: RFC 3339, UTC, milliseconds.")]
    detected_at: Annotated[str, Meta(description="When it was scored: RFC 3339, UTC, milliseconds.")]
    anomaly_score: Annotated[float, Meta(ge=0, description="Above 1 is anomalous, whatever the model.")]
    p_value: Annotated[float, Meta(ge=0, le=1, description="Share of normal readings that score at least this high.")]
    severity: Severity
    contributions: Annotated[tuple[Contribution, ...], Meta(description="The largest first.")]
    model: ModelRef
    source: Origin
    flags: Annotated[tuple[str, ...], Meta(description="cold_start, warming_up, imputed, …")] = ()


def event_id(topic: str, partition: int, offset: int, kind: str = "anomaly", row: int | None = None) -> UUID:
    """The same reading gives the same id on every replay; kinds other than `anomaly` have ids of their own."""
    name = f"kafka:{topic}/{partition}/{offset}" if row is None else f"kafka:{topic}/{partition}/{offset}/{row}"
    return _uuid5(name if kind == "anomaly" else f"{name}#{kind}")


def _uuid5(url: str) -> UUID:
    """As uuid.uuid5, which takes twice as long, and which FIPS mode may refuse: it does not say what for."""
    digest = sha1(NAMESPACE_URL.bytes + url.encode(), usedforsecurity=False).digest()
    return UUID(bytes=digest[:16], version=5)


def rfc3339(timestamp_ms: int) -> str:
    """UTC with milliseconds: 2025-11-24T16:00:00.000Z."""
    seconds, ms = divmod(timestamp_ms, 1000)
    return f"{_to_the_second(seconds)}.{ms:03d}Z"


@lru_cache(4096)                        # readings of a batch are of the same few seconds
def _to_the_second(seconds: int) -> str:
    return (_EPOCH + datetime.timedelta(seconds=seconds)).isoformat(timespec="seconds").removesuffix("+00:00")


_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
LATEST_MS = 253_402_300_799_999             # the end of year 9999: the last that RFC 3339 can write
