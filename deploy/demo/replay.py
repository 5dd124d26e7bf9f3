"""A recording (CSV) as readings, row by row."""

from __future__ import annotations

import csv
import datetime
import gzip
import io
import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from deploy.demo.feed import Reading
from worker.errors import InputError

_TIMESTAMP_NAMES = ("timestamp", "datetime", "time", "date", "ts")
_NOTHING = frozenset({"", "null", "none", "nan", "na"})


@dataclass(frozen=True)
class Recording:
    """A CSV file with a header, separated by commas or semicolons, also gzipped.

    timestamp_column: epoch s, epoch ms or ISO 8601 (UTC where it names no zone). Default: the column so named
    (timestamp, datetime, time, date, ts); where there is none, rows are interval_seconds apart from start_ms on.
    entity_column or entity: whose readings these are; default: the file's name.
    leave_out: columns not sent, such as labels. An empty cell is a reading that the sensor did not give.
    """

    path: Path
    timestamp_column: str | None = None
    entity_column: str | None = None
    entity: str | None = None
    leave_out: Collection[str] = ()
    interval_seconds: float = 1.0
    start_ms: int = 0

    def __iter__(self) -> Iterator[Reading]:
        """Raises InputError, naming row and column, for what is no reading."""
        try:
            with self._open() as text:
                header = text.readline()
                delimiter = max(";,\t", key=header.count)
                columns = [name.strip() for name in next(csv.reader([header], delimiter=delimiter), [])]
                yield from self._rows(csv.reader(text, delimiter=delimiter), columns)
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise InputError(f"{self.path} cannot be read as CSV: {error}; name a CSV file with a header") from error

    def _rows(self, rows: Iterator[list[str]], columns: list[str]) -> Iterator[Reading]:
        timestamp_at, entity_at, values_at = self._layout(columns)
        entity = self.entity or self.path.name.split(".")[0]
        for number, row in enumerate(rows):
            if not row:
                continue
            if len(row) != len(columns):
                raise InputError(
                    f"{self.path}, row {number}: {len(row)} cells under {len(columns)} columns; mend the row"
                )
            yield Reading(
                entity if entity_at is None else row[entity_at],
                self.start_ms + round(number * self.interval_seconds * 1000)
                if timestamp_at is None
                else self._timestamp_ms(row[timestamp_at], number),
                {columns[at]: self._value(row[at], number, columns[at]) for at in values_at},
            )

    def _layout(self, columns: list[str]) -> tuple[int | None, int | None, list[int]]:
        """Indices of the timestamp's and the entity's column, and of the values'."""
        for name in (self.timestamp_column, self.entity_column, *self.leave_out):
            if name is not None and name not in columns:
                raise InputError(f"{self.path} has no column {name!r}; it has {', '.join(columns) or 'none at all'}")
        lower = [name.lower() for name in columns]
        named = self.timestamp_column or next((columns[lower.index(n)] for n in _TIMESTAMP_NAMES if n in lower), None)
        taken = {named, self.entity_column, *self.leave_out}
        values_at = [at for at, name in enumerate(columns) if name not in taken]
        if not values_at:
            raise InputError(f"{self.path} has no column of readings among {', '.join(columns)}; leave fewer out")
        return (
            None if named is None else columns.index(named),
            None if self.entity_column is None else columns.index(self.entity_column),
            values_at,
        )

    def _timestamp_ms(self, text: str, row: int) -> int:
        try:
            number = float(text)
        except ValueError:
            try:
                time = datetime.datetime.fromisoformat(text)
            except ValueError:
                raise InputError(
                    f"{self.path}, row {row}: {text!r} is no time; need epoch s, epoch ms or ISO 8601"
                ) from None
            number = (time if time.tzinfo else time.replace(tzinfo=datetime.UTC)).timestamp()
        if not math.isfinite(number):
            raise InputError(f"{self.path}, row {row}: {text!r} is no time; need epoch s, epoch ms or ISO 8601")
        return round(number if abs(number) >= 1e11 else number * 1000)

    def _value(self, text: str, row: int, column: str) -> float | None:
        if text.strip().lower() in _NOTHING:
            return None
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise InputError(
                f"{self.path}, row {row}, column {column}: {text!r} is no finite number; "
                f"mend it, or leave the column out: --leave-out {column}"
            )
        return value

    def _open(self) -> io.TextIOBase:
        if self.path.suffix == ".gz":
            return gzip.open(self.path, "rt", newline="", encoding="utf-8-sig")
        return self.path.open(newline="", encoding="utf-8-sig")
