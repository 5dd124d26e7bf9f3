"""The baselines beside the model: does it earn its keep on these readings?

Each kind is fitted to the same readings by the same recipe, calibrated alike, and set before the same faults
(training/gates/trial.py).
"""

from __future__ import annotations

from collections.abc import Mapping

from training.fitting.dataset import Dataset
from training.fitting.fit import Inputs
from training.gates import trial
from training.gates.gate import NOTABLE
from training.gates.trial import Seen
from training.progress import Progress
from training.settings import TrainingSettings
from worker.detection.detector import Detector
from worker.detection.model import Kind
from worker.models.artifact import Artifact

BASELINES: tuple[Kind, ...] = ("pca", "zchart")
WINDOWS = 10_000                        # that a baseline beside the model learns from, spread over all
WIDEST = 2000                           # inputs of a PCA beside the model: its time grows with their cube


def kinds(settings: TrainingSettings, inputs: int) -> list[Kind]:
    """What to fit, the model asked for first; inputs: of the model, window times features."""
    own: Kind = "vae" if settings.kind == "auto" else settings.kind
    beside = [kind for kind in BASELINES if kind != own and (kind != "pca" or inputs <= WIDEST)]
    return [own, *(beside if settings.rivals else [])]


def sample(train: Inputs) -> Inputs:
    """As much as a baseline needs that is there for comparison."""
    step = -(-len(train) // WINDOWS)
    return Inputs(train.x_KF, train.present_KF, train.index_NW[::step])


def compared(artifacts: Mapping[Kind, Artifact], data: Dataset, seed: int, progress: Progress) -> dict[Kind, Seen]:
    """What each makes of the same faults. Empty where there is but one, or too few held-out readings for a trial."""
    if len(artifacts) == 1:
        return {}
    faults = trial.prepared(data.held, data.spread_F, data.recipe.window, seed)
    if faults is None:
        progress.say("no comparison with the baselines: no entity has enough held-out readings in a row")
        return {}
    seen = {}
    for kind, artifact in artifacts.items():
        seen[kind] = faults.of(Detector(artifact))
        progress.go_on()
    shares = ", ".join(f"{kind} {s.detected:.0%}" for kind, s in seen.items())
    progress.say(f"noticed of {len(faults)} faults injected into held-out readings: {shares}")
    return seen


def ranked(seen: Mapping[Kind, Seen]) -> list[Kind]:
    """Those that notice most first; the VAE before one that notices hardly more."""
    return sorted(seen, key=lambda kind: -(seen[kind].detected + (NOTABLE if kind == "vae" else 0.0)))


def figures(seen: Mapping[Kind, Seen]) -> dict[str, float]:
    """For the manifest: `rival.<kind>.detected` and so on, the model itself among them."""
    trials = {"rival.trials": float(max(s.trials for s in seen.values()))} if seen else {}
    return trials | {f"rival.{kind}.{name}": value for kind, s in seen.items() for name, value in s.figures().items()}
