"""Versions into the registry, and the aliases that say which one is served."""

from __future__ import annotations

import datetime
import secrets

from worker.errors import ModelError, RegistryError
from worker.registry import Registry

CHALLENGER = "challenger"
PREVIOUS = "previous"


def version_name(now: datetime.datetime) -> str:
    """Sorts by time; two trainings in one second get names of their own."""
    return f"{now.astimezone(datetime.UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


def promote(registry: Registry, alias: str, version: str) -> str | None:
    """Makes a version the one that is served; returns the one before. That is noted first: what dies between the two
    leaves the old version serving. Raises ModelError where the version is not there."""
    if version not in registry.versions():
        raise ModelError(f"{registry.place} has no version {version!r}; `zmu-training models list` shows the versions")
    before = registry.resolve(alias)
    if before == version:
        return before
    if before is not None and before in registry.versions():
        registry.point(PREVIOUS, before)
    registry.point(alias, version)
    return before


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
    registry.point(alias, previous)
    return now, previous
