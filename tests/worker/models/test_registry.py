"""Versions and aliases on a real file system: whole or absent, and every damage named."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from tests import factory
from worker.errors import ModelError, RegistryError, UserError
from worker.models import artifact
from worker.models.registry import MANIFEST, REPORT, WEIGHTS, Registry

CPU = torch.device("cpu")


def test_a_version_goes_there_and_back(tmp_path: Path) -> None:
    registry = factory.publish(tmp_path)
    loaded = artifact.load(registry, "v1", CPU)
    assert registry.versions() == ["v1"]
    assert registry.aliases() == {"champion": "v1"}
    assert loaded.manifest.features == factory.FEATURES
    again = artifact.load(registry, "v1", CPU)
    for name, tensor in loaded.model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[name])


def test_versions_never_change(tmp_path: Path) -> None:
    factory.publish(tmp_path)
    with pytest.raises(RegistryError, match="never change"):
        factory.publish(tmp_path)


def test_an_alias_moves_and_never_points_nowhere(tmp_path: Path) -> None:
    registry = factory.publish(tmp_path)
    factory.publish(tmp_path, "v2", champion=False)
    registry.point("champion", "v2")
    assert registry.resolve("champion") == "v2"
    with pytest.raises(ModelError, match="no version 'v3'"):
        registry.point("champion", "v3")
    assert registry.resolve("champion") == "v2"
    assert registry.resolve("challenger") is None


def test_a_version_without_its_manifest_is_not_one(tmp_path: Path) -> None:
    registry = factory.publish(tmp_path)
    half = tmp_path / "default" / "v2"
    half.mkdir()
    (half / WEIGHTS).write_bytes(b"half")
    assert registry.versions() == ["v1"]
    with pytest.raises(ModelError, match=r"has no manifest\.json"):
        artifact.load(registry, "v2", CPU)


@pytest.mark.parametrize("version", ["../v1", "aliases", "", "a/b", ".hidden", "x" * 200])
def test_names_cannot_leave_the_registry(tmp_path: Path, version: str) -> None:
    registry = factory.publish(tmp_path)
    with pytest.raises(ModelError, match="no name of a version"):
        registry.read(version, MANIFEST)
    alias = tmp_path / "default" / "aliases" / "evil"
    alias.write_text(version or "\n")
    with pytest.raises(ModelError):
        artifact.load(registry, registry.resolve("evil") or "", CPU)


def damage(folder: Path, what: str) -> None:
    weights, manifest = folder / WEIGHTS, folder / MANIFEST
    document = json.loads(manifest.read_text())
    if what == "truncated":
        weights.write_bytes(weights.read_bytes()[:-10])
    elif what == "a flipped bit":
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
    elif what == "not json":
        manifest.write_text(manifest.read_text()[:-20])
    elif what == "deep json":
        manifest.write_text("[" * 200_000)
    elif what == "other features":
        document["features"] = ["a", "b"]
        manifest.write_text(json.dumps(document))
    elif what == "huge shape":
        document["shape"]["hidden"] = [8192] * 8
        manifest.write_text(json.dumps(document))
    elif what == "another shape":
        document["shape"]["hidden"] = [9]
        manifest.write_text(json.dumps(document))
    elif what == "nan threshold":
        manifest.write_text(manifest.read_text().replace('"threshold": 4.0', '"threshold": NaN'))
    elif what == "unknown key":
        document["pickle"] = "no"
        manifest.write_text(json.dumps(document))
    elif what == "zero scale":
        document["residual_scale"] = [0, 1, 1]
        manifest.write_text(json.dumps(document))
    elif what == "another's":
        document["version"] = "v9"
        manifest.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("truncated", "SHA-256"),
        ("a flipped bit", "SHA-256"),
        ("not json", "not valid"),
        ("deep json", "not valid"),
        ("other features", "not valid"),
        ("huge shape", "not valid"),
        ("another shape", "does not fit"),
        ("nan threshold", "not valid"),
        ("unknown key", "not valid"),
        ("zero scale", "scale is not positive"),
        ("another's", "another version"),
    ],
)
def test_damage_is_named(tmp_path: Path, what: str, says: str) -> None:
    registry = factory.publish(tmp_path)
    damage(tmp_path / "default" / "v1", what)
    with pytest.raises(ModelError, match=says):
        artifact.load(registry, "v1", CPU)


def test_weights_that_are_not_numbers(tmp_path: Path) -> None:
    from worker.detection.model import Shape, build

    model = build("vae", Shape(features=3, hidden=(8,), latent=2))
    next(model.parameters()).data[0, 0] = float("nan")
    weights = artifact.weights_of(model)
    registry = factory.publish(tmp_path)
    manifest = artifact.read_manifest(registry, "v1")
    bad = manifest.model_copy(update={"version": "v2", "sha256": artifact.sha256_of(weights)})
    artifact.save(registry, bad, weights, "")
    with pytest.raises(ModelError, match="NaN or infinity"):
        artifact.load(registry, "v2", CPU)


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    import pickle

    registry = factory.publish(tmp_path)
    evil = pickle.dumps({"encoder.0.weight": 1})
    manifest = artifact.read_manifest(registry, "v1")
    bad = manifest.model_copy(update={"version": "v2", "sha256": artifact.sha256_of(evil)})
    artifact.save(registry, bad, evil, "")
    with pytest.raises(ModelError, match="does not fit"):
        artifact.load(registry, "v2", CPU)


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RegistryError, match="ZMU_MODEL__REGISTRY"):
        Registry(str(tmp_path / "file" / "below"), "m").writable()
    with pytest.raises(RegistryError, match="set ZMU_MODEL__REGISTRY"):
        Registry("nosuchprotocol://x", "m")


def test_an_empty_registry_is_empty(tmp_path: Path) -> None:
    registry = Registry(str(tmp_path), "m")
    assert registry.versions() == []
    assert registry.aliases() == {}
    registry.writable()
    assert list((tmp_path / "m").iterdir()) == []


def test_any_fsspec_store_will_do() -> None:
    registry = factory.publish("memory://models")  # type: ignore[arg-type]
    assert registry.versions() == ["v1"]
    assert artifact.load(registry, "v1", CPU).manifest.version == "v1"
    assert registry.read("v1", REPORT) == b"<html></html>"


def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = factory.publish(tmp_path)

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)      # a full disk shows at fsync; there is none to fill here
    with pytest.raises(RegistryError, match="No space left"):
        registry.point("champion", "v1")
    monkeypatch.undo()
    assert registry.resolve("champion") == "v1"
    assert not list(tmp_path.rglob("*.part"))


def test_user_errors_have_exit_codes() -> None:
    assert issubclass(ModelError, UserError)
    assert ModelError.exit_code == 2
