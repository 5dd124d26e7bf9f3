"""Arrow's columns as numbers, names and times. They are validated: what their buffers say can be believed.

Legend: N rows, M elements of lists.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from worker.codec.rules import FLOAT32_MAX, SECONDS_BELOW, Refused
from worker.records import F32, I32, I64, LATEST_MS, Bools

types = pa.types
MOST_ELEMENTS = 100_000                 # of a list that is only looked at
_UNITS = {"s": (1000, 1), "ms": (1, 1), "us": (1, 1_000), "ns": (1, 1_000_000)}     # to ms: times, then over


_WIDTHS = (
    "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64",
)  # fmt: skip
_DTYPES = {getattr(pa, name)().id: np.dtype(name) for name in _WIDTHS}


class Numbers(NamedTuple):
    """null_N: None where no one is; what stands there in value_N is anything."""

    value_N: NDArray[Any]
    null_N: Bools | None


class Lists(NamedTuple):
    """A column of lists, laid end to end."""

    elements: Numbers
    begin_N: I64
    length_N: I64
    null_N: Bools


def numbers(column: Any, name: str) -> Numbers:
    """Booleans as 1 and 0. Raises Refused."""
    kind = column.type
    if types.is_null(kind):
        return Numbers(np.zeros(len(column), np.float32), np.ones(len(column), np.bool_))
    if types.is_boolean(kind):
        column = column.cast(pa.uint8())
    elif kind.id not in _DTYPES:
        raise Refused("wrong_type", f"{name} is a column of {kind}; it must be numbers or booleans", name)
    value_N = raw(column)
    if value_N.dtype.kind != "f" and value_N.itemsize == 8:
        value_N = value_N.astype(np.float64)            # as JSON's integers, rounded twice
    return Numbers(value_N, nulls(column))


def plain(batch: Any) -> F32 | None:
    """All columns at once, where they are floats of one width and all there and finite; else None: one by one."""
    kinds = batch.schema.types
    if kinds[0] not in (pa.float32(), pa.float64()) or any(kind != kinds[0] for kind in kinds):
        return None
    value_NF = batch.to_tensor(null_to_nan=True, row_major=True).to_numpy()
    if not np.abs(value_NF).max() <= FLOAT32_MAX:       # or NaN, which may be null
        return None
    return np.asarray(value_NF, np.float32)


def unfit(found: Numbers) -> Bools:
    """Which are NaN, infinite, or too large for float32."""
    unfit_N = ~(np.abs(found.value_N.astype(np.float64)) <= FLOAT32_MAX)
    return unfit_N if found.null_N is None else unfit_N & ~found.null_N


def lists(column: Any, name: str, width: int) -> Lists:
    """Lists of numbers of any length, or of `width`. Raises Refused."""
    kind, rows = column.type, len(column)
    if types.is_fixed_size_list(kind):
        if kind.list_size != width:
            raise Refused(
                "wrong_length", f"{name} has {kind.list_size} numbers; the model has {width} features"
            )
        begin_N = (column.offset + np.arange(rows, dtype=np.int64)) * width
        length_N = np.full(rows, width, np.int64)
    elif types.is_list(kind) or types.is_large_list(kind):
        bound_N = _bounds(column)
        begin_N, length_N = bound_N[:-1], np.diff(bound_N)
    else:
        raise Refused("wrong_type", f"{name} is a column of {kind}; it must be lists of numbers")
    if types.is_null(kind.value_type):
        raise Refused("wrong_type", f"{name} is a column of {kind}; it must be lists of numbers")
    first, last = int(begin_N[0]), int(begin_N[-1] + length_N[-1])
    elements = numbers(column.values.slice(first, last - first), name)
    null_N = nulls(column)
    return Lists(elements, begin_N - first, length_N, np.zeros(rows, np.bool_) if null_N is None else null_N)


def texts(column: Any, name: str) -> tuple[I32, list[str | int | None]]:
    """Of each row, which of these it is; each is of some row. Raises Refused."""
    if types.is_dictionary(column.type):
        kind, words = column.type.value_type, column.dictionary
    else:
        kind = column.type
    if not (types.is_string(kind) or types.is_large_string(kind) or types.is_integer(kind)):
        raise Refused("bad_entity", f"{name} is a column of {kind}; it must be the entity's name, utf8 or an integer")
    if not types.is_dictionary(column.type):
        column = column.dictionary_encode()
        words = column.dictionary
    index_N = raw(column.indices).astype(np.int64)
    null_N = nulls(column)
    if null_N is not None:
        index_N[null_N] = len(words)
    used = np.zeros(len(words) + 1, np.bool_)
    used[index_N] = True
    place = np.cumsum(used, dtype=np.int32) - 1
    known = np.flatnonzero(used[:-1])
    if len(known) < len(words):
        words = words.take(pa.array(known, pa.int64()))
    fields: list[str | int | None] = words.to_pylist()
    return place[index_N], fields + [None] * int(used[-1])


class Times(NamedTuple):
    """stamp_N: ms since the epoch. bad_N: outside of 1970 to 9999. null_N: None where no one is."""

    stamp_N: I64
    bad_N: Bools
    null_N: Bools | None


def times(column: Any, name: str) -> Times | None:
    """None where they are texts. Raises Refused."""
    kind = column.type
    if types.is_string(kind) or types.is_large_string(kind):
        return None
    null_N = nulls(column)
    if types.is_null(kind):
        return Times(np.zeros(len(column), np.int64), np.zeros(len(column), np.bool_), null_N)
    if types.is_timestamp(kind):
        factor, divisor = _UNITS[kind.unit]
        value_N = raw(column).astype(np.int64)
        bad_N = (value_N < -divisor) | (value_N // divisor > LATEST_MS // factor)
        value_N[bad_N] = 0
        return _checked(_rounded(value_N * factor, divisor), bad_N, null_N)
    if types.is_integer(kind):
        value_N = raw(column)
        bad_N = (value_N < 0) | (value_N > LATEST_MS)
        stamp_N = np.where(bad_N, 0, value_N).astype(np.int64)
        stamp_N[stamp_N < SECONDS_BELOW] *= 1000
        return _checked(stamp_N, bad_N, null_N)
    if types.is_floating(kind):
        value_N = raw(column).astype(np.float64)
        bad_N = ~(np.abs(value_N) <= LATEST_MS + 1)
        value_N = np.where(bad_N, 0.0, value_N)
        value_N[np.abs(value_N) < SECONDS_BELOW] *= 1000
        return _checked(np.rint(value_N).astype(np.int64), bad_N, null_N)
    raise Refused(
        "bad_timestamp", f"{name} is a column of {kind}; it must be timestamps, epoch ms, epoch s or RFC 3339"
    )


def first(column: Any) -> object:
    """Of the first row, what JSON would have there: 0.0 for a number, "" for a text; of lists, one of their length."""
    kind = column.type
    if types.is_null(kind):
        return None
    if types.is_boolean(kind) or kind.id in _DTYPES:
        return 0.0
    if types.is_fixed_size_list(kind):
        return [0.0] * min(kind.list_size, MOST_ELEMENTS)
    if types.is_list(kind) or types.is_large_list(kind):
        begin, end = _bounds(column)[:2].tolist()
        return [0.0] * min(end - begin, MOST_ELEMENTS)
    return ""


def said(column: Any, row: int) -> str:
    """A number as it stands there, for messages."""
    kind = column.type
    return f"{raw(column)[row]} {kind.unit}" if types.is_timestamp(kind) else repr(raw(column)[row].item())


def raw(column: Any) -> NDArray[Any]:
    """Of a fixed width; where it is null, anything."""
    dtype = _DTYPES.get(column.type.id) or np.dtype(np.int64)      # which a timestamp is
    return np.frombuffer(column.buffers()[1], dtype, len(column), column.offset * dtype.itemsize)


def nulls(column: Any) -> Bools | None:
    """None: no one."""
    if not column.null_count:
        return None
    found: Bools = column.is_null().to_numpy(zero_copy_only=False)
    return found


def is_flat(kind: Any) -> bool:
    """Whether rows of it can be taken out at a cost that their own bytes bound."""
    if types.is_dictionary(kind):
        kind = kind.value_type
    elif types.is_fixed_size_list(kind) or types.is_list(kind) or types.is_large_list(kind):
        return bool(types.is_integer(kind.value_type) or types.is_floating(kind.value_type))
    tests = (
        types.is_primitive, types.is_boolean, types.is_null, types.is_decimal, types.is_string, types.is_large_string,
        types.is_binary, types.is_large_binary, types.is_fixed_size_binary,
    )
    return any(test(kind) for test in tests)


def _bounds(column: Any) -> I64:
    """Of lists, where each begins, and the end of the last."""
    dtype = np.dtype(np.int32 if types.is_list(column.type) else np.int64)
    found = np.frombuffer(column.buffers()[1], dtype, len(column) + 1, column.offset * dtype.itemsize)
    return found.astype(np.int64)


def _rounded(value_N: I64, divisor: int) -> I64:
    """To the nearest, a half to the even one, as Python's round."""
    if divisor == 1:
        return value_N
    whole_N, rest_N = np.divmod(value_N, divisor)
    return np.asarray(whole_N + ((2 * rest_N > divisor) | ((2 * rest_N == divisor) & (whole_N & 1 == 1))))


def _checked(stamp_N: I64, bad_N: Bools, null_N: Bools | None) -> Times:
    return Times(stamp_N, bad_N | (stamp_N < 0) | (stamp_N > LATEST_MS), null_N)
