"""One training: history → selection → dataset → fit → calibrate → compare → gate → publish."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from training import lock, publish, ranks
from training.fitting import dataset, draft, fit, recalibrate
from training.fitting.dataset import Dataset
from training.gates import candidates, contest, gate, rivals
from training.gates.candidates import Judged
from training.history import material, selection
from training.history.history import History
from training.history.material import Material
from training.progress import Progress
from training.reporting import report
from training.reporting.outcome import Outcome, Promotion
from training.settings import Settings
from worker.errors import ModelError
from worker.models import artifact
from worker.models.artifact import Artifact, GateResult, Manifest
from worker.models.reference import Reference
from worker.models.registry import Registry, opened


def run(settings: Settings, sources: Sequence[Path], progress: Progress) -> Outcome:
    """Raises UserError for what a user can mend, Stopped where told to stop, TooLittleNew where there is nothing to do;
    then nothing was published. Of several processes (training/ranks.py) all come to the same, and the first publishes.
    """
    registry = opened(settings.model.registry, settings.model.name)
    if not ranks.first():
        return _run(settings, sources, registry, progress)
    registry.writable()                 # said before the work, not after it
    with lock.held(registry):
        return _run(settings, sources, registry, progress)


def _run(settings: Settings, sources: Sequence[Path], registry: Registry, progress: Progress) -> Outcome:
    chosen = ranks.device_of(settings.device)
    champion = _champion(registry, settings, chosen, progress)
    known = material.read(settings, sources, registry, progress)
    everything, labels, said = known.everything, known.labels, known.said
    history, remarks = selection.selected(everything, champion, labels, known.maintenance, settings, progress)
    data = dataset.prepare(history, settings.training)
    _say_what_is_learnt(history, data, progress)

    train, held = (
        fit.inputs(part, data.scaling, data.recipe.window, data.gap_seconds, chosen) for part in (data.train, data.held)
    )
    ranks.require_same("readings", (data.train.x_BF, data.held.x_BF))
    manifest = draft.made(settings, history, data, remarks, said)
    recalibrated = partial(
        recalibrate.with_feedback, history=everything, labels=labels, most=settings.training.feedback.most_raise
    )
    found = candidates.made(manifest, data, train, held, settings.training, recalibrated, progress)
    seen = rivals.compared({kind: c.artifact for kind, c in found.items()}, data, settings.training.seed, progress)
    judged = candidates.chosen(found, seen, data, held, settings.training, progress)
    gates = judged.gates + _against(champion, judged, data, known, settings, progress)

    return _publish(settings, registry, data, judged, gates)


def _champion(registry: Registry, settings: Settings, chosen: torch.device, progress: Progress) -> Artifact | None:
    """The version served now. One that cannot be loaded must not keep a better one from being made."""
    try:
        version = registry.resolve(settings.model.alias)
        return artifact.load(registry, version, chosen) if version else None
    except ModelError as error:
        progress.say(f"the current {settings.model.alias} is passed over: {error}")
        return None


def _say_what_is_learnt(history: History, data: Dataset, progress: Progress) -> None:
    entities = len(np.unique(history.batch.entity_B))
    progress.say(
        f"learning from {len(data.train):,} readings of {_counted(entities, 'entity', 'entities')}, "
        f"{_counted(len(history.features), 'feature', 'features')}; "
        f"{len(data.held):,} newer ones held out; profile {data.profile}"
    )
    left_out = {reason: count for reason, count in (history.left_out or {}).items() if count}
    if left_out:
        progress.say("left out: " + ", ".join(f"{count:,} {reason}" for reason, count in left_out.items()))


def _counted(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"


def _against(
    champion: Artifact | None, judged: Judged, data: Dataset, known: Material, settings: Settings, progress: Progress
) -> tuple[GateResult, ...]:
    if champion is None:
        return ()
    challenger = judged.candidate.artifact
    if champion.manifest.features != challenger.manifest.features:
        found = contest.other_features(champion, challenger.manifest.features)
        progress.say(f"warning: {found.detail}")
        return (found,)
    met = contest.between(champion, challenger, judged.shown, data, known.at_labels, settings.training.seed)
    progress.go_on()
    return contest.gates(met, settings.training.gates)


def _publish(
    settings: Settings, registry: Registry, data: Dataset, judged: Judged, gates: tuple[GateResult, ...]
) -> Outcome:
    fitted, calibrated, _ = judged.candidate
    now = datetime.datetime.now(datetime.UTC)
    weights = artifact.weights_of(calibrated.model)
    manifest = calibrated.manifest.model_copy(
        update={
            "version": publish.version_name(now),
            "created_at": now.isoformat(timespec="seconds").replace("+00:00", "Z"),
            "figures": {name: value for name, value in judged.figures.items() if np.isfinite(value)},
            "reference": _reference(data, judged),
            "losses": fitted.looks,
            "gates": gates,
            "sha256": artifact.sha256_of(weights),
        }
    )
    manifest = Manifest.model_validate(manifest.model_dump())       # model_copy does not validate
    outcome = Outcome(manifest, registry.place, _verdict(gates, settings))
    if not ranks.first():
        return outcome
    page = report.render(outcome.manifest, outcome.promotion, data, fitted, judged.shown, judged.share_L)
    artifact.save(registry, manifest, weights, page)
    if outcome.promotion == "promoted":
        publish.promote(registry, settings.model.alias, manifest.version)
    else:
        registry.point(publish.CHALLENGER, manifest.version)
    return outcome


def _reference(data: Dataset, judged: Judged) -> Reference:
    """Of all readings that were learnt from or held out, and of the held-out scores."""
    scores = judged.shown.scores
    raw_B = scores.raw_B if scores.warming_B.all() else scores.settled_B
    features = Reference.of(np.concatenate([data.train.x_BF, data.held.x_BF]))
    score = Reference.of(raw_B[:, None])
    return Reference(edges=features.edges + score.edges, shares=features.shares + score.shares)


def _verdict(gates: Sequence[GateResult], settings: Settings) -> Promotion:
    if gate.failed(gates):
        return "refused"
    return "promoted" if settings.training.promote == "auto" else "waiting"
