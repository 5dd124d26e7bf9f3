"""The compiled core and its twins in Python, for tests that hold the two equal."""

from __future__ import annotations

from typing import Any

import pytest

from worker import compiled

needs_core = pytest.mark.skipif(not compiled.built(), reason="the compiled core was not built: no Rust toolchain")


def by(how: Any, work: Any, *given: Any) -> Any:
    """What the one or the other gives."""
    compiled.choose(how)
    try:
        return work(*given)
    finally:
        compiled.choose("auto")
