"""What a version must show before it may serve. Each question with its number and its bound goes into the manifest."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np
import torch

from training.fitting.heldout import HeldOut
from training.settings import GateSettings
from worker.models.artifact import Artifact, GateResult

KEEP = "earns_its_keep"
NOTABLE = 0.1                           # of injected faults: a smaller lead is chance, or went with no better detection
FEW_ALERTS = 5                          # that chance alone makes, however rare they are asked to be
LEARNT = 0.95                           # of the training mean's error; a collapsed VAE is that mean, give or take
A_CONSTANT = 1.5                        # a z-chart is that mean and need not beat it


def judge(
    artifact: Artifact, held: HeldOut, losses: Iterable[float], settings: GateSettings
) -> tuple[GateResult, ...]:
    """The questions that decide, champion or none; those beside a champion are in training/gates/contest.py."""
    return _finite(artifact, held, losses), _learnt(artifact, held), _alerts(held, settings)


def earns_its_keep(kind: str, detected: Mapping[str, float]) -> GateResult:
    """Whether a baseline notices clearly more injected faults: for information, decides nothing.

    detected: by kind, the share of the same faults that each noticed.
    """
    rival = max((other for other in detected if other != kind), key=lambda other: detected[other])
    lead = detected[kind] - detected[rival]
    told = f"{kind} notices {detected[kind]:.0%} of the injected faults, {rival} {detected[rival]:.0%}"
    if lead < -NOTABLE:
        told += (
            f", clearly more: ZMU_TRAINING__KIND={rival} takes it, ZMU_TRAINING__KIND=auto what does best in each "
            "training"
        )
    return GateResult(name=KEEP, value=lead, bound="for information", passed=True, detail=told)


def failed(gates: Iterable[GateResult]) -> list[GateResult]:
    return [gate for gate in gates if not gate.passed]


def _finite(artifact: Artifact, held: HeldOut, losses: Iterable[float]) -> GateResult:
    tensors = artifact.model.state_dict()
    wrong = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    figures = [*losses, held.error_ratio, *held.error_F.tolist()]
    wrong += ["figures"] * (not all(map(math.isfinite, figures)))
    wrong += ["scores"] * (not np.isfinite(held.scores.raw_B).all())
    return GateResult(
        name="finite", value=float(len(wrong)), bound="0 weights, figures or scores that are no number",
        passed=not wrong, detail=", ".join(wrong),
    )


def _learnt(artifact: Artifact, held: HeldOut) -> GateResult:
    """No better than the training mean, a reconstruction tells nothing: collapsed latents, or a changed world."""
    baseline = artifact.manifest.kind == "zchart"
    bound = A_CONSTANT if baseline else LEARNT
    ratio = held.error_ratio
    passed = ratio < bound
    detail = "" if passed else (
        "held-out readings are reconstructed no better than by their training mean. Collapsed latents: lower "
        "ZMU_TRAINING__OBJECTIVE__KL_WEIGHT. Held-out readings unlike those before: train on a range that holds both. "
        "Independent features: take ZMU_TRAINING__KIND=zchart"
    )
    return GateResult(
        name="error_ratio", value=ratio if math.isfinite(ratio) else None,
        bound=f"below {bound:g} of the training mean's error", passed=passed, detail=detail,
    )


def _alerts(held: HeldOut, settings: GateSettings) -> GateResult:
    most = max(settings.alert_factor * held.target_rate, FEW_ALERTS / len(held.scores.raw_B))
    passed = held.alert_rate <= most
    return GateResult(
        name="alert_rate", value=held.alert_rate, bound=f"at most {most:.4g} of held-out readings", passed=passed,
        detail="" if passed else f"asked for {held.target_rate:g}: the scores' tail does not follow the fit",
    )
