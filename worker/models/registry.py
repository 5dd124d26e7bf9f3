"""Model versions and aliases in a folder or an object store.

    <registry>/<name>/<version>/{model.safetensors, manifest.json, report.html}
    <registry>/<name>/aliases/<alias>          holds a version
    <registry>/<name>/shadow/<version>/        how long, and how, it did in the shadow: worker/models/shadow_time.py

A version is complete when its manifest is there (it is written last) and never changes. An alias moves by an
atomic replace, so a reader sees the old version or the new one.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Mapping

import fsspec
from fsspec.implementations.local import LocalFileSystem

from worker.errors import ModelError, RegistryError
from worker.models import inside

MANIFEST = "manifest.json"
WEIGHTS = "model.safetensors"
REPORT = "report.html"
MAX_FILE_BYTES = {MANIFEST: 64 * 2**20, WEIGHTS: 512 * 2**20, REPORT: 256 * 2**20}
MAX_ALIAS_BYTES = 256
MAX_NOTE_BYTES = 4096
MLFLOW = ("mlflow+http://", "mlflow+https://")

VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,127}")
ALIAS = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_ALIASES = "aliases"
_NOTES = "shadow"


class Registry:
    """One model's versions.

    url: folder or fsspec URL; name: of the model.
    Raises RegistryError where the place cannot be read or written.
    """

    def __init__(self, url: str, name: str) -> None:
        try:
            self._fs, root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise RegistryError(f"registry {url!r}: {error}; set ZMU_MODEL__REGISTRY to a folder or URL") from None
        self.url, self.name = url, name
        self._root = f"{root.rstrip('/')}/{name}"

    @property
    def place(self) -> str:
        return f"{self.url.rstrip('/')}/{self.name}"

    @property
    def folder(self) -> str | None:
        """The model's folder, where the registry is on a file system of this machine's; it may not exist yet."""
        return self._root if isinstance(self._fs, LocalFileSystem) else None

    def versions(self) -> list[str]:
        """Complete versions, the oldest first (names sort by time)."""
        with self._explained("list"):
            self._fs.invalidate_cache()
            if not self._fs.isdir(self._root):
                return []
            folders = [path.rstrip("/").rsplit("/", 1)[1] for path in self._fs.ls(self._root, detail=False)]
            return sorted(
                version
                for version in folders
                if version != _ALIASES
                and VERSION.fullmatch(version)
                and self._fs.exists(self._path(version, MANIFEST))
            )

    def aliases(self) -> dict[str, str]:
        """alias → version."""
        with self._explained("list"):
            self._fs.invalidate_cache()
            folder = f"{self._root}/{_ALIASES}"
            if not self._fs.isdir(folder):
                return {}
            names = [path.rstrip("/").rsplit("/", 1)[1] for path in self._fs.ls(folder, detail=False)]
            found = {name: self.resolve(name) for name in sorted(names) if ALIAS.fullmatch(name)}
            return {name: version for name, version in found.items() if version}

    def resolve(self, alias: str) -> str | None:
        """The version that the alias names; None where there is no such alias."""
        if not ALIAS.fullmatch(alias):
            return None
        with self._explained("read"):
            self._fs.invalidate_cache()         # a listing that was kept would tell the size of the alias before
            try:
                content = self._content(f"{self._root}/{_ALIASES}/{alias}", MAX_ALIAS_BYTES)
            except FileNotFoundError:
                return None
        version = content.decode("utf-8", "replace").strip()
        if not VERSION.fullmatch(version):
            raise ModelError(f"alias {alias!r} in {self.place} holds {version[:64]!r}, which is no version")
        return version

    def read(self, version: str, file: str) -> bytes:
        """One file of a version, whole. Raises ModelError where it is absent or larger than such a file may be."""
        path = self._path(version, file)
        with self._explained("read"):
            try:
                return self._content(path, MAX_FILE_BYTES[file])
            except FileNotFoundError:
                raise ModelError(
                    f"{self.place}/{version} has no {file}; `zmu-training models list` shows the versions"
                ) from None

    def _content(self, path: str, most_bytes: int) -> bytes:
        if isinstance(self._fs, LocalFileSystem):
            return inside.read(self._root, path, most_bytes)
        size = self._fs.size(path)
        inside.require_size(path, most_bytes + 1 if size is None else size, most_bytes)
        # No more than was said, should the object be replaced by a larger one meanwhile.
        content = self._fs.cat_file(path, start=0, end=size) if size else b""
        assert isinstance(content, bytes)
        return content

    def publish(self, version: str, files: Mapping[str, bytes]) -> None:
        """Writes a version. Its manifest goes last: until then no reader takes it for one."""
        require_sizes(files)
        with self._explained("write"):
            if self._fs.exists(self._path(version, MANIFEST)):
                raise RegistryError(f"{self.place}/{version} is there already; versions never change")
            for file in sorted(files, key=lambda name: name == MANIFEST):
                self._write(self._path(version, file), files[file])

    def point(self, alias: str, version: str) -> None:
        """Moves an alias. Raises ModelError where the version is not there."""
        assert ALIAS.fullmatch(alias), alias
        with self._explained("write"):
            if not self._fs.exists(self._path(version, MANIFEST)):
                raise ModelError(
                    f"{self.place} has no version {version!r}; `zmu-training models list` shows the versions"
                )
            self._write(f"{self._root}/{_ALIASES}/{alias}", version.encode())

    def note(self, version: str, name: str, content: bytes) -> None:
        """A small file about a version, beside it: the version itself never changes. Replaces the one of that name."""
        with self._explained("write"):
            self._write(f"{self._notes(version)}/{name}.json", content)

    def notes(self, version: str) -> list[bytes]:
        """All that was noted of a version."""
        with self._explained("read"):
            self._fs.invalidate_cache()
            folder = self._notes(version)
            if not self._fs.isdir(folder):
                return []
            paths = [path for path in self._fs.ls(folder, detail=False) if path.endswith(".json")]
            return [self._content(path, MAX_NOTE_BYTES) for path in paths]

    def writable(self) -> None:
        """Raises RegistryError where nothing can be written: said before a training, not after it."""
        probe = f"{self._root}/.probe-{secrets.token_hex(4)}"
        with self._explained("write"):
            self._write(probe, b"")
            self._fs.rm_file(probe)

    def _notes(self, version: str) -> str:
        if not VERSION.fullmatch(version):
            raise ModelError(f"{version!r} is no name of a version in {self.place}")
        return f"{self._root}/{_NOTES}/{version}"

    def _path(self, version: str, file: str) -> str:
        if not VERSION.fullmatch(version) or version == _ALIASES or file not in MAX_FILE_BYTES:
            raise ModelError(f"{version!r} is no name of a version in {self.place}")
        return f"{self._root}/{version}/{file}"

    def _write(self, path: str, content: bytes) -> None:
        """Whole or not at all. Object stores put objects so; on a file system a synced twin takes the name."""
        if not isinstance(self._fs, LocalFileSystem):
            self._fs.pipe_file(path, content)
            return
        os.makedirs(os.path.dirname(path), exist_ok=True)
        inside.require(self._root, os.path.dirname(path))
        twin = f"{path}.{secrets.token_hex(4)}.part"
        try:
            with open(twin, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(twin, path)
        except OSError:
            if os.path.exists(twin):
                os.unlink(twin)
            raise
        folder = os.open(os.path.dirname(path), os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _explained(self, doing: str) -> _Explained:
        return _Explained(self.place, doing)


def opened(url: str, name: str) -> Registry:
    """What ZMU_MODEL__REGISTRY names: a folder, an object store, or an MLflow server. Raises RegistryError."""
    if url.startswith(MLFLOW):
        from worker.models.mlflow_registry import MlflowRegistry  # its client is an extra, and takes a second to load

        return MlflowRegistry(url, name)
    return Registry(url, name)


def require_sizes(files: Mapping[str, bytes]) -> None:
    """Raises RegistryError for a file that no reader would take."""
    assert MANIFEST in files
    for file, content in files.items():
        if len(content) > MAX_FILE_BYTES[file]:
            raise RegistryError(f"{file} has {len(content)} bytes; the worker reads at most {MAX_FILE_BYTES[file]}")


class _Explained:
    """Turns what a store raises into one message that names the place and the setting."""

    def __init__(self, place: str, doing: str) -> None:
        self._place, self._doing = place, doing

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (RegistryError, ModelError)) or not isinstance(error, Exception):
            return
        said = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        raise RegistryError(
            f"registry {self._place}: cannot {self._doing} ({said}); "
            "set ZMU_MODEL__REGISTRY to a folder or URL that this user may use"
        ) from error
