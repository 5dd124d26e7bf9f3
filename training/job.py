"""One training: history → dataset → fit → calibrate → compare → gate → publish."""

from __future__ import annotations

import datetime
import importlib.metadata
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from training import candidates, dataset, fit, gate, heldout, publish, quality, report, rivals
from training.candidates import Judged
from training.dataset import Dataset
from training.history import History, from_files, from_topic
from training.outcome import Outcome, Promotion
from training.progress import Progress
from training.settings import Settings
from worker import artifact, device
from worker.artifact import Artifact, GateResult, Manifest, TrainingRecord
from worker.calibration import Calibration
from worker.chart import MOST
from worker.detector import Detector
from worker.errors import ModelError, TrainingError
from worker.model import Shape
from worker.registry import Registry

ENTITIES_LISTED = 10_000
DRAFT = "draft"                         # until it has its name
PLACEHOLDER = Calibration(threshold=1.0, target_rate=0.5, count=1, scores=(0.0, 1.0), p_values=(1.0, 0.5))
LIBRARIES = ("torch", "numpy", "scipy", "safetensors", "zmu")


def run(settings: Settings, sources: Sequence[Path], progress: Progress) -> Outcome:
    """Raises UserError for what a user can mend, Stopped where told to stop; then nothing was published."""
    chosen = device.choose(settings.device)
    registry = Registry(settings.model.registry, settings.model.name)
    registry.writable()                 # said before the work, not after it
    champion = _champion(registry, settings, chosen, progress)
    history = from_files(sources, settings) if sources else from_topic(settings, progress, _now_ms)
    history = _without_anomalous(history, champion, settings)
    data = dataset.prepare(history, settings.training)
    _say_what_is_learnt(history, data, progress)

    train, held = (
        fit.inputs(part, data.scaling, data.recipe.window, data.gap_seconds, chosen) for part in (data.train, data.held)
    )
    found = candidates.made(_draft(settings, history, data), data, train, held, settings.training, progress)
    seen = rivals.compared({kind: c.artifact for kind, c in found.items()}, data, settings.training.seed, progress)
    judged = candidates.chosen(found, seen, data, held, settings.training, progress)
    gates = judged.gates + _beside(champion, data, history.features, progress)

    return _publish(settings, registry, data, judged, gates)


def _champion(registry: Registry, settings: Settings, chosen: torch.device, progress: Progress) -> Artifact | None:
    """The version served now. One that cannot be loaded must not keep a better one from being made."""
    try:
        version = registry.resolve(settings.model.alias)
        return artifact.load(registry, version, chosen) if version else None
    except ModelError as error:
        progress.say(f"the current {settings.model.alias} is passed over: {error}")
        return None


def _without_anomalous(history: History, champion: Artifact | None, settings: Settings) -> History:
    if not settings.training.exclude_anomalous or champion is None:
        return history
    if champion.manifest.features != history.features:
        raise TrainingError(
            f"champion {champion.manifest.version} has other features than these readings, so it cannot say which are "
            "anomalous; set ZMU_TRAINING__EXCLUDE_ANOMALOUS=false for this one run"
        )
    return history.without(Detector(champion).score_history(history.batch).anomalous_B, "anomalous")


def _say_what_is_learnt(history: History, data: Dataset, progress: Progress) -> None:
    entities = len(np.unique(history.batch.entity_B))
    progress.say(
        f"learning from {len(data.train):,} readings of {entities} entities, {len(history.features)} features; "
        f"{len(data.held):,} newer ones held out; profile {data.profile}"
    )
    left_out = {reason: count for reason, count in (history.left_out or {}).items() if count}
    if left_out:
        progress.say("left out: " + ", ".join(f"{count:,} {reason}" for reason, count in left_out.items()))


def _draft(settings: Settings, history: History, data: Dataset) -> Manifest:
    """What is known of a version before its model is: of a z-chart, which has nothing to fit but a mean."""
    batch, names = history.batch, history.entities.names
    stamp_B = batch.timestamp_ms_B[batch.timestamp_ms_B >= 0]
    entities = sorted({names[code] for code in np.unique(batch.entity_B)})
    record = TrainingRecord(
        source=history.ranges,
        files=history.files,
        rows=len(batch),
        first_timestamp_ms=int(stamp_B.min()) if len(stamp_B) else None,
        last_timestamp_ms=int(stamp_B.max()) if len(stamp_B) else None,
        left_out=dict(+Counter(history.left_out or {})),
        seed=settings.training.seed,
        settings=settings.training.model_dump(mode="json"),
    )
    return Manifest(
        name=settings.model.name,
        version=DRAFT,
        created_at="",
        kind="zchart",
        shape=Shape(features=len(history.features), window=data.recipe.window),
        features=history.features,
        scaling=data.scaling,
        residual_scale=(1.0,) * len(history.features),
        error_of=settings.training.error_of,
        period_seconds=data.period_seconds,
        gap_seconds=data.gap_seconds,
        chart=data.recipe.chart,
        mean_scale=(data.recipe.chart.mean_std,) * len(history.features) if data.recipe.chart else (),
        largest_deviation=(MOST,) * len(history.features) if data.recipe.chart else (),
        alarm=data.recipe.alarm,
        quality=quality.learn(batch, history.features),
        calibration=PLACEHOLDER,
        entities=tuple(entities[:ENTITIES_LISTED]),
        entities_complete=len(entities) <= ENTITIES_LISTED,
        training=record,
        libraries={name: _installed(name) for name in LIBRARIES},
        sha256="0" * 64,
    )


def _beside(
    champion: Artifact | None, data: Dataset, features: tuple[str, ...], progress: Progress
) -> tuple[GateResult, ...]:
    if champion is None:
        return ()
    alike = champion.manifest.features == features
    found = gate.beside(
        champion.manifest, heldout.score(Detector(champion), data) if alike else None, features
    )
    if not alike:
        progress.say(f"warning: {found[0].detail}")
    return found


def _publish(
    settings: Settings, registry: Registry, data: Dataset, judged: Judged, gates: tuple[GateResult, ...]
) -> Outcome:
    fitted, calibrated = judged.candidate
    now = datetime.datetime.now(datetime.UTC)
    weights = artifact.weights_of(calibrated.model)
    manifest = calibrated.manifest.model_copy(
        update={
            "version": publish.version_name(now),
            "created_at": now.isoformat(timespec="seconds").replace("+00:00", "Z"),
            "figures": {name: value for name, value in judged.figures.items() if np.isfinite(value)},
            "gates": gates,
            "sha256": artifact.sha256_of(weights),
        }
    )
    manifest = Manifest.model_validate(manifest.model_dump())       # model_copy does not validate
    outcome = Outcome(manifest, registry.place, _verdict(gates, settings))
    page = report.render(outcome.manifest, outcome.promotion, data, fitted, judged.shown, judged.share_L)
    artifact.save(registry, manifest, weights, page)
    if outcome.promotion == "promoted":
        publish.promote(registry, settings.model.alias, manifest.version)
    else:
        registry.point(publish.CHALLENGER, manifest.version)
    return outcome


def _verdict(gates: Sequence[GateResult], settings: Settings) -> Promotion:
    if gate.failed(gates):
        return "refused"
    return "promoted" if settings.training.promote == "auto" else "waiting"


def _installed(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _now_ms() -> int:
    return round(time.time() * 1000)
