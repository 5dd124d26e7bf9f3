"""A registry in which somebody else may write: what lies there is refused with a clear error, and takes no memory."""

from __future__ import annotations

import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch

from tests import factory
from worker.errors import ModelError, RegistryError
from worker.models import artifact
from worker.models.registry import MANIFEST, MAX_FILE_BYTES, WEIGHTS, Registry

CPU = torch.device("cpu")


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return factory.publish(tmp_path)


@pytest.fixture
def version(registry: Registry) -> Path:
    return Path(registry.folder or "") / "v1"


def refused(registry: Registry, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        artifact.load(registry, "v1", CPU)


def resigned(version: Path, weights: bytes, **changes: Any) -> None:
    """The weights, and a manifest that vouches for them."""
    (version / WEIGHTS).write_bytes(weights)
    document = json.loads((version / MANIFEST).read_text())
    document["sha256"] = artifact.sha256_of(weights)
    document.update(changes)
    (version / MANIFEST).write_text(json.dumps(document))


def safetensors(header: object, numbers: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + numbers


class Evil:
    def __reduce__(self) -> tuple[Callable[..., int], tuple[str]]:
        return os.system, ("touch pickled",)


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        (pickle.dumps(Evil()), "a header of"),
        (b"", "a header of 0 bytes|not that of safetensors"),
        (b"\x00" * 8, "not that of safetensors"),
        (struct.pack("<Q", 2**63) + b"{}", "a header of"),
        (safetensors(b"{" + b" " * 2**21 + b"}"), "a header of"),
        (safetensors(b"[" * 100_000), "not that of safetensors"),
        (safetensors([1, 2]), "not that of safetensors"),
        (safetensors({"encoder.0.weight": 7}), "not that of safetensors"),
        (safetensors({}), "there is no "),
        (safetensors({"encoder.0.weight": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 8]}}),
         "encoder.0.weight is F32 .1099511627776"),
        (safetensors({"encoder.0.weight": {"dtype": "F64", "shape": [8, 3], "data_offsets": [0, 8]}}),
         "encoder.0.weight is F64"),
        (safetensors({"encoder.0.weight": {"dtype": "F32" * 100_000, "shape": [8, 3], "data_offsets": [0, 8]}}),
         "encoder.0.weight is F32F32"),
    ],
)
def test_weights_that_are_not_the_models(
    registry: Registry, version: Path, weights: bytes, says: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    resigned(version, weights)
    refused(registry, says)
    assert not (tmp_path / "pickled").exists()


def test_more_tensors_than_the_model_has(registry: Registry, version: Path) -> None:
    raw = (version / WEIGHTS).read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + length])
    size = len(raw) - 8 - length
    header["more"] = {"dtype": "F32", "shape": [2], "data_offsets": [size, size + 8]}
    resigned(version, safetensors(header, raw[8 + length :] + b"\x00" * 8))
    refused(registry, "7 tensors, where the model has 6|tensors, where the model has")


def test_numbers_that_lie_outside_the_file(registry: Registry, version: Path) -> None:
    raw = (version / WEIGHTS).read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    resigned(version, raw[: 8 + length])
    refused(registry, "does not fit")


@pytest.mark.parametrize(
    "shape",
    [
        {"features": 3, "hidden": [8192] * 8},
        {"features": 3, "hidden": [8] * 9},
        {"features": 3, "window": 10**12},
        {"features": 3, "latent": 10**9},
        {"features": 10**9},
        {"features": 3, "family": "flow", "latent": 4096, "flows": 10**6},
        {"features": 3, "window": 1024, "hidden": [8192, 8192, 8192]},
        {"features": -1},
    ],
)
def test_shapes_that_would_fill_the_memory(registry: Registry, version: Path, shape: dict[str, Any]) -> None:
    resigned(version, (version / WEIGHTS).read_bytes(), shape=shape)
    refused(registry, "is not valid")


def test_a_shape_within_bounds_takes_no_memory_before_the_weights_are_its(
    registry: Registry, version: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    build = artifact.build

    def watched(*given: Any) -> Any:
        made.append(str(torch.get_default_device()))
        return build(*given)

    monkeypatch.setattr(artifact, "build", watched)
    resigned(version, (version / WEIGHTS).read_bytes(), shape={"features": 3, "hidden": [4096, 4096], "latent": 8})
    refused(registry, "does not fit")
    assert made == ["meta"]


def sparse(path: Path, size_bytes: int) -> None:
    """So large, and no block of it on disk."""
    path.unlink()
    with path.open("wb") as file:
        file.truncate(size_bytes)


@pytest.mark.parametrize("file", [MANIFEST, WEIGHTS])
def test_a_file_that_is_too_large_is_not_read(registry: Registry, version: Path, file: str) -> None:
    sparse(version / file, MAX_FILE_BYTES[file] + 1)
    refused(registry, "at most")


def test_a_manifest_of_too_many_items_is_not_read(registry: Registry, version: Path) -> None:
    (version / MANIFEST).write_bytes(b'{"features":[' + b"0," * artifact.MAX_ITEMS + b"0]}")
    refused(registry, "items; at most")


def test_an_alias_that_is_too_large_is_not_read(registry: Registry) -> None:
    alias = Path(registry.folder or "") / "aliases" / "champion"
    sparse(alias, 2**40)
    with pytest.raises(ModelError, match="at most 256"):
        registry.resolve("champion")


@pytest.mark.parametrize("file", [MANIFEST, WEIGHTS])
@pytest.mark.parametrize("absolute", [True, False])
def test_a_link_leads_nowhere(registry: Registry, version: Path, tmp_path: Path, file: str, absolute: bool) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes((version / file).read_bytes())          # it would even be the right one
    (version / file).unlink()
    (version / file).symlink_to(outside if absolute else "../../outside")
    refused(registry, "is a link to")


def test_a_version_that_is_a_link(registry: Registry, version: Path, tmp_path: Path) -> None:
    version.rename(tmp_path / "elsewhere")
    version.symlink_to(tmp_path / "elsewhere")
    refused(registry, "is a link to")
    with pytest.raises((ModelError, RegistryError)):
        registry.publish("v1", {MANIFEST: b"{}"})


def test_nothing_is_written_through_a_link(registry: Registry, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (Path(registry.folder or "") / "v2").symlink_to(outside)
    with pytest.raises(ModelError, match="is a link to"):
        registry.publish("v2", {MANIFEST: b"{}"})
    assert list(outside.iterdir()) == []


def test_an_alias_that_is_a_link(registry: Registry, tmp_path: Path) -> None:
    alias = Path(registry.folder or "") / "aliases" / "champion"
    (tmp_path / "outside").write_text("v1")
    alias.unlink()
    alias.symlink_to(tmp_path / "outside")
    with pytest.raises(ModelError, match="is a link to"):
        registry.resolve("champion")


@pytest.mark.timeout(30)
@pytest.mark.parametrize("file", [MANIFEST, WEIGHTS])
def test_a_pipe_is_not_waited_for(registry: Registry, version: Path, file: str) -> None:
    (version / file).unlink()
    os.mkfifo(version / file)
    refused(registry, "no ordinary file")


def test_the_registry_itself_may_be_a_link(registry: Registry, tmp_path: Path) -> None:
    """A mounted volume often is one."""
    link = tmp_path / "link"
    link.symlink_to(Path(registry.folder or "").parent)
    linked = Registry(str(link), "default")
    assert artifact.load(linked, linked.resolve("champion") or "", CPU).manifest.version == "v1"
    factory.publish(link, "v2")


@pytest.mark.parametrize("name", ["../v1", "/etc/passwd", "..", "champion/../champion", "", "Champion", "a" * 65])
def test_a_name_that_is_no_alias_is_not_looked_for(registry: Registry, name: str) -> None:
    assert registry.resolve(name) is None


@pytest.mark.parametrize("content", ["../v1", "/etc/passwd", "..", "v1/../v1", "", "v1\nv2", "\x00"])
def test_an_alias_names_a_version_of_the_same_model(registry: Registry, content: str) -> None:
    (Path(registry.folder or "") / "aliases" / "champion").write_text(content)
    with pytest.raises(ModelError, match="is no version"):
        registry.resolve("champion")


def test_an_object_store_has_the_same_bounds(registry: Registry, version: Path) -> None:
    store = fsspec.filesystem("memory")
    store.pipe("/hostile/default/v1/manifest.json", (version / MANIFEST).read_bytes())
    store.pipe("/hostile/default/v1/model.safetensors", (version / WEIGHTS).read_bytes())
    store.pipe("/hostile/default/aliases/champion", b"v1" + b" " * 300)
    remote = Registry("memory://hostile", "default")
    assert artifact.load(remote, "v1", CPU).manifest.version == "v1"
    with pytest.raises(ModelError, match="at most 256"):
        remote.resolve("champion")
    store.pipe("/hostile/default/v1/model.safetensors", b"")
    with pytest.raises(ModelError, match="SHA-256"):
        artifact.load(remote, "v1", CPU)
