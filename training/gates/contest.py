"""Challenger against champion, on the same held-out readings: the newest of each entity, faults and all left out.

A new version that serves must be no worse than the one it replaces. Reconstruction error compares versions of one kind
only: a z-chart that notices more faults than a VAE has the larger error. Injected faults compare any.

Legend: H held-out rows, F features, T trials, L labelled readings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.stats

from training.evaluation.detection_metrics import Confusion
from training.fitting import heldout
from training.fitting.dataset import Dataset
from training.fitting.heldout import HeldOut
from training.gates import trial
from training.history.feedback import AtLabels
from training.settings import GateSettings
from worker.detection.detector import Detector
from worker.models.artifact import Artifact, GateResult
from worker.records import Bools

INFORMATION = "for information"
FEW_TRIALS = 50
FEW_LABELS = 5


@dataclass(frozen=True)
class Side:
    """What one of the two made of the readings, and of faults injected into them."""

    held: HeldOut
    noticed_T: Bools                    # of the injected faults, where the champion is silent without them
    labelled: AtLabels


@dataclass(frozen=True)
class Contest:
    champion_version: str
    features: tuple[str, ...]
    same_kind: bool
    champion: Side
    challenger: Side

    @property
    def note(self) -> str:
        return f"champion {self.champion_version} on the same held-out readings"


def between(
    champion: Artifact, challenger: Artifact, shown: HeldOut, data: Dataset,
    at_labels: Callable[[Detector], AtLabels], seed: int,
) -> Contest:
    """shown: what the challenger made of the held-out readings. at_labels: what a version makes of labelled readings.

    Both versions have the same features.
    """
    one, other = (Detector(artifact) for artifact in (champion, challenger))
    noticed = _noticed(one, other, data, seed)
    return Contest(
        champion_version=champion.manifest.version,
        features=challenger.manifest.features,
        same_kind=champion.manifest.kind == challenger.manifest.kind,
        champion=Side(heldout.score(one, data), noticed[0], at_labels(one)),
        challenger=Side(shown, noticed[1], at_labels(other)),
    )


def _noticed(champion: Detector, challenger: Detector, data: Dataset, seed: int) -> tuple[Bools, Bools]:
    """Only stretches in which the champion is silent: what it calls a fault already is no place to inject one."""
    faults = trial.prepared(data.held, data.spread_F, data.recipe.window, seed)
    if faults is None:
        return np.empty(0, np.bool_), np.empty(0, np.bool_)
    theirs, ours = faults.outcomes(champion), faults.outcomes(challenger)
    silent_T = ~theirs.loud_S[faults.stretch_T]
    return theirs.noticed_T[silent_T], ours.noticed_T[silent_T]


def gates(contest: Contest, settings: GateSettings) -> tuple[GateResult, ...]:
    """What decides, and beside it the champion's own figures."""
    champion = contest.champion.held
    return (
        _loss(contest, settings),
        _features(contest, settings),
        *_faults(contest, settings),
        *_labelled(contest, settings),
        _agreement(contest, settings),
        _information("champion_error_ratio", champion.error_ratio, contest.note),
        _information("champion_alert_rate", champion.alert_rate, contest.note),
    )


def other_features(champion: Artifact, features: tuple[str, ...]) -> GateResult:
    """There is nothing to compare: for information, decides nothing."""
    manifest = champion.manifest
    lacks, new = set(manifest.features) - set(features), set(features) - set(manifest.features)
    said = f"lacks {sorted(lacks)}, adds {sorted(new)}" if lacks or new else "in another order"
    return _information(
        "features_of_champion",
        float(len(lacks) + len(new)),
        f"other features than champion {manifest.version} ({said}): a running worker refuses this version and keeps "
        "the old one until it is restarted",
    )


def _loss(contest: Contest, settings: GateSettings) -> GateResult:
    ours, theirs = (float(side.held.error_F.sum()) for side in (contest.challenger, contest.champion))
    ratio = ours / theirs if theirs > 0 else (1.0 if ours == 0 else None)
    passed = not contest.same_kind or (ratio is not None and ratio <= settings.loss_ratio)
    return GateResult(
        name="loss_against_champion",
        value=ratio,
        bound=f"at most {settings.loss_ratio:g} times the champion's held-out error"
        if contest.same_kind else INFORMATION,
        passed=passed,
        detail=contest.note if passed else f"{contest.note} is closer to them: more history, or the settings that "
        "the champion was trained with (`zmu-training models show champion`)",
    )


def _features(contest: Contest, settings: GateSettings) -> GateResult:
    """The feature that the challenger knows worse by the largest part of its variation."""
    ours, theirs = contest.challenger.held, contest.champion.held
    moving_F = ours.constant_F > 0
    rise_F = np.where(moving_F, (ours.error_F - theirs.error_F) / np.where(moving_F, ours.constant_F, 1.0), 0.0)
    worst = int(rise_F.argmax())
    rise = float(rise_F[worst])
    name = contest.features[worst]
    passed = not contest.same_kind or rise <= settings.feature_loss
    detail = f"most of all {name}" if rise > 0 else "none is known worse"
    if not passed:
        detail = f"{name} is known worse than by {contest.note}; see whether its sensor is sound"
    return GateResult(
        name="error_by_feature", value=rise,
        bound=f"at most {settings.feature_loss:g} of a feature's variation missed more than by the champion"
        if contest.same_kind else INFORMATION,
        passed=passed, detail=detail,
    )


def _faults(contest: Contest, settings: GateSettings) -> tuple[GateResult, ...]:
    ours_T, theirs_T = contest.challenger.noticed_T, contest.champion.noticed_T
    if len(ours_T) < FEW_TRIALS:
        return ()
    ours, theirs = float(ours_T.mean()), float(theirs_T.mean())
    ratio = ours / theirs if theirs > 0 else 1.0
    passed = ratio >= settings.faults_ratio
    told = f"{ours:.0%} of {len(ours_T)} injected faults, champion {theirs:.0%}"
    return (
        GateResult(
            name="faults_against_champion", value=ratio,
            bound=f"at least {settings.faults_ratio:g} of the injected faults that the champion notices", passed=passed,
            detail=told if passed else f"{told}: it is deafer. Was a fault learnt, or is the threshold set by one?",
        ),
    )


def _labelled(contest: Contest, settings: GateSettings) -> tuple[GateResult, ...]:
    """F1 over labelled readings: an anomaly, or normal by any of the other labels."""
    ours, theirs = contest.challenger.labelled, contest.champion.labelled
    true_L = np.array([label == "anomaly" for label in ours.label_L], np.bool_)
    if not true_L.any():
        return ()
    one, other = (Confusion.of(true_L, side.alarm_L).f1 for side in (ours, theirs))
    asked = len(true_L) >= FEW_LABELS
    passed = not asked or one >= other - settings.f1_drop
    return (
        GateResult(
            name="labelled_f1", value=one,
            bound=f"at most {settings.f1_drop:g} below the champion's" if asked else INFORMATION, passed=passed,
            detail=f"{len(true_L):,} labelled readings, {int(true_L.sum()):,} of them anomalies; champion {other:.3f}",
        ),
    )


def _agreement(contest: Contest, settings: GateSettings) -> GateResult:
    """Spearman's rank correlation of the two scores. Where the champion is over its budget, its order is in doubt."""
    ours, theirs = contest.challenger.held, contest.champion.held
    judged_H = ~(ours.scores.warming_B | theirs.scores.warming_B)
    one_H, other_H = ours.scores.raw_B[judged_H], theirs.scores.raw_B[judged_H]
    varied = len(one_H) > 2 and bool(np.ptp(one_H)) and bool(np.ptp(other_H))
    value = float(scipy.stats.spearmanr(one_H, other_H).statistic) if varied else None
    in_budget = theirs.alert_rate <= settings.alert_factor * theirs.target_rate
    asked = settings.agreement is not None and in_budget and value is not None
    passed = not asked or (value or 0.0) >= (settings.agreement or 0.0)
    alike = float((ours.scores.anomalous_B == theirs.scores.anomalous_B).mean())
    detail = f"rank correlation with the champion's scores; both say the same of {alike:.1%} of the readings"
    if settings.agreement is not None and not in_budget:
        detail += f"; not asked for, as the champion calls {theirs.alert_rate:.1%} anomalous"
    return GateResult(
        name="score_agreement", value=value,
        bound=f"at least {settings.agreement:g}" if asked else INFORMATION, passed=passed, detail=detail,
    )


def _information(name: str, value: float, detail: str) -> GateResult:
    return GateResult(name=name, value=value, bound=INFORMATION, passed=True, detail=detail)
