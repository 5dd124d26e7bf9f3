"""Labels of a recording: which of its rows people have called anomalous. Never input of a model.

Legend: N labelled rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from worker.errors import InputError
from worker.recordings import files, tables
from worker.records import I64, Bools

LISTED = 12


class Labels(NamedTuple):
    """In the order of the file. Rows of the wrong length have no label and are not among them."""

    label_N: Bools
    row_N: I64                          # 0-based row of the file
    entity_N: list[str | None]          # None where the row names none


def read(path: Path, column: str, entity_field: str | None) -> Labels:
    """`column` of a recording as labels: above 0 (or true) is anomalous.

    Raises InputError where there is no such column, or a value of it is no number.
    """
    if files.is_json_lines(path):
        return _of_json_lines(path, column, entity_field)
    found = files.table(path)
    if column not in found.columns:
        raise _absent(path, column, found.columns)
    value_N, faults = tables.numbers(found.columns[column])
    for i, text in faults.items():
        raise _unreadable(path, int(found.row_N[i]), column, repr(text[:32]))
    for i in np.flatnonzero(np.isnan(value_N)).tolist():
        raise _unreadable(path, int(found.row_N[i]), column, "empty")
    if entity_field is None:
        return Labels(value_N > 0, found.row_N, [files.stem(path)] * len(value_N))
    if entity_field not in found.columns:
        raise _absent(path, entity_field, found.columns)
    return Labels(value_N > 0, found.row_N, tables.texts(found.columns[entity_field]))


def _of_json_lines(path: Path, column: str, entity_field: str | None) -> Labels:
    values: list[float] = []
    rows: list[int] = []
    entities: list[str | None] = []
    for row, line in enumerate(files.lines(path)):
        try:
            document = msgspec.json.decode(line, type=dict[str, object])
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue                    # no reading either: whoever decodes readings says so
        if column not in document:
            raise _absent(path, column, document, row)
        value = document[column]
        if not isinstance(value, int | float):
            raise _unreadable(path, row, column, "empty" if value is None else repr(value)[:32])
        entity = document.get(entity_field) if entity_field else files.stem(path)
        values.append(value)
        rows.append(row)
        entities.append(None if entity is None else str(entity))
    return Labels(np.array(values, np.float64) > 0, np.array(rows, np.int64), entities)


def _absent(path: Path, column: str, found: Iterable[str], row: int | None = None) -> InputError:
    names = list(found)
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    where = "" if row is None else f" in row {row}"
    return InputError(
        f"{path} has no column {column!r}{where}; it has {', '.join(map(repr, names[:LISTED]))}{more}. Figures need "
        "labels: name their column with --label (0 is normal, above 0 anomalous), that of the entity in "
        "ZMU_INPUT__ENTITY_FIELD"
    )


def _unreadable(path: Path, row: int, column: str, found: str) -> InputError:
    return InputError(f"{path}: the label {column!r} of row {row} is {found}; it must be 0 (normal) or 1 (anomalous)")
