"""A model version as files: weights and everything that is not a weight. The whole contract of training and worker.

No pickle: weights are safetensors, the rest is JSON of a bounded, validated shape, and the manifest holds the
SHA-256 of the weights.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from worker.detection.alarm import AlarmSettings
from worker.detection.calibration import Calibration
from worker.detection.chart import ChartSettings
from worker.detection.model import Kind, Shape, build
from worker.detection.reconstructor import Reconstructor, predict_in_blocks
from worker.detection.scaling import Scaling
from worker.errors import ModelError
from worker.faults.quality import Quality
from worker.models.reference import Reference
from worker.models.registry import MANIFEST, REPORT, WEIGHTS, Registry
from worker.models.weights import misfit as misfit_of

MAX_ENTITIES = 100_000
MAX_ITEMS = 4_000_000                   # of a manifest: what is built of them takes tens of bytes each


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class OffsetRange(_Part):
    """Readings of one partition that training saw: start ≤ offset < end."""

    topic: str
    partition: int
    start: int
    end: int


class TrainingRecord(_Part):
    """Where a version comes from."""

    source: tuple[OffsetRange, ...] = ()
    files: tuple[str, ...] = ()
    rows: int = Field(ge=1)
    first_timestamp_ms: int | None = None
    last_timestamp_ms: int | None = None
    left_out: dict[str, int] = Field({}, description="Rows not learnt from, by reason.")
    remarks: tuple[str, ...] = Field((), description="What a person should know of them: stuck sensors, …")
    feedback: dict[str, int] = Field({}, description="What people had said of events by then, by label.")
    seed: int
    settings: dict[str, Any] = Field({}, description="The training settings as they were.")


class GateResult(_Part):
    """One question that a version had to pass."""

    name: str
    value: float | None
    bound: str
    passed: bool
    detail: str = ""


class Losses(_Part):
    """After so many epochs: reconstruction and KL of the readings learnt from and held out, and what is descended."""

    epoch: float
    train_reconstruction: float
    train_kl: float
    held_reconstruction: float
    held_kl: float
    held_total: float


class Manifest(_Part):
    """Everything of a version that is not a weight."""

    format: Literal[1] = 1
    name: str = Field(max_length=128)
    version: str = Field(pattern=r"^[0-9A-Za-z][0-9A-Za-z._-]{0,127}$")
    created_at: str
    kind: Kind
    shape: Shape
    features: tuple[str, ...] = Field(min_length=1, max_length=4096)
    scaling: Scaling
    residual_scale: tuple[float, ...] = Field(description="By feature, scaled units: spread of held-out residuals.")
    error_of: Literal["newest", "window"] = Field("newest", description="Which readings of a window are judged.")
    gap_seconds: float | None = Field(None, gt=0, description="Readings further apart do not share a window.")
    period_seconds: float | None = Field(None, gt=0, description="Between two readings of an entity; the median.")
    chart: ChartSettings | None = Field(None, description="null: each reading's error is its score.")
    mean_scale: tuple[float, ...] = Field((), description="By feature: spread of the chart's mean deviation.")
    largest_deviation: tuple[float, ...] = Field((), description="By feature, in spreads: of held-out readings.")
    alarm: AlarmSettings | None = Field(None, description="null: a score above the threshold, and no more.")
    quality: Quality | None = Field(None, description="What counts as a faulty sensor. null: only limits that are set.")
    calibration: Calibration
    reference: Reference | None = Field(None, description="What drift is measured against. null: it is not.")
    entities: tuple[str, ...] = Field((), max_length=MAX_ENTITIES, description="Seen in training, as far as listed.")
    entities_complete: bool = Field(True, description="Whether all of them are listed.")
    training: TrainingRecord
    figures: dict[str, float] = Field({}, description="Losses, error by feature, alert rates, …")
    losses: tuple[Losses, ...] = Field((), max_length=10_000, description="As training looked at them, in order.")
    gates: tuple[GateResult, ...] = ()
    libraries: dict[str, str] = {}
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="Of model.safetensors.")

    @model_validator(mode="after")
    def fits(self) -> Self:
        f = len(self.features)
        if len(set(self.features)) != f:
            raise ValueError("a feature is named twice")
        if self.shape.features != f:
            raise ValueError(f"{f} features are named but the model has {self.shape.features}")
        for name, values in (
            ("scaling.offset", self.scaling.offset),
            ("scaling.span", self.scaling.span),
            ("scaling.median", self.scaling.median),
            ("residual_scale", self.residual_scale),
            *((("mean_scale", self.mean_scale),) if self.chart else ()),
            *((("largest_deviation", self.largest_deviation),) if self.chart and self.chart.spikes else ()),
        ):
            if len(values) != f:
                raise ValueError(f"{name} has {len(values)} numbers for {f} features")
        if self.quality is not None and self.quality.features != f:
            raise ValueError(f"quality has {self.quality.features} features, the model {f}")
        if self.reference is not None and len(self.reference.edges) != f + 1:
            raise ValueError(f"reference has {len(self.reference.edges)} columns for {f} features and the score")
        if min(*self.residual_scale, *self.mean_scale, *self.largest_deviation, *self.scaling.span) <= 0:
            raise ValueError("a scale is not positive")
        return self


@dataclass(frozen=True, slots=True)
class Artifact:
    """A version in memory, ready to score."""

    manifest: Manifest
    model: Reconstructor


def weights_of(model: Reconstructor) -> bytes:
    """The model's tensors as safetensors."""
    return safetensors.torch.save({name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()})


def sha256_of(weights: bytes) -> str:
    return hashlib.sha256(weights).hexdigest()


def save(registry: Registry, manifest: Manifest, weights: bytes, report: str) -> None:
    """Publishes a version. Raises RegistryError where the registry does not take it."""
    files = {
        WEIGHTS: weights,
        REPORT: report.encode(),
        MANIFEST: manifest.model_dump_json(indent=1).encode(),
    }
    registry.publish(manifest.version, files)


def read_manifest(registry: Registry, version: str) -> Manifest:
    """Raises ModelError where it is absent or says what cannot be."""
    place = f"{registry.place}/{version}"
    text = registry.read(version, MANIFEST)
    items = sum(map(text.count, (b",", b"[", b"{")))
    if items > MAX_ITEMS:
        raise ModelError(f"{place}/{MANIFEST} is not valid: about {items} items; at most {MAX_ITEMS} are read")
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "as a whole"
        said = f"{where}: {first['msg']}"
        raise ModelError(f"{place}/{MANIFEST} is not valid: {said}; publish the version anew") from None
    except RecursionError:
        raise ModelError(f"{place}/{MANIFEST} is not valid: nested too deeply") from None
    if manifest.version != version or manifest.name != registry.name:
        raise ModelError(f"{place}/{MANIFEST} is of {manifest.name}/{manifest.version}, another version")
    return manifest


def load(registry: Registry, version: str, device: torch.device) -> Artifact:
    """A version, verified: hash, shapes, and every number finite. Raises ModelError."""
    manifest = read_manifest(registry, version)
    weights = registry.read(version, WEIGHTS)
    place = f"{registry.place}/{version}"
    found = sha256_of(weights)
    if found != manifest.sha256:
        raise ModelError(
            f"{place}/{WEIGHTS} has SHA-256 {found[:12]}…, the manifest says {manifest.sha256[:12]}…: "
            "torn or tampered with; publish the version anew"
        )
    with torch.device("meta"):              # shapes alone: they are compared before memory is taken for them
        outline = build(manifest.kind, manifest.shape)
    misfit = misfit_of(weights, outline.state_dict())
    if misfit is not None:
        raise ModelError(f"{place}/{WEIGHTS} does not fit the manifest's model: {misfit}")
    model = build(manifest.kind, manifest.shape)
    try:
        model.load_state_dict(safetensors.torch.load(weights))
    except Exception as error:              # safetensors and torch raise their own kinds, by the sort of damage
        said = re.sub(r"\s+", " ", str(error))[:300]
        raise ModelError(f"{place}/{WEIGHTS} does not fit the manifest's model: {said}") from None
    _require_finite(model.state_dict(), place)
    loaded = Artifact(manifest, model.to(device).eval())
    _require_sense(loaded, place)
    return loaded


def _require_finite(tensors: Mapping[str, torch.Tensor], place: str) -> None:
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise ModelError(f"{place}/{WEIGHTS}: {name} holds NaN or infinity; train anew")


def _require_sense(loaded: Artifact, place: str) -> None:
    """The training median has a finite reconstruction: weights can be finite and their products not."""
    manifest = loaded.manifest
    device = next(iter(loaded.model.state_dict().values())).device
    median_D = np.tile(manifest.scaling.fill_F, manifest.shape.window)
    median_BD = torch.from_numpy(median_D[None, :]).to(device)
    if not torch.isfinite(predict_in_blocks(loaded.model, median_BD)).all():
        raise ModelError(f"{place} reconstructs the training median as NaN or infinity; train anew")
