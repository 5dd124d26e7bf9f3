"""Versions into the registry, and the aliases that say which one is served."""

from __future__ import annotations

import datetime
import secrets

from worker.errors import ModelError
from worker.models.aliases import CHALLENGER as CHALLENGER
from worker.models.aliases import PREVIOUS
from worker.models.aliases import rollback as rollback
from worker.models.registry import Registry


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
