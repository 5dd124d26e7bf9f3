"""A record that is an Arrow IPC stream → its rows as a batch of readings, and the rows that are none.

A row means what the same reading in JSON would mean: docs/arrow.md. The stream was measured before anything of it was
decoded, and validated before anything is looked at: worker/codec/streams.py.

Legend: N rows of a record batch, B of them readings, F features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from worker.codec import streams, table
from worker.codec.readings import ReadingSchema
from worker.codec.rules import FLOAT32_MAX, Refused, entity_of, overflow, timestamp_of
from worker.codec.streams import ENTITY, Part
from worker.entities import Entities
from worker.records import F32, I32, I64, Batch, Bools, Record, Refusal


@dataclass
class _Rows:
    """What became of a batch's rows. A row has the first fault that was found of it."""

    bad_N: Bools
    faults: list[tuple[str, str, str | None, list[int]]] = field(default_factory=list)  # code, why, feature, rows

    def refuse(self, which_N: Bools, code: str, why: Callable[[int], tuple[str, str | None]]) -> None:
        """why: of a row, the message and the feature that is to blame, if one is; asked of the first."""
        new = np.flatnonzero(which_N & ~self.bad_N).tolist()
        if new:
            self.faults.append((code, *why(new[0]), new))
            self.bad_N |= which_N


class _Names(NamedTuple):
    """Of the rows' entities: each row has one of U names."""

    index_N: I32
    code_U: I32                         # -1 where it is not known yet
    new: dict[int, str]                 # those that are not; a name that is none is of no row without a fault


class ArrowDecoder:
    def __init__(self, schema: ReadingSchema, entities: Entities) -> None:
        self._schema, self._entities = schema, entities

    def decode(self, record: Record) -> tuple[Batch, list[Refusal]]:
        """Its readings in their order. Raises Refused where none of it can be read."""
        value = record.value or b""
        codec = streams.require_modest(value, self._schema).codec
        opened = streams.opened(value)
        parts: list[Batch] = []
        faults: dict[str, tuple[str, str | None, list[int]]] = {}
        begin = 0
        for part in opened:
            batch, rows = self._decode(record, part, begin)
            parts.append(batch)
            for code, why, feature, bad in rows.faults:
                known = faults.setdefault(code, (f"row {begin + bad[0]}: {why}", feature, []))
                known[2].extend(begin + row for row in bad)
            begin += len(part.batch)
        refused = []
        for code, (why, name, bad) in faults.items():
            bad.sort()
            what = record if len(bad) == begin else streams.only(record, opened, bad, codec)
            more = f" ({len(bad)} rows of the record are refused for that)" if len(bad) > 1 else ""
            refused.append(Refusal(what, code, why + more, name, tuple(bad)))
        return Batch.joined(parts), refused

    def _decode(self, record: Record, part: Part, begin: int) -> tuple[Batch, _Rows]:
        """begin: number of the first row."""
        count = len(part.batch)
        rows = _Rows(np.zeros(count, np.bool_))
        x_NF, unfit_NF = self._values(part, rows)
        names = self._names(record, part, rows)
        stamp_N = self._stamps(record, part, rows)
        if unfit_NF is not None:
            self._refuse_unfit(x_NF, unfit_NF, rows)
        row_N = np.arange(begin, begin + count, dtype=np.int32)
        good_N = np.flatnonzero(~rows.bad_N) if rows.faults else slice(None)
        row_B = row_N[good_N]
        return Batch(
            x_BF=x_NF[good_N],
            entity_B=self._codes(record, names, good_N),
            timestamp_ms_B=stamp_N[good_N],
            partition_B=np.full(len(row_B), record.partition, np.int32),
            offset_B=np.full(len(row_B), record.offset, np.int64),
            row_B=row_B,
        ), rows

    def _values(self, part: Part, rows: _Rows) -> tuple[F32, Bools | None]:
        """NaN where missing; and which numbers are not finite as float32, or None: no one is."""
        schema = self._schema
        if schema.values_field in part.places:
            return self._array(part.column(schema.values_field), rows)
        present = {f: name for f, name in enumerate(schema.features) if name in part.places}
        if not present:
            raise Refused("no_features", f"no column is a feature of the model's, such as {schema.features[0]!r}")
        if len(present) == len(schema.features):
            plain_NF = table.plain(part.batch.select([part.places[name] for name in schema.features]))
            if plain_NF is not None:
                return plain_NF, None
        found = {f: table.numbers(part.column(name), name) for f, name in present.items()}
        x_NF = np.empty((len(rows.bad_N), len(schema.features)), np.float32)
        if len(found) < len(schema.features):
            x_NF.fill(0.0)
        with np.errstate(over="ignore"):
            for f, column in found.items():
                x_NF[:, f] = column.value_N
        unfit_NF = None
        if not _surely_fit(x_NF):
            unfit_NF = np.zeros(x_NF.shape, np.bool_)
            for f, column in found.items():
                unfit_NF[:, f] = table.unfit(column)
        for f in range(len(schema.features)):
            if f not in found:
                x_NF[:, f] = np.nan
            elif (null_N := found[f].null_N) is not None:
                x_NF[null_N, f] = np.nan
        return x_NF, unfit_NF

    def _array(self, column: Any, rows: _Rows) -> tuple[F32, Bools | None]:
        """All features in one column of lists."""
        name, width = self._schema.values_field, len(self._schema.features)
        found = table.lists(column, name, width)
        rows.refuse(found.null_N, "no_features", lambda _: (f"{name} is null", None))
        rows.refuse(
            found.length_N != width, "wrong_length",
            lambda row: (f"{name} has {found.length_N[row]} numbers; the model has {width} features", None),
        )
        good_N = np.flatnonzero(~rows.bad_N)
        place = found.begin_N[good_N, None] + np.arange(width)
        x_NF = np.zeros((len(column), width), np.float32)
        with np.errstate(over="ignore"):
            x_NF[good_N] = found.elements.value_N[place]
        unfit_NF = None
        if not _surely_fit(x_NF):
            unfit_NF = np.zeros(x_NF.shape, np.bool_)
            unfit_NF[good_N] = table.unfit(found.elements)[place]
        if found.elements.null_N is not None:
            null_NF = np.zeros(x_NF.shape, np.bool_)
            null_NF[good_N] = found.elements.null_N[place]
            x_NF[null_NF] = np.nan
        return x_NF, unfit_NF

    def _refuse_unfit(self, x_NF: F32, unfit_NF: Bools, rows: _Rows) -> None:
        def why(row: int) -> tuple[str, str]:
            f = int(np.argmax(unfit_NF[row]))
            name = self._schema.features[f]
            return f"{name} is NaN; what is missing is null" if np.isnan(x_NF[row, f]) else overflow(name), name

        rows.refuse(np.asarray(unfit_NF.any(1)), "non_finite", why)

    def _names(self, record: Record, part: Part, rows: _Rows) -> _Names:
        name, schema = self._schema.entity_field, self._schema
        if name is None and ENTITY in part.places and ENTITY not in (*schema.features, schema.timestamp_field):
            name = ENTITY
        if name is None or name not in part.places:
            one = np.zeros(len(rows.bad_N), np.int32)
            return _Names(one, np.full(1, -1, np.int32), {0: entity_of(record, name, None)})
        index_N, fields = table.texts(part.column(name), name)
        known = self._entities.of_partition(record.partition)
        code_U = np.array([known.get(said, -1) if isinstance(said, str) else -1 for said in fields], np.int32)
        new: dict[int, str] = {}
        none: dict[int, str] = {}
        for i in np.flatnonzero(code_U < 0).tolist():
            try:
                new[i] = entity_of(record, name, fields[i])
            except Refused as why:
                none[i] = why.message
        if none:
            is_none = np.zeros(len(fields), np.bool_)
            is_none[list(none)] = True
            rows.refuse(is_none[index_N], "bad_entity", lambda row: (none[int(index_N[row])], None))
        return _Names(index_N, code_U, new)

    def _codes(self, record: Record, names: _Names, good_N: I64 | slice) -> I32:
        """Of readings only: a name that no reading has is no entity."""
        index_B = names.index_N[good_N]
        if names.new:
            used = set(np.unique(index_B).tolist())
            for i, name in names.new.items():
                if i in used:
                    names.code_U[i] = self._entities.code(record.partition, name)
        return names.code_U[index_B]

    def _stamps(self, record: Record, part: Part, rows: _Rows) -> I64:
        """ms since the epoch."""
        name = self._schema.timestamp_field
        if name is None or name not in part.places:
            return np.full(len(rows.bad_N), timestamp_of(record, None, None), np.int64)
        column = part.column(name)
        found = table.times(column, name)
        if found is None:
            return self._written(record, column, name, rows)
        stamp_N, bad_N, null_N = found
        if null_N is not None:
            stamp_N[null_N] = self._of_kafka(record, null_N, rows)
            bad_N &= ~null_N
        rows.refuse(
            bad_N, "bad_timestamp", lambda row: (f"{name} is {table.said(column, row)}, outside 1970 to 9999", None)
        )
        return stamp_N

    def _of_kafka(self, record: Record, null_N: Bools, rows: _Rows) -> int:
        try:
            return timestamp_of(record, None, None)
        except Refused as refused:
            why = refused.message       # a name that outlives the handler
            rows.refuse(null_N, refused.code, lambda _: (why, None))
            return 0

    def _written(self, record: Record, column: Any, name: str, rows: _Rows) -> I64:
        """Of texts."""
        stamp_N = np.zeros(len(column), np.int64)
        bad: dict[int, str] = {}
        for i, text in enumerate(column.to_pylist()):
            try:
                stamp_N[i] = timestamp_of(record, name, text)
            except Refused as why:
                bad[i] = why.message
        bad_N = np.zeros(len(column), np.bool_)
        bad_N[list(bad)] = True
        rows.refuse(bad_N, "bad_timestamp", lambda row: (bad[row], None))
        return stamp_N


def _surely_fit(x_NF: F32) -> bool:
    """Finite, and below what a larger number may have been rounded to."""
    return bool(np.abs(x_NF).max() < FLOAT32_MAX)
