"""Aliases that training and worker both move: which version serves, and which one served before."""

from __future__ import annotations

from worker.errors import ModelError, RegistryError
from worker.models.registry import Registry

CHALLENGER = "challenger"
PREVIOUS = "previous"
ROLLED_BACK = "rolled_back"


def rollback(registry: Registry, alias: str) -> tuple[str, str]:
    """Back to the version that was served before: (from, to). A second time there is nothing to go back to."""
    now, previous = registry.resolve(alias), registry.resolve(PREVIOUS)
    if now is None:
        raise ModelError(f"{registry.place} has no {alias}; promote a version first (`zmu-training models promote`)")
    if previous is None or previous == now:
        raise RegistryError(
            f"{registry.place} knows no version before {now}; `zmu-training models list` shows the versions, "
            "`zmu-training models promote VERSION` serves one"
        )
    roll_back_to(registry, alias, now, previous)
    return now, previous


def roll_back_to(registry: Registry, alias: str, left: str, version: str) -> None:
    """`left` is noted first, so that training does not make it again from the same records."""
    registry.point(ROLLED_BACK, left)
    registry.point(alias, version)
