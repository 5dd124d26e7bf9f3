"""CSV and Parquet files as named columns, and what their values mean as numbers, names and times.

Legend: N rows of a file.
"""

from __future__ import annotations

import csv
import datetime
import gzip
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from worker.codec.rules import SECONDS_BELOW
from worker.errors import InputError
from worker.records import F64, I64, LATEST_MS

MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None")
DELIMITERS = ",;\t"
NO_TIME = -1

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_INFINITY = re.compile(r"[+-]?inf(inity)?", re.IGNORECASE)
_ISO = re.compile(r"\d{4}-\d\d-\d\d")
_BOOLEANS = {"true": 1.0, "false": 0.0}

Faults = dict[int, str]                 # position in a column → the value that cannot be read, as text


@dataclass(frozen=True, slots=True)
class Table:
    """A file's columns, equally long. CSV values are text; missing ones are null."""

    columns: dict[str, Any]             # name → pyarrow.Array
    row_N: I64                          # 0-based row of the file behind each element
    broken: dict[int, str]              # rows with too few or too many values, and what is wrong


def read_csv(path: Path) -> Table:
    """`,`, `;` or tab, whichever the header holds most of; also gzipped. Raises InputError."""
    header = _first_line(path)
    delimiter = max(DELIMITERS, key=header.count)
    names = next(csv.reader([header], delimiter=delimiter))
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"{path}: the header names {twice[0]!r} twice; give every column a name of its own")
    broken: dict[int, str] = {}

    def skip(row: Any) -> str:
        broken[row.number - 2] = f"{row.actual_columns} values; the header has {row.expected_columns}"
        return "skip"

    try:
        table = pyarrow.csv.read_csv(
            path,
            # One thread: only then are the numbers of broken rows known.
            read_options=pyarrow.csv.ReadOptions(use_threads=False),
            parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter, invalid_row_handler=skip),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                null_values=MISSING,
                strings_can_be_null=True,
            ),
        )
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not readable as CSV: {error}") from None
    kept_N = np.delete(np.arange(table.num_rows + len(broken)), sorted(broken))
    return Table(_columns(table), kept_N, broken)


def read_parquet(path: Path) -> Table:
    """Raises InputError."""
    try:
        table = pyarrow.parquet.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not readable as Parquet: {error}") from None
    return Table(_columns(table), np.arange(table.num_rows), {})


def numbers(column: Any) -> tuple[F64, Faults]:
    """float64 with NaN where missing (as where unreadable); booleans are 1 and 0."""
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        try:
            return _floats(pc.cast(column, pa.float64())), {}
        except pa.ArrowInvalid:
            return _numbers_one_by_one(column)
    if pa.types.is_boolean(column.type):
        column = pc.cast(column, pa.uint8())
    if is_numeric(column.type) or pa.types.is_null(column.type):
        return _floats(pc.cast(column, pa.float64(), safe=False)), {}
    return np.full(len(column), np.nan), {i: str(value) for i, value in enumerate(column.to_pylist())}


def is_numeric(kind: Any) -> bool:
    tests = pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_boolean
    return any(test(kind) for test in tests)


def texts(column: Any) -> list[str | None]:
    return [None if value is None else str(value) for value in column.to_pylist()]


def times(column: Any) -> tuple[I64, Faults]:
    """ms since the epoch (UTC where no zone is given); NO_TIME where missing or unreadable."""
    kind = column.type
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        zone = getattr(kind, "tz", None)
        moments = pc.cast(column, pa.timestamp("ms", zone), safe=False)
        return _in_range(pc.fill_null(pc.cast(moments, pa.int64()), NO_TIME).to_numpy(zero_copy_only=False))
    value_N, faults = numbers(column)
    if not faults:
        with np.errstate(invalid="ignore"):
            ms_N = np.rint(np.where(np.abs(value_N) < SECONDS_BELOW, value_N * 1000, value_N))
        far_N = ~np.isnan(ms_N) & (np.abs(ms_N) > LATEST_MS)
        ms_N[np.isnan(ms_N)] = NO_TIME
        ms_N[far_N] = LATEST_MS + 1
        return _in_range(ms_N.astype(np.int64))
    stamp_N = np.full(len(column), NO_TIME, np.int64)
    faults = {}
    for i, text in enumerate(texts(column)):
        if text is not None:
            moment = _moment(text)
            if moment is None:
                faults[i] = text
            else:
                stamp_N[i] = moment
    return stamp_N, faults


def holds_times(column: Any) -> bool:
    """Whether these are dates with times by type, or text that starts as RFC 3339 does."""
    if pa.types.is_timestamp(column.type):
        return True
    if not pa.types.is_string(column.type):
        return False
    present = column.drop_null()
    return len(present) > 0 and _ISO.match(present[0].as_py()) is not None and _moment(present[0].as_py()) is not None


def _columns(table: Any) -> dict[str, Any]:
    columns = {}
    for name in table.column_names:
        column = table.column(name).combine_chunks()
        if isinstance(column, pa.ChunkedArray):         # no rows: no chunk to combine
            column = pa.array([], column.type)
        columns[name] = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
    return columns


def _floats(column: Any) -> F64:
    return np.array(column.to_numpy(zero_copy_only=False), np.float64)


def _numbers_one_by_one(column: Any) -> tuple[F64, Faults]:
    value_N = np.full(len(column), np.nan)
    faults: Faults = {}
    for i, text in enumerate(texts(column)):
        plain = text.strip() if text is not None else ""
        if plain in MISSING:
            continue
        if plain.lower() in _BOOLEANS:
            value_N[i] = _BOOLEANS[plain.lower()]
        elif _NUMBER.fullmatch(plain) or _INFINITY.fullmatch(plain):
            value_N[i] = float(plain)
        else:
            faults[i] = plain
    return value_N, faults


def _moment(text: str) -> int | None:
    if _NUMBER.fullmatch(text.strip()):
        value = float(text)
        return round(value * 1000) if abs(value) < SECONDS_BELOW else round(value)
    try:
        moment = datetime.datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    return round((moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp() * 1000)


def _in_range(ms_N: I64) -> tuple[I64, Faults]:
    bad_N = (ms_N < NO_TIME) | (ms_N > LATEST_MS)
    faults = {int(i): f"{ms_N[i]} ms" for i in np.flatnonzero(bad_N)}
    return np.where(bad_N, NO_TIME, ms_N), faults


def _first_line(path: Path) -> str:
    try:
        with gzip.open(path, "rt", encoding="utf-8-sig") if path.suffix == ".gz" else path.open(
            encoding="utf-8-sig"
        ) as file:
            line = file.readline(1_000_000).rstrip("\r\n")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable as CSV: {error}") from None
    if not line.strip():
        raise InputError(f"{path} is empty; a recording starts with a line that names its columns")
    return line
