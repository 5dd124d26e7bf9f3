"""Which columns are features, where nobody has said: the numeric ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path

import msgspec
import numpy as np

from worker.codec import streams
from worker.codec.readings import STREAM
from worker.errors import InputError, TrainingError
from worker.recordings import files, tables
from worker.settings import InputSettings

SAMPLE = 1000                           # rows or records looked at
MOSTLY = 0.9                            # share of numbers from which on the rest counts as faults


def of_file(path: Path, settings: InputSettings) -> tuple[str, ...]:
    """Numeric and boolean columns in the order of the file. Raises InputError where there is none."""
    if files.is_json_lines(path):
        found = of_records(islice(files.lines(path), SAMPLE), settings)
        names: tuple[str, ...] = ()
    else:
        columns = files.table(path).columns
        names = tuple(columns)
        found = tuple(
            name for name, column in columns.items() if name not in _roles(settings) and _mostly_numbers(column)
        )
    if not found:
        raise InputError(
            f"{path} has no numeric column to learn from"
            + (f" (columns: {', '.join(names[:12])})" if names else "")
            + "; a reading is numbers by name. ZMU_INPUT__IGNORE and ZMU_INPUT__FEATURES say which ones count"
        )
    return found


def of_records(values: Iterable[bytes | None], settings: InputSettings) -> tuple[str, ...]:
    """Numeric keys of JSON readings in the order they first appear, and numeric columns of Arrow streams, each row
    counted; value_0, value_1, … for arrays.

    Records that are neither are passed over: whoever decodes them counts them.
    """
    numeric: Counter[str] = Counter()
    present: Counter[str] = Counter()
    lengths: Counter[int] = Counter()
    for value in values:
        document, rows = _document(value, settings)
        array = document.get(settings.values_field)
        if isinstance(array, list):
            lengths[len(array)] += rows
            continue
        for name, item in document.items():
            if item is not None and name not in _roles(settings):
                present[name] += rows
                numeric[name] += rows * isinstance(item, int | float)
    if lengths.total() > max(present.values(), default=0):
        return tuple(f"value_{i}" for i in range(lengths.most_common(1)[0][0]))
    return tuple(name for name in present if numeric[name] >= MOSTLY * present[name])


def require(features: tuple[str, ...], where: str) -> tuple[str, ...]:
    """Raises TrainingError where there is none."""
    if not features:
        raise TrainingError(
            f"{where} holds no numbers to learn from; a reading is a JSON object of numbers by name, such as "
            '{"temperature": 21.5, "pressure": 3.1}. Name the features in ZMU_INPUT__FEATURES'
        )
    return features


def _roles(settings: InputSettings) -> set[str | None]:
    return {*settings.ignore, settings.entity_field, settings.timestamp_field}


def _mostly_numbers(column: object) -> bool:
    head = column.drop_null()[:SAMPLE]      # type: ignore[attr-defined]
    if len(head) == 0 or tables.holds_times(head):
        return False
    value_N, faults = tables.numbers(head)
    return len(faults) <= (1 - MOSTLY) * len(head) and bool(np.isfinite(value_N).any())


def _document(value: bytes | None, settings: InputSettings) -> tuple[Mapping[str, object], int]:
    """A reading, and how many there are of its kind."""
    if value is not None and value[:4] == STREAM:
        return streams.first_reading(value, settings)
    try:
        document = msgspec.json.decode(value or b"")
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return {}, 0
    return (document, 1) if isinstance(document, dict) else ({}, 0)
