"""Kinds of models on their way to a version: each fitted and calibrated, one of them chosen and judged.

Legend: L latents.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from training.fitting import calibrate, fit, heldout
from training.fitting.dataset import Dataset
from training.fitting.fit import Fitted, Inputs
from training.fitting.heldout import HeldOut
from training.fitting.objective import ACTIVE_SHARE
from training.fitting.recalibrate import Raised
from training.gates import gate, rivals
from training.gates.trial import Seen
from training.progress import Progress
from training.settings import TrainingSettings
from worker.detection.detector import Detector
from worker.detection.model import Kind
from worker.models.artifact import Artifact, GateResult, Manifest
from worker.records import F64


class Candidate(NamedTuple):
    fitted: Fitted
    artifact: Artifact                  # calibrated
    raised: Raised                      # by feedback


class Judged(NamedTuple):
    candidate: Candidate
    shown: HeldOut
    share_L: F64
    figures: dict[str, float]
    gates: tuple[GateResult, ...]


def made(
    draft: Manifest,
    data: Dataset,
    train: Inputs,
    held: Inputs,
    settings: TrainingSettings,
    recalibrated: Callable[[Artifact], tuple[Artifact, Raised]],
    progress: Progress,
) -> dict[Kind, Candidate]:
    """The kind asked for, and those beside it by the same recipe."""
    kinds = rivals.kinds(settings, data.recipe.window * len(draft.features))
    found = {}
    for kind in kinds:
        fitted = fit.fit(
            train if kind == kinds[0] else rivals.sample(train), held, data.recipe,
            settings.model_copy(update={"kind": kind}), train.x_KF.device, progress,
        )
        progress.go_on()
        manifest = draft.model_copy(update={"kind": kind, "shape": fitted.shape})
        calibrated = calibrate.with_calibration(
            Artifact(manifest, fitted.model), data.held, settings.target_rate, data.recipe.min_spread
        )
        progress.go_on()
        found[kind] = Candidate(fitted, *recalibrated(calibrated))
    return found


def chosen(
    found: Mapping[Kind, Candidate],
    seen: Mapping[Kind, Seen],
    data: Dataset,
    held: Inputs,
    settings: TrainingSettings,
    progress: Progress,
) -> Judged:
    """The kind asked for. Of `auto`, the first by what it noticed that passes its gates; where none does, the first."""
    if settings.kind != "auto":
        return _judged(next(iter(found.values())), data, held, seen, settings)
    tried = []
    for kind in rivals.ranked(seen) or list(found):
        tried.append(_judged(found[kind], data, held, seen, settings))
        failed = gate.failed(tried[-1].gates)
        if not failed:
            progress.say(f"kind {kind} is taken")
            return tried[-1]
        progress.say(f"kind {kind} is passed over: its gate {failed[0].name} is not passed")
    return tried[0]


def _judged(
    candidate: Candidate, data: Dataset, held: Inputs, seen: Mapping[Kind, Seen], settings: TrainingSettings
) -> Judged:
    fitted, artifact, raised = candidate
    shown = heldout.score(Detector(artifact), data)
    share_L = heldout.latent_shares(fitted.model, held)
    figures = _figures(fitted, shown, share_L, artifact.manifest.features) | rivals.figures(seen) | raised.figures
    gates = gate.judge(artifact, shown, figures.values(), settings.gates)
    if seen:
        gates += (gate.earns_its_keep(artifact.manifest.kind, {kind: s.detected for kind, s in seen.items()}),)
    return Judged(candidate, shown, share_L, figures, gates)


def _figures(fitted: Fitted, shown: HeldOut, share_L: F64, features: tuple[str, ...]) -> dict[str, float]:
    figures = {
        "held_out_loss": shown.error_ratio,
        "error_ratio": shown.error_ratio,
        "alert_rate": shown.alert_rate,
        "held_out_rows": float(len(shown.scores.raw_B)),
        "fit_seconds": fitted.seconds,
        "steps": float(fitted.steps),
    }
    if fitted.looks:
        best = fitted.looks[fitted.best]
        figures |= {
            "held_out_loss": best.held_total,
            "held_out_reconstruction": best.held_reconstruction,
            "held_out_kl": best.held_kl,
            "train_reconstruction": best.train_reconstruction,
            "train_kl": best.train_kl,
            "epochs": best.epoch,
            "active_latents": float(np.sum(share_L > ACTIVE_SHARE)),
        }
    return figures | {f"error.{name}": error for name, error in zip(features, shown.error_F.tolist(), strict=True)}
