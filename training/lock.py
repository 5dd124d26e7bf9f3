"""One training of a model at a time, where the registry is a folder: the kernel lets go of one that dies.

An object store has no such lock; there a CronJob's `concurrencyPolicy: Forbid` keeps runs apart. Two runs at once do no
harm to the registry, as versions never change: the later one's alias counts.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

from worker.errors import RegistryError, TrainingError
from worker.models.registry import Registry

FILE = ".training.lock"


@contextlib.contextmanager
def held(registry: Registry) -> Iterator[None]:
    """Raises TrainingError where another training holds it."""
    if registry.folder is None:
        yield
        return
    try:
        os.makedirs(registry.folder, exist_ok=True)
        descriptor = os.open(f"{registry.folder}/{FILE}", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise RegistryError(
            f"registry {registry.place}: cannot write ({error.strerror}); set ZMU_MODEL__REGISTRY to a folder or URL "
            "that this user may use"
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TrainingError(
                f"another training of {registry.place} is on; let it end, or train another model (ZMU_MODEL__NAME)"
            ) from None
        yield
    finally:
        os.close(descriptor)
