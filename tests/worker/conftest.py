"""A registry with a champion; and the end of what a test's worlds began."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import factory
from tests.worker.world import World


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    factory.publish(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """The one of each World that looks for newer champions."""
    yield
    while World.made:
        World.made.pop().models.close()
