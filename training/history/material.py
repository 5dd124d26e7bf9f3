"""All that a training reads: readings of a topic or of files, and what people have said of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from training.history import feedback, freshness, maintenance, recordings
from training.history.feedback import AtLabels, Feedback, Label
from training.history.history import History, from_files, from_topic
from training.progress import Progress
from training.settings import Maintenance, Settings
from worker.detection.detector import Detector
from worker.models.registry import Registry


class Material(NamedTuple):
    """at_labels: what a version makes of the labelled readings."""

    everything: History
    labels: dict[int, Label]            # by row
    said: Feedback
    maintenance: tuple[Maintenance, ...]
    at_labels: Callable[[Detector], AtLabels]


def read(settings: Settings, sources: Sequence[Path], registry: Registry, progress: Progress) -> Material:
    """sources: recordings, in the topic's place. Raises UserError, and TooLittleNew where there is nothing to do."""
    if sources and settings.training.label is not None:
        everything = from_files(sources, settings)
        marked_N = recordings.anomalous(sources, everything, settings)
        marked: dict[int, Label] = dict.fromkeys(np.flatnonzero(marked_N).tolist(), "anomaly")
        judged = partial(
            recordings.scored, history=everything, marked_N=marked_N, newest_share=settings.training.holdout
        )
        return Material(everything, marked, Feedback(), settings.training.maintenance, judged)
    if sources:
        everything, said, worked_on = from_files(sources, settings), Feedback(), settings.training.maintenance
    else:
        fresh = freshness.required(registry, settings.input.topic, settings.training.min_new or 0)
        everything = from_topic(settings, progress, asked=fresh)
        said = feedback.read(settings, progress)
        worked_on = maintenance.windows(settings, progress)
    labels = feedback.rows(everything, said)
    return Material(everything, labels, said, worked_on, partial(feedback.scored, history=everything, labels=labels))
