"""Labels of the recordings that a training is given: what they mark is not learnt, and both versions are judged by it.

Legend: N readings, L labelled ones that are judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from training.evaluation import labelled
from training.fitting import dataset
from training.history.feedback import AtLabels, Label
from training.history.history import History
from training.settings import Settings
from worker.detection.detector import Detector
from worker.records import Bools


def anomalous(paths: Sequence[Path], history: History, settings: Settings) -> Bools:
    """Which readings the files' column of labels marks. Raises InputError where a file has none."""
    batch, marked_N = history.batch, np.zeros(len(history), bool)
    for number, path in enumerate(paths):
        labels = labelled.read(path, settings.training.label or "", settings.input.entity_field)
        rows = labels.row_N[labels.label_N]
        marked_N |= (batch.partition_B == number) & np.isin(batch.offset_B, rows)
    return marked_N


def scored(detector: Detector, history: History, marked_N: Bools, newest_share: float) -> AtLabels:
    """What a version makes of the newest share of each entity, faults and all."""
    scores = detector.score_history(history.batch)
    row_L = dataset.split(history.batch, newest_share)[1]
    labels: list[Label] = ["anomaly" if marked else "expected" for marked in marked_N[row_L].tolist()]
    return AtLabels(tuple(labels), scores.raw_B[row_L] / detector.threshold, scores.anomalous_B[row_L])
