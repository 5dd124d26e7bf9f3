"""From all readings of a history to those that are learnt from: faults left out, every entity with its share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from training.history import exclusions, sample
from training.history.feedback import Label
from training.history.history import History
from training.progress import Progress
from training.settings import Maintenance, Settings
from worker.models.artifact import Artifact


class Selection(NamedTuple):
    history: History
    notes: tuple[str, ...]              # what a person should know of the readings


def selected(
    history: History, champion: Artifact | None, labels: Mapping[int, Label], maintenance: Sequence[Maintenance],
    settings: Settings, progress: Progress,
) -> Selection:
    """labels: of feedback, by row."""
    training = settings.training
    judge = champion if training.exclude_anomalous else None
    if judge is not None and judge.manifest.features != history.features:
        progress.say(
            f"champion {judge.manifest.version} has other features than these readings, so it cannot say which are "
            "anomalous: all are learnt"
        )
        judge = None
    found = exclusions.found(history, judge, labels, maintenance, settings, progress.go_on)
    for note in found.notes:
        progress.say(note)
    kept_N = np.flatnonzero(found.out_N == 0)
    picked_N = sample.fair(history.batch.entity_B[kept_N], training.max_readings, training.holdout, training.seed)
    beyond = len(kept_N) - len(picked_N)
    left_out = found.counted | ({"beyond_quota": beyond} if beyond else {})
    return Selection(history.only(kept_N[picked_N], left_out), tuple(found.notes))
