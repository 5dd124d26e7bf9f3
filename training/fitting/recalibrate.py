"""The threshold after feedback: above what people called false alarms, below what they called anomalies, within bounds.

Legend: L labelled readings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from training.history.feedback import Label, scored
from training.history.history import History
from worker.detection.detector import Detector
from worker.models.artifact import Artifact

MARGIN = 1.001                          # a score of just 1 is no alarm; rounding must not make it one
SAFE = 0.99                             # of the lowest confirmed anomaly: it stays an alarm


class Raised(NamedTuple):
    """factor: of the threshold; 1 where nothing asked for more. quiet, loud: false alarms below it, and still above."""

    factor: float = 1.0
    quiet: int = 0
    loud: int = 0

    @property
    def figures(self) -> dict[str, float]:
        """For the manifest; nothing where there were no false alarms."""
        if not self.quiet + self.loud:
            return {}
        return {
            "feedback.threshold_factor": self.factor, "feedback.quiet": float(self.quiet),
            "feedback.loud": float(self.loud),
        }


def note(figures: Mapping[str, float]) -> str | None:
    """What came of the false alarms that were reported, for people."""
    factor, quiet, loud = (figures.get(f"feedback.{name}", 0.0) for name in ("threshold_factor", "quiet", "loud"))
    if not quiet + loud:
        return None
    told = f"{quiet:.0f} of {quiet + loud:.0f} false alarms that were reported would be none now"
    if factor > 1:
        told += f": the threshold is {factor:.3g} times what the held-out readings ask for"
    if loud:
        told += ". The others score too high for that; where they are its normal, say `new_normal` or `expected`"
    return told


def with_feedback(
    artifact: Artifact, history: History, labels: dict[int, Label], most: float
) -> tuple[Artifact, Raised]:
    """history: of all readings. most: times the threshold, at most."""
    if "false_alarm" not in labels.values():
        return artifact, Raised()
    found = scored(Detector(artifact), history, labels)
    label_L = np.array(found.label_L, object)
    false_L, true_L = label_L == "false_alarm", (label_L == "anomaly") & (found.size_L > 1)
    bound = min(most, SAFE * float(found.size_L[true_L].min(initial=np.inf)))
    reachable = found.size_L[false_L & (found.size_L * MARGIN <= bound)]
    factor = max(float(reachable.max(initial=0.0)) * MARGIN, 1.0)
    raised = Raised(factor, quiet := int((found.size_L[false_L] <= factor).sum()), int(false_L.sum()) - quiet)
    if factor == 1.0:
        return artifact, raised
    calibration = artifact.manifest.calibration
    calibration = calibration.model_copy(update={"threshold": factor * calibration.threshold})
    return Artifact(artifact.manifest.model_copy(update={"calibration": calibration}), artifact.model), raised
