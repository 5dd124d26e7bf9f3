"""Files of a registry on this machine's disks: they lie where their names say, and are of bounded size.

A link could lead a version to files that nobody published, and a pipe or a device would be read for ever.
"""

from __future__ import annotations

import os
import stat

from worker.errors import ModelError


def require(root: str, path: str) -> str:
    """The path without links, where none leads out of its place below root, which may be a link itself.

    Raises ModelError.
    """
    wanted = os.path.normpath(os.path.join(os.path.realpath(root), os.path.relpath(path, root)))
    found = os.path.realpath(path)
    if found != wanted:
        raise ModelError(f"{path} is a link to {found}; a version's files lie in its own folder")
    return found


def read(root: str, path: str, most_bytes: int) -> bytes:
    """The file's content. Raises ModelError where it is none of ours, or too large; OSError."""
    opened = os.open(require(root, path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(opened, "rb") as file:
        found = os.fstat(opened)
        if not stat.S_ISREG(found.st_mode):
            raise ModelError(f"{path} is no ordinary file")
        require_size(path, found.st_size, most_bytes)
        content = file.read(found.st_size + 1)
    if len(content) > found.st_size:
        raise ModelError(f"{path} grew while it was read; publish the version anew")
    return content


def require_size(path: str, size_bytes: int, most_bytes: int) -> None:
    if size_bytes > most_bytes:
        raise ModelError(f"{path} has {size_bytes} bytes; at most {most_bytes} are read")
