"""The long form runs when it is asked for: pytest tests/faults -m slow"""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("-m"):
        slow = [item for item in items if item.get_closest_marker("slow") and "faults" in item.path.parts]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]
