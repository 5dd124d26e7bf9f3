"""Do the newest readings of the topic still look like what the champion learnt? A look, without a worker's help."""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
import torch

from training.history.history import from_topic
from training.progress import Progress
from training.settings import Settings
from worker.detection.detector import Detector
from worker.models import artifact
from worker.models.drift import AT_MOST, LEAST_READINGS, Drift
from worker.models.registry import opened

SCORE = "the score"


class Drifted(NamedTuple):
    """The statistic that has moved most."""

    version: str                        # the champion
    psi: float
    feature: str                        # … of what; SCORE where it is the scores'


def look(settings: Settings) -> Drifted | None:
    """Over as many readings as the worker looks at. None where nothing can be said: there is no champion, it holds no
    reference, or too few readings have come. Raises UserError.
    """
    registry = opened(settings.model.registry, settings.model.name)
    version, window = registry.resolve(settings.model.alias), settings.model.drift_readings
    if version is None or not window:
        return None
    champion = artifact.load(registry, version, torch.device("cpu"))
    manifest = champion.manifest
    if manifest.reference is None:
        return None
    newest = settings.training.model_copy(
        update={"start": None, "end": None, "max_age": None, "max_records": window}
    )
    given = settings.input.model_copy(update={"features": manifest.features})
    history = from_topic(
        settings.model_copy(update={"training": newest, "input": given}), Progress(io.StringIO())
    )
    scores = Detector(champion).score_history(history.batch)
    drift = Drift(manifest.reference, window, min(window, LEAST_READINGS))
    for start in range(0, len(history), AT_MOST):
        part = slice(start, start + AT_MOST)
        drift.count(history.batch.x_BF[part], scores.settled_B[part])
    psi_F = drift.statistics().psi_F
    if np.isnan(psi_F).all():
        return None
    most = int(np.nanargmax(psi_F))
    return Drifted(version, float(psi_F[most]), (*manifest.features, SCORE)[most])
