"""The choice between the compiled core and its twins in Python."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from worker import compiled
from worker.errors import SettingsError


@pytest.fixture(autouse=True)
def _back() -> Iterator[None]:
    yield
    compiled._loaded.cache_clear()
    compiled.choose("auto")


def test_python_is_python() -> None:
    compiled.choose("python")
    assert (compiled.core(), compiled.kind(), compiled.missed()) == (None, "python", "")


@pytest.mark.skipif(not compiled.built(), reason="no Rust toolchain built it")
def test_what_was_built_is_taken() -> None:
    for how in ("auto", "compiled"):
        compiled.choose(how)  # type: ignore[arg-type]
        core = compiled.core()
        assert core is not None
        assert core.Decoder
        assert compiled.kind() == "compiled"


@pytest.mark.skipif(compiled.built(), reason="the compiled core is here")
def test_what_was_not_built_can_be_missed() -> None:
    compiled.choose("auto")
    assert compiled.kind() == "python"
    with pytest.raises(SettingsError, match=r"rustup\.rs"):
        compiled.choose("compiled")


def test_what_cannot_be_loaded_is_done_without_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A core of another machine, say, or a file cut short."""
    (tmp_path / f"elsewhere{EXTENSION_SUFFIXES[-1]}").write_bytes(b"no library")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(compiled, "MODULE", "elsewhere")
    compiled._loaded.cache_clear()
    compiled.choose("auto")
    assert (compiled.core(), compiled.kind()) == (None, "python")
    assert compiled.missed().startswith("the compiled core cannot be loaded (")
    with pytest.raises(SettingsError, match=r"cannot be loaded \(.*elsewhere.*rustup\.rs"):
        compiled.choose("compiled")
