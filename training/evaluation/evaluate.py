"""A model version on labelled recordings: the worker's own detector, and how its scores answer to the labels.

Legend: N rows of a recording, R rows of a file.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from training.evaluation import labelled
from training.evaluation.detection_metrics import Confusion, Events, volume_under_pr
from worker.codec.readings import ReadingSchema
from worker.detection.detector import Detector
from worker.entities import Entities
from worker.errors import InputError
from worker.recordings import files
from worker.records import F64, Bools, Refusal
from worker.settings import InputSettings

LOWEST = -1.0                           # score of a row that is no reading: below every other


class Figures(NamedTuple):
    """Shares and rates from 0 to 1; NaN where there is nothing to take them of."""

    rows: int
    anomalous: float                    # share of the rows, by label
    f1: float                           # of rows, no point adjustment
    false_alarm_rate: float             # share of the normal rows in alarm
    missed_rate: float                  # share of the anomalous rows not in alarm
    vus_pr: float
    events: int                         # runs of anomalous rows
    found: int                          # events with an alarm inside
    delay_rows: float                   # from an event's start to the first alarm within it; the median of those found


@dataclass(frozen=True)
class Recording:
    """One entity of one file, with what the detector said of it."""

    path: Path
    name: str
    label_N: Bools
    score_N: F64                        # anomaly score; LOWEST where the row is no reading
    alarm_N: Bools
    unscored: int = 0                   # rows that are no readings: never in alarm

    @property
    def confusion(self) -> Confusion:
        return Confusion.of(self.label_N, self.alarm_N)

    @cached_property
    def vus_pr(self) -> float:
        return volume_under_pr(self.score_N, self.label_N)

    @property
    def events(self) -> Events:
        return Events.of(self.label_N)

    @property
    def figures(self) -> Figures:
        return _figures([self])


@dataclass(frozen=True)
class Evaluation:
    recordings: tuple[Recording, ...]
    refused: tuple[Refusal, ...] = ()

    @property
    def figures(self) -> Figures:
        """Of all recordings: alarms pooled over rows, VUS-PR averaged over those that have both kinds of rows."""
        return _figures(self.recordings)

    @property
    def always_on_f1(self) -> float:
        """What an alarm that never ends gets: the floor of F1."""
        return Confusion.pooled([r.confusion for r in self.recordings]).always_on.f1

    @property
    def random_vus_pr(self) -> float:
        """What random scores get: the floor of VUS-PR."""
        random = (volume_under_pr(np.random.default_rng(0).random(len(r.label_N)), r.label_N) for r in self.recordings)
        return _mean(random)


def evaluate(paths: Sequence[Path], detector: Detector, settings: InputSettings, label: str, skip: int) -> Evaluation:
    """Scores each file from its beginning; its first `skip` rows (of each entity) are scored but not judged.

    Raises InputError where a file cannot be used or has no labels.
    """
    manifest = detector.manifest
    if label in manifest.features:
        raise InputError(
            f"version {manifest.version} was trained with {label!r} as a feature, so it knows the answers; train one "
            f"with ZMU_INPUT__IGNORE='[\"{label}\"]'"
        )
    recordings: list[Recording] = []
    refused: list[Refusal] = []
    for path in paths:
        found, bad = _of_file(path, detector, settings, label, skip)
        recordings += found
        refused += bad
    return Evaluation(_told_apart(recordings), tuple(refused))


def _told_apart(recordings: Sequence[Recording]) -> tuple[Recording, ...]:
    """Recordings of one name with their files before it."""
    count = Counter(r.name for r in recordings)
    return tuple(replace(r, name=f"{r.path}: {r.name}") if count[r.name] > 1 else r for r in recordings)


def _of_file(
    path: Path, detector: Detector, settings: InputSettings, label: str, skip: int
) -> tuple[list[Recording], list[Refusal]]:
    labels = labelled.read(path, label, settings.entity_field)
    schema = ReadingSchema.of(detector.manifest.features, settings)
    batch, refused = files.read(path, schema, Entities())
    scores = detector.score_history(batch)
    n_rows = max(int(labels.row_N.max(initial=-1)), int(batch.offset_B.max(initial=-1))) + 1
    score_R, alarm_R = np.full(n_rows, LOWEST), np.zeros(n_rows, bool)
    score_R[batch.offset_B], alarm_R[batch.offset_B] = scores.anomaly_score_B, scores.anomalous_B
    names_N = np.array(labels.entity_N, object)
    recordings = []
    for name in dict.fromkeys(entity for entity in labels.entity_N if entity):
        judged_N = np.flatnonzero(names_N == name)[skip:]
        if not len(judged_N):
            raise InputError(
                f"{path}: {name} has {int((names_N == name).sum())} labelled rows and --skip leaves out {skip}; "
                "none is left to judge"
            )
        score_N = score_R[labels.row_N[judged_N]]
        recordings.append(
            Recording(
                path=path,
                name=name,
                label_N=labels.label_N[judged_N],
                score_N=score_N,
                alarm_N=alarm_R[labels.row_N[judged_N]],
                unscored=int((score_N == LOWEST).sum()),
            )
        )
    return recordings, refused


def _figures(recordings: Sequence[Recording]) -> Figures:
    confusion = Confusion.pooled([r.confusion for r in recordings])
    delays = [delay for r in recordings for delay in r.events.delays(r.alarm_N)]
    rows = sum(confusion)
    return Figures(
        rows=rows,
        anomalous=(confusion.hits + confusion.misses) / rows,
        f1=confusion.f1,
        false_alarm_rate=confusion.false_alarm_rate,
        missed_rate=confusion.missed_rate,
        vus_pr=_mean(r.vus_pr for r in recordings),
        events=sum(len(r.events) for r in recordings),
        found=len(delays),
        delay_rows=statistics.median(delays) if delays else math.nan,
    )


def _mean(values: Iterable[float]) -> float:
    numbers = [value for value in values if not math.isnan(value)]
    return statistics.fmean(numbers) if numbers else math.nan
