"""Which readings are not learnt from, and why: a fault that is learnt is never told again.

    maintenance     while the settings, or the maintenance topic, say that it was worked on
    confirmed       feedback calls it an anomaly
    stuck           a sensor repeated itself for too long
    incident        the champion was in alarm, for long or again and again
    anomalous       the champion was in alarm, briefly

The champion's lowest alarms, up to some times the rate that it was asked for, stay in: they are its false alarms, and
without them every training would find a lower threshold than the one before. High and long ones never do. A change
that most machines show at once is the plant's new normal and stays in, as does what feedback calls normal.

Legend: N readings, S spans of alarms.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from training.history import sensors
from training.history.feedback import NORMAL, Label
from training.history.history import History
from training.history.spans import Spans
from training.settings import Maintenance, Settings
from worker.detection.budget import target_rate
from worker.detection.detector import AT_ONCE, Detector
from worker.models.artifact import Artifact
from worker.records import F32, Batch, Bools

REASONS = ("maintenance", "confirmed", "stuck", "incident", "anomalous")
BUDGET = 3.0                            # times the asked rate: alarms come in runs, and so above it or below
SERIOUS_SCORE = 1.5                     # that the false alarms of a calibrated version do not reach
LONG_ROWS = 75                          # of one alarm, and that they do not last
MOVED = 0.5                             # of an entity's newest readings in alarm: it works differently now
FEWEST_ENTITIES = 3                     # that can outvote a fault


class Judged(NamedTuple):
    """What the champion, which accepts no new level by itself, says of each reading."""

    anomalous_N: Bools
    score_N: F32
    target_rate: float                  # that the worker is asked for


@dataclass
class Exclusions:
    """out_N: index in REASONS plus 1; 0 is learnt from. notes: what a person should know of the readings."""

    out_N: NDArray[np.uint8]
    notes: list[str] = field(default_factory=list)

    def leave_out(self, rows: Any, reason: str) -> None:
        """The first reason of a reading counts."""
        which = np.zeros(len(self.out_N), bool)
        which[rows] = True
        self.out_N[which & (self.out_N == 0)] = REASONS.index(reason) + 1

    @property
    def counted(self) -> dict[str, int]:
        count = np.bincount(self.out_N, minlength=len(REASONS) + 1)
        return {reason: int(count[i + 1]) for i, reason in enumerate(REASONS) if count[i + 1]}


def found(
    history: History, champion: Artifact | None, labels: Mapping[int, Label], maintenance: Sequence[Maintenance],
    settings: Settings, go_on: Callable[[], None] = lambda: None,
) -> Exclusions:
    """champion: None where there is none, or where its alarms are not to be looked at. labels: by row."""
    batch = history.batch
    exclusions = Exclusions(np.zeros(len(batch), np.uint8))
    for window in maintenance:
        exclusions.leave_out(_within(window.span_ms, window.entities, history), "maintenance")
    exclusions.leave_out([row for row, label in labels.items() if label == "anomaly"], "confirmed")
    quality = sensors.quality_of(history, champion, settings.training.max_readings)
    stuck_N, notes = sensors.faults(history, quality)
    exclusions.leave_out(stuck_N, "stuck")
    exclusions.notes += notes
    if champion is not None:
        judged = _judged(champion, batch, settings, go_on)
        _leave_out_alarms(exclusions, history, judged, labels, settings)
    return exclusions


def _judged(champion: Artifact, batch: Batch, settings: Settings, go_on: Callable[[], None]) -> Judged:
    manifest = champion.manifest
    changes: dict[str, object] = {}
    if manifest.chart is not None:
        changes["chart"] = manifest.chart.model_copy(update={"accept_after": None})
    judge = Artifact(manifest.model_copy(update=changes), champion.model)
    detector = Detector(judge, target_rate(settings.model, manifest))
    states = detector.states()
    states.reserve(int(batch.entity_B.max(initial=-1)) + 1)
    anomalous_N, score_N = np.zeros(len(batch), bool), np.zeros(len(batch), np.float32)
    for start in range(0, len(batch), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        scores = detector.score(batch.take(part), states)
        anomalous_N[part], score_N[part] = scores.anomalous_B, scores.anomaly_score_B
        go_on()
    return Judged(anomalous_N, score_N, detector.target_rate)


def _leave_out_alarms(
    exclusions: Exclusions, history: History, judged: Judged, labels: Mapping[int, Label], settings: Settings
) -> None:
    batch, names = history.batch, history.entities.names
    spans = Spans.of(batch, judged.anomalous_N, judged.score_N, settings.incidents)
    if not len(spans):
        return
    kept_S = np.zeros(len(spans), bool)
    moved = _moved(batch, judged.anomalous_N, settings.training.holdout)
    if moved:
        kept_S |= spans.reaches_newest_S & np.isin(spans.entity_S, list(moved))
        exclusions.notes.append(
            f"{len(moved)} of {len(np.unique(batch.entity_B))} entities differ from before: taken for the plant's new "
            "normal, and learnt"
        )
    for row, label in labels.items():
        at = spans.at(row)
        if at is not None and label in NORMAL:
            kept_S[at] = True
            if label == "new_normal":   # and whatever came after it
                kept_S |= (spans.entity_S == spans.entity_S[at]) & (np.arange(len(spans)) > at)
    confirmed = {at for row, label in labels.items() if label == "anomaly" and (at := spans.at(row)) is not None}
    kept_S[list(confirmed)] = False
    serious_S = (spans.peak_S >= SERIOUS_SCORE) | (spans.longest_S > LONG_ROWS)
    left = int(BUDGET * judged.target_rate * len(batch))
    for at in np.argsort(spans.peak_S, kind="stable").tolist():
        if at in confirmed or kept_S[at] or serious_S[at]:
            continue
        left -= int(spans.alarms_S[at])
        if left < 0:
            break
        kept_S[at] = True
    for at in np.flatnonzero(~kept_S).tolist():
        exclusions.leave_out(spans.rows(at), "incident" if spans.incident_S[at] else "anomalous")
    loud = np.unique(spans.entity_S[spans.reaches_newest_S & ~kept_S & spans.incident_S])
    if len(loud):
        said = ", ".join(sorted(names[code] for code in loud.tolist())[:8])
        exclusions.notes.append(
            f"in alarm to the end, and not learnt: {said}. If that is its new normal, say so with feedback `new_normal`"
        )


def _moved(batch: Batch, anomalous_N: Bools, newest_share: float) -> set[int]:
    """Entities that were in alarm most of their newest readings, where they are most of all."""
    order_N = np.argsort(batch.entity_B, kind="stable")
    code_E, start_E, count_E = np.unique(batch.entity_B[order_N], return_index=True, return_counts=True)
    if len(code_E) < FEWEST_ENTITIES:
        return set()
    moved = set()
    for code, start, count in zip(code_E.tolist(), start_E.tolist(), count_E.tolist(), strict=True):
        newest = order_N[start + count - max(int(count * newest_share), 1) : start + count]
        if anomalous_N[newest].mean() > MOVED:
            moved.add(code)
    return moved if len(moved) > MOVED * len(code_E) else set()


def _within(span_ms: tuple[int, int], entities: tuple[str, ...], history: History) -> Bools:
    start_ms, end_ms = span_ms
    stamp_N = history.batch.timestamp_ms_B
    within_N = (stamp_N >= start_ms) & (stamp_N < end_ms)
    if entities:
        codes = [code for code, name in enumerate(history.entities.names) if name in entities]
        within_N &= np.isin(history.batch.entity_B, codes)
    return np.asarray(within_N)
