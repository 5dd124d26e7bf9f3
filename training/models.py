"""The registry as an operator sees it."""

from __future__ import annotations

import re

from training import durations, publish
from worker.errors import ModelError, SettingsError
from worker.models import artifact, shadow_time
from worker.models.artifact import Manifest
from worker.models.registry import Registry
from worker.models.shadow_time import InShadow
from worker.records import rfc3339

DETAIL = re.compile(r"error\.|rival\.\w+\.detected\.")      # one for each feature or fault: the report shows them
COLUMNS = ("version", "created", "kind", "features", "rows", "loss", "threshold", "aliases")


def listed(registry: Registry) -> list[str]:
    """A line for each version, the oldest first; a version that cannot be read says why."""
    versions, aliases = registry.versions(), registry.aliases()
    if not versions:
        return [f"{registry.place} holds no version; `zmu-training run` makes one"]
    rows: list[tuple[str, ...]] = [COLUMNS]
    for version in versions:
        names = ", ".join(alias for alias, named in aliases.items() if named == version)
        try:
            rows.append((*_row(artifact.read_manifest(registry, version)), names))
        except ModelError as error:
            rows.append((version, f"unreadable: {error}", "", "", "", "", "", names))
    widths = [max(len(row[i]) for row in rows if not row[1].startswith("unreadable")) for i in range(len(COLUMNS))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def shown(registry: Registry, wanted: str) -> list[str]:
    """One version, by its name or an alias."""
    version = resolved(registry, wanted)
    manifest = artifact.read_manifest(registry, version)
    record, figures = manifest.training, manifest.figures
    aliases = [alias for alias, named in registry.aliases().items() if named == version]
    lines = [
        f"version     {registry.place}/{version}",
        f"aliases     {', '.join(aliases) or 'none'}",
        f"created     {manifest.created_at}",
        f"kind        {manifest.kind}, hidden {list(manifest.shape.hidden)}, latent {manifest.shape.latent}, "
        f"output {manifest.shape.output}",
        f"features    {', '.join(manifest.features)}",
        f"entities    {len(manifest.entities)}{'' if manifest.entities_complete else ' listed, more seen'}: "
        f"{', '.join(manifest.entities[:8])}{', …' if len(manifest.entities) > 8 else ''}",
        f"rows        {record.rows:,} ({manifest.calibration.count:,} held out), left out: {record.left_out or 'none'}",
        f"threshold   {manifest.calibration.threshold:.6g} at a rate of {manifest.calibration.target_rate:g}",
        f"sha256      {manifest.sha256}",
    ]
    if record.first_timestamp_ms is not None and record.last_timestamp_ms is not None:
        lines.append(f"from        {rfc3339(record.first_timestamp_ms)} to {rfc3339(record.last_timestamp_ms)}")
    lines += [f"offsets     {r.topic}/{r.partition}: {r.start} to {r.end}" for r in record.source]
    lines += [f"file        {file}" for file in record.files]
    lines += [f"figure      {name} {value:.6g}" for name, value in figures.items() if not DETAIL.match(name)]
    lines += [f"feedback    {count:,} {label}" for label, count in record.feedback.items()]
    lines += [f"remark      {remark}" for remark in record.remarks]
    seen = shadow_time.of(registry, version)
    if seen.readings:
        lines.append(f"shadow      {_in_shadow(seen)}")
    for g in manifest.gates:
        value = "no number" if g.value is None else f"{g.value:.4g}"
        verdict = "passed" if g.passed else "FAILED"
        lines.append(f"gate        {verdict} {g.name} {value} ({g.bound}) {g.detail}".rstrip())
    return lines


def promoted(registry: Registry, alias: str, wanted: str, shadow_seconds: float = 0.0) -> str:
    """shadow_seconds: so long it must have been in the shadow of what serves."""
    version = resolved(registry, wanted)
    artifact.read_manifest(registry, version)           # what cannot be read must not be served
    seen = shadow_time.of(registry, version) if shadow_seconds else None
    if seen is not None and seen.seconds < shadow_seconds:
        raise ModelError(
            f"{version} is not promoted: {_in_shadow(seen)}; {durations.shown(shadow_seconds)} are asked for. Workers "
            "with ZMU_MODEL__SHADOW=challenger and the right to write to the registry tell it there"
        )
    before = publish.promote(registry, alias, version)
    if before == version:
        return f"{version} is {alias} already"
    return f"{version} is now {alias}" + (f", in place of {before}" if before else "")


def rolled_back(registry: Registry, alias: str) -> str:
    left, now = publish.rollback(registry, alias)
    return f"{now} is {alias} again, in place of {left}"


def resolved(registry: Registry, wanted: str) -> str:
    """A version's name from a name or an alias. Raises ModelError."""
    if not wanted:
        raise SettingsError("which version? Give its name or alias; `zmu-training models list` shows them")
    versions = registry.versions()
    if wanted in versions:
        return wanted
    version = registry.aliases().get(wanted)
    if version is None:
        found = f"it has {', '.join(versions[-5:])}" if versions else "it holds no version"
        raise ModelError(f"{registry.place} has no version or alias {wanted!r}; {found}")
    return version


def _in_shadow(seen: InShadow) -> str:
    if not seen.readings:
        return "no worker has told of it in the shadow"
    return (
        f"{durations.shown(seen.seconds)} in the shadow, {seen.readings:,} readings, {seen.alarms / seen.readings:.2%} "
        f"in alarm; the served version said the same of {seen.alike / seen.readings:.2%}"
    )


def _row(manifest: Manifest) -> tuple[str, ...]:
    loss = manifest.figures.get("held_out_loss")
    return (
        manifest.version,
        manifest.created_at,
        manifest.kind,
        str(len(manifest.features)),
        str(manifest.training.rows),
        "" if loss is None else f"{loss:.4g}",
        f"{manifest.calibration.threshold:.4g}",
    )
