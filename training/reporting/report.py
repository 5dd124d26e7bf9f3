"""report.html: one page, no network, for whoever must decide whether to trust a version.

Legend: F features, L latents.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from string import Template

import numpy as np

from training.fitting import heldout
from training.fitting.dataset import Dataset
from training.fitting.fit import Fitted
from training.fitting.heldout import HeldOut
from training.fitting.objective import ACTIVE_SHARE
from training.gates.injections import FAULTS
from training.reporting import plots
from training.reporting.outcome import SAID, Promotion, notes
from training.reporting.page import STYLE, image, section, table
from worker.models.artifact import Manifest
from worker.records import F64, rfc3339

WORST = 3
FEATURES_SHOWN = 12
BADGES: dict[Promotion, str] = {"promoted": "promoted", "refused": "refused", "waiting": "waits for promotion"}
KINDS = {
    "vae": "Variational autoencoder, scored on its deterministic path z = mu",
    "pca": "Principal components (baseline)",
    "zchart": "z-chart: the training mean of every feature (baseline)",
}

PAGE = Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
$style</style></head><body><main>
<h1>$name</h1>
<p class="soft">version <code>$version</code>, made $created &nbsp;<span class="badge $promotion">$badge</span></p>
<p>$kind. It $said.</p>
<div class="cards">$cards</div>
$sections
</main></body></html>
""")


def render(
    manifest: Manifest, promotion: Promotion, data: Dataset, fitted: Fitted, shown: HeldOut, share_L: F64
) -> str:
    sections = [
        *_notes(manifest),
        _gates(manifest),
        *_rivals(manifest),
        _scores(manifest, shown),
        _errors(manifest, shown),
        *_losses(fitted),
        *_latents(share_L),
        _worst(manifest, data, shown),
        _learnt_from(manifest),
        _settings(manifest),
    ]
    return PAGE.substitute(
        style=STYLE,
        title=escape(f"{manifest.name} {manifest.version}"),
        name=escape(manifest.name),
        version=escape(manifest.version),
        created=escape(manifest.created_at),
        promotion=promotion,
        badge=BADGES[promotion],
        kind=KINDS[manifest.kind],
        said=escape(SAID[promotion].replace("kept", "is kept", 1)),
        cards="".join(_cards(manifest, shown)),
        sections="\n".join(sections),
    )


def _cards(manifest: Manifest, shown: HeldOut) -> Iterable[str]:
    training, calibration = manifest.training, manifest.calibration
    entities = f"{len(manifest.entities):,}" + ("" if manifest.entities_complete else "+")
    for number, text in (
        (f"{training.rows:,}", f"readings of {entities} {'entity' if entities == '1' else 'entities'}, "
                               f"{calibration.count:,} held out"),
        (f"{len(manifest.features)}", "features"),
        (f"{1 - shown.error_ratio:.0%}", "of held-out variation explained"),
        (f"{shown.alert_rate:.2%}", f"of held-out readings alarm; {calibration.target_rate:.2%} asked for"),
        (f"{calibration.threshold:.3g}", "threshold, raw score"),
    ):
        yield f'<div class="card"><b>{number}</b><span>{text}</span></div>'


def _notes(manifest: Manifest) -> list[str]:
    return [f'<section class="note"><h2>Note</h2><p>{escape(note)}.</p></section>' for note in notes(manifest)]


def _gates(manifest: Manifest) -> str:
    rows = []
    for g in manifest.gates:
        verdict = '<span class="yes">passed</span>' if g.passed else '<span class="no">failed</span>'
        verdict = '<span class="soft">information</span>' if g.bound == "for information" else verdict
        value = "no number" if g.value is None else f"{g.value:.4g}"
        bound = escape(g.bound) + (f'<div class="soft">{escape(g.detail)}</div>' if g.detail else "")
        rows.append((escape(g.name.replace("_", " ")), verdict, value, bound))
    shown = table(("gate", "", "value", "bound"), rows)
    return section("Gates", "What a version must show before it may serve.", shown)


def _rivals(manifest: Manifest) -> list[str]:
    figures = manifest.figures
    kinds = sorted((kind for kind in KINDS if f"rival.{kind}.detected" in figures), key=lambda k: k != manifest.kind)
    if not kinds:
        return []
    measures = [("detected", "<b>all faults</b>"), *((f"detected.{f.name}", escape(f.said)) for f in FAULTS)]
    measures += [("named", "… and the right sensor blamed most"), ("false_alarms", "an alarm without a fault")]
    rows = []
    for measure, said in measures:
        shares = [figures.get(f"rival.{kind}.{measure}") for kind in kinds]
        if any(share is not None for share in shares):
            rows.append((said, *("" if share is None else f"{share:.0%}" for share in shares)))
    head = ("share noticed of", *(f"{kind}, this version" if kind == manifest.kind else kind for kind in kinds))
    return [
        section(
            "What each would have seen",
            f"{figures['rival.trials']:.0f} faults were injected into copies of held-out readings, each into one "
            "sensor, and the same for all. One is noticed where there is an alarm with it and none without it. "
            "Spreads are the sensor's own in training.",
            table(head, rows),
        )
    ]


def _scores(manifest: Manifest, shown: HeldOut) -> str:
    tail = manifest.calibration.tail
    how = (
        "the highest held-out score, or the order statistic that the asked rate names: too few readings for a tail fit."
        if tail is None
        else f"from a generalised Pareto tail over the highest {tail.rate:.1%} of the scores (shape {tail.shape:.2f})."
    )
    return section(
        "Scores of held-out readings",
        f"Right of the line a reading is anomalous. The threshold: {how}",
        image(plots.scores(shown.scores.anomaly_score_B), "Histogram of anomaly scores with the threshold"),
    )


def _errors(manifest: Manifest, shown: HeldOut) -> str:
    more = len(manifest.features) - plots.BARS
    return section(
        "Which sensors it knows, and which poorly",
        "Of each feature's held-out variation about its training mean, the share that the model misses. A fault in a "
        "feature near 1 shows only when it leaves its own normal range."
        + (f" The {plots.BARS} worst of {len(manifest.features)}." if more > 0 else ""),
        image(plots.feature_errors(manifest.features, shown.error_F, shown.constant_F), "Error by feature"),
    )


def _losses(fitted: Fitted) -> list[str]:
    if not fitted.looks:
        return []
    return [
        section(
            "Training",
            f"{fitted.steps:,} steps in {fitted.seconds:.1f} s. Held-out values above the training's and rising: it "
            "learns by heart, or the held-out readings are of another kind.",
            image(plots.losses(fitted.looks, fitted.best), "Loss terms over epochs"),
        )
    ]


def _latents(share_L: F64) -> list[str]:
    if not len(share_L):
        return []
    active = int((share_L > ACTIVE_SHARE).sum())
    return [
        section(
            "Latents",
            f"{active} of {len(share_L)} are active, above the dashed line: they tell readings apart. "
            + (
                "Grey ones say nothing; that is no harm while the features are explained."
                if active
                else "They have collapsed: every reading is reconstructed as the mean. Lower "
                "ZMU_TRAINING__OBJECTIVE__KL_WEIGHT, or set ZMU_TRAINING__OBJECTIVE__FREE_BITS to 0.1."
            ),
            image(plots.latents(share_L), "Signal share by latent"),
        )
    ]


def _worst(manifest: Manifest, data: Dataset, shown: HeldOut) -> str:
    scaling = manifest.scaling
    parts = []
    for i in heldout.worst(shown.scores, WORST):
        x_F, expected_F = data.held.x_BF[i], shown.scores.expected_BF[i]
        score_F = shown.scores.feature_score_BF[i]
        first = np.argsort(-score_F, kind="stable")[:FEATURES_SHOWN]
        named = [manifest.features[f] for f in first]
        stamp = int(data.held.timestamp_ms_B[i])
        when = rfc3339(stamp) if stamp >= 0 else f"row {data.held.offset_B[i]}"
        lead = first[0]
        parts.append(
            f"<p><b>{escape(when)}</b>: score {shown.scores.anomaly_score_B[i]:.3g}, most by "
            f"{escape(named[0])} (actual {x_F[lead]:.6g}, expected {expected_F[lead]:.6g})</p>"
        )
        actual, expected = scaling.scale(x_F)[first], scaling.scale(expected_F)[first]
        parts.append(image(plots.reading(named, actual.astype(float), expected.astype(float)), "A reading"))
    return section(
        "Worst reconstructions",
        "The held-out readings that fit the model least, the features that make it first. Faults among them? Then "
        "the history is not all normal: leave that range out.",
        "".join(parts),
    )


def _learnt_from(manifest: Manifest) -> str:
    training = manifest.training
    rows = [
        (escape(f"{r.topic}, partition {r.partition}"), f"offsets {r.start:,} to {r.end:,}") for r in training.source
    ]
    rows += [("file", escape(file)) for file in training.files]
    if training.first_timestamp_ms is not None and training.last_timestamp_ms is not None:
        rows.append(("time", f"{rfc3339(training.first_timestamp_ms)} to {rfc3339(training.last_timestamp_ms)}"))
    rows += [(f"left out: {escape(reason)}", f"{count:,} readings") for reason, count in training.left_out.items()]
    rows += [(f"feedback: {escape(label)}", f"{count:,}") for label, count in training.feedback.items()]
    rows.append(("features", escape(", ".join(manifest.features))))
    return section("Learnt from", "", table(("", ""), rows))


def _settings(manifest: Manifest) -> str:
    rows = [(escape(name), escape(str(value))) for name, value in _flat(manifest.training.settings)]
    rows += [(escape(name), escape(version)) for name, version in manifest.libraries.items()]
    rows.append(("SHA-256 of the weights", f"<code>{manifest.sha256}</code>"))
    return f"<section><details><summary>Settings, libraries, hash</summary>{table(('', ''), rows)}</details></section>"


def _flat(settings: dict[str, object], prefix: str = "") -> Iterable[tuple[str, object]]:
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", "" if value is None else value
