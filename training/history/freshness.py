"""Whether there is enough that no version has learnt from yet. What makes a repeated run harmless.

What counts is the versions that an alias names. One that nothing names was published by a run that died before it could
say what should become of it: the next run trains anew.
"""

from __future__ import annotations

from collections.abc import Callable

from training.history.extent import Extent
from worker.errors import ModelError
from worker.models.artifact import read_manifest
from worker.models.registry import Registry


class TooLittleNew(Exception):
    """There is nothing to do; nothing was published."""


def required(registry: Registry, topic: str, least: int) -> Callable[[Extent], None]:
    """Raises TooLittleNew where a range has fewer new records. least: 0 for whatever there is."""

    def check(found: Extent) -> None:
        if not least:
            return
        ends, version = learnt(registry, topic)
        if not version:
            return
        new = sum(max(end - max(start, ends.get(p, 0)), 0) for p, (start, end) in found.spans.items())
        if new < least:
            raise TooLittleNew(
                f"{new:,} records are newer than what version {version} learnt from; {least:,} are needed "
                "(ZMU_TRAINING__MIN_NEW)"
            )

    return check


def learnt(registry: Registry, topic: str) -> tuple[dict[int, int], str]:
    """By partition, up to which offset versions have learnt; and the newest of them, "" where there is none."""
    ends: dict[int, int] = {}
    newest = ""
    for version in sorted(set(registry.aliases().values())):
        try:
            ranges = [r for r in read_manifest(registry, version).training.source if r.topic == topic]
        except ModelError:
            continue
        for r in ranges:
            ends[r.partition] = max(ends.get(r.partition, 0), r.end)
        newest = version if ranges else newest
    return ends, newest
