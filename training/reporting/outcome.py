"""What came of a training: a published version, whether it serves, and why not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from training.fitting import recalibrate
from training.gates import gate
from worker.models.artifact import Manifest

Promotion = Literal["promoted", "refused", "waiting"]

SAID: dict[Promotion, str] = {
    "promoted": "serves from now on",
    "refused": "kept as challenger: it did not pass its gates",
    "waiting": "kept as challenger until `zmu-training models promote challenger`",
}


@dataclass(frozen=True)
class Outcome:
    manifest: Manifest
    place: str                          # of the registry
    promotion: Promotion

    @property
    def loss(self) -> float:
        """Held out. NaN where it is no number: the manifest holds numbers only."""
        return self.manifest.figures.get("held_out_loss", float("nan"))

    @property
    def feedback(self) -> dict[str, int]:
        """What people had said of events by then, by label."""
        return self.manifest.training.feedback

    @property
    def reasons(self) -> list[str]:
        """Why it is refused."""
        return [
            f"{g.name} is {'no number' if g.value is None else format(g.value, '.4g')} ({g.bound}): {g.detail}"
            for g in gate.failed(self.manifest.gates)
        ]

    @property
    def summary(self) -> str:
        manifest, calibration = self.manifest, self.manifest.calibration
        figures = manifest.figures
        lines = [
            f"version    {manifest.version}: {SAID[self.promotion]}",
            f"rows       {manifest.training.rows:,}, {calibration.count:,} of them held out",
            f"loss       {self.loss:.4g} held out; the error is {figures.get('error_ratio', float('nan')):.3g} of that "
            "of the training mean",
            f"threshold  {calibration.threshold:.4g}; {figures['alert_rate']:.3%} of the held-out readings exceed it, "
            f"{calibration.target_rate:.3%} were asked for",
            f"report     {self.place}/{manifest.version}/report.html",
        ]
        return "\n".join([*lines, *(f"note       {note}" for note in notes(manifest))])


def notes(manifest: Manifest) -> list[str]:
    """What an operator should know and could change."""
    found = []
    calibration, figures = manifest.calibration, manifest.figures
    if calibration.fixed:
        found.append(
            f"{calibration.count} held-out readings tell too little of rare scores: the threshold is a wide margin "
            "above theirs, whatever rate was asked for. More history makes small faults visible"
        )
    elif calibration.tail is None and calibration.target_rate * calibration.count < 1:
        found.append(
            f"{calibration.count} held-out readings cannot tell a rate of {calibration.target_rate:g}: the threshold "
            "is the highest score among them. More history makes alarms on normal readings rarer"
        )
    active = figures.get("active_latents")
    if active is not None and active == 0:
        found.append(
            "all latents have collapsed: every reading is reconstructed as the mean. Lower "
            "ZMU_TRAINING__OBJECTIVE__KL_WEIGHT (or set …__FREE_BITS to 0.1)"
        )
    elif active is not None and active < manifest.shape.latent / 2 and figures.get("error_ratio", 0) > 0.5:
        found.append(
            f"{active:.0f} of {manifest.shape.latent} latents are active and half of the variance stays unexplained: "
            "try a lower ZMU_TRAINING__OBJECTIVE__KL_WEIGHT"
        )
    found += manifest.training.remarks
    told = recalibrate.note(figures)
    if told is not None:
        found.append(told)
    found += [g.detail for g in manifest.gates if g.name == gate.KEEP and (g.value or 0) < -gate.NOTABLE]
    return found
