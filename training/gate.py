"""What a version must show before it may serve. Each question with its number and its bound goes into the manifest."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np
import torch

from training.heldout import HeldOut
from worker.artifact import Artifact, GateResult, Manifest

ALERT_FACTOR = 5.0                      # over the asked rate: further off, the threshold is wrong and not just unlucky
KEEP = "earns_its_keep"
NOTABLE = 0.1                           # of injected faults: a smaller lead is chance, or went with no better detection
FEW_ALERTS = 5                          # that chance alone makes, however rare they are asked to be
LEARNT = 0.95                           # of the training mean's error; a collapsed VAE is that mean, give or take
A_CONSTANT = 1.5                        # a z-chart is that mean and need not beat it


def judge(artifact: Artifact, held: HeldOut, losses: Iterable[float]) -> tuple[GateResult, ...]:
    """The questions that decide."""
    return _finite(artifact, held, losses), _learnt(artifact, held), _alerts(held)


def beside(champion: Manifest, champion_held: HeldOut | None, features: tuple[str, ...]) -> tuple[GateResult, ...]:
    """How the current champion does on the same held-out readings: for information, decides nothing."""
    if champion_held is None:
        lacks, new = set(champion.features) - set(features), set(features) - set(champion.features)
        said = f"lacks {sorted(lacks)}, adds {sorted(new)}" if lacks or new else "in another order"
        return (
            GateResult(
                name="features_of_champion",
                value=float(len(lacks) + len(new)),
                bound="for information",
                passed=True,
                detail=f"other features than champion {champion.version} ({said}): a running worker refuses this "
                "version and keeps the old one until it is restarted",
            ),
        )
    note = f"champion {champion.version} on the same held-out readings"
    return (
        GateResult(
            name="champion_error_ratio", value=champion_held.error_ratio, bound="for information", passed=True,
            detail=note,
        ),
        GateResult(
            name="champion_alert_rate", value=champion_held.alert_rate, bound="for information", passed=True,
            detail=note,
        ),
    )


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


def _alerts(held: HeldOut) -> GateResult:
    most = max(ALERT_FACTOR * held.target_rate, FEW_ALERTS / len(held.scores.raw_B))
    passed = held.alert_rate <= most
    return GateResult(
        name="alert_rate", value=held.alert_rate, bound=f"at most {most:.4g} of held-out readings", passed=passed,
        detail="" if passed else f"asked for {held.target_rate:g}: the scores' tail does not follow the fit",
    )
