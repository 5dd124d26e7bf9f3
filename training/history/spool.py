"""Readings on disk as columns, so that a topic's size is no question of memory.

The files have no name: they go when nobody looks at them any more, however the program ends.

Legend: B readings, F features.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from worker.errors import TrainingError
from worker.records import Batch

COLUMNS = ("x_BF", "entity_B", "timestamp_ms_B", "partition_B", "offset_B", "row_B")


class Spool:
    """Takes batches in, and gives one batch out whose columns lie on disk. 28 bytes a reading and 4 a feature."""

    def __init__(self, features: int) -> None:
        self._features = features
        self._files: dict[str, IO[bytes]] = {
            name: tempfile.TemporaryFile(prefix="zmu-") for name in COLUMNS     # noqa: SIM115 – `close` closes them
        }
        self._dtypes: dict[str, np.dtype[Any]] = {}
        self._rows = 0

    def append(self, batch: Batch) -> None:
        """Raises TrainingError where the disk takes no more."""
        for name, file in self._files.items():
            column: NDArray[Any] = np.ascontiguousarray(batch.rows_B if name == "row_B" else getattr(batch, name))
            self._dtypes.setdefault(name, column.dtype)
            with _explained():
                file.write(column.data)
        self._rows += len(batch)

    def close(self) -> None:
        """A batch that was given out stays good."""
        for file in self._files.values():
            file.close()

    def batch(self) -> Batch:
        """All of it, read only. What is picked from it with `take` is in memory."""
        return Batch(**{name: self._column(name) for name in COLUMNS})

    def _column(self, name: str) -> NDArray[Any]:
        shape = (self._rows, self._features) if name == "x_BF" else (self._rows,)
        file = self._files[name]
        if not self._rows or not self._features:
            return np.empty(shape, self._dtypes.get(name, np.dtype(np.float32 if name == "x_BF" else np.int64)))
        with _explained():
            file.flush()
        return np.asarray(np.memmap(file, self._dtypes[name], mode="r", shape=shape))


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TrainingError(
            f"the readings that were read cannot be kept in {tempfile.gettempdir()} ({error.strerror}); make room, set "
            "TMPDIR to a folder that has it, or lower ZMU_TRAINING__MAX_RECORDS"
        ) from error
