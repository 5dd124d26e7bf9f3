"""Fits a model to scaled readings.

Legend: B batch, N windows, K readings, F features, W readings of a window, D = W*F inputs.
"""

from __future__ import annotations

import copy
import itertools
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from training import ranks
from training.fitting.objective import ObjectiveSettings, loss, weights_for
from training.fitting.profiles import Profile
from training.fitting.steps import Pace, Plan, steps_of
from training.progress import Bar, Progress
from training.settings import TrainingSettings
from worker.detection import windows
from worker.detection.baselines import PCA, ZChart
from worker.detection.model import VAE, Shape
from worker.detection.reconstructor import Reconstructor
from worker.detection.scaling import Scaling
from worker.errors import TrainingError
from worker.models.artifact import Losses
from worker.records import Batch
from worker.state.state import States
from worker.state.visits import Visits

LOOKS = 10                              # at the held-out loss, at least so far apart as a tenth of the training
EVALUATED_AT_ONCE = 8192
RISE_STEPS = 50
SETTLE_AFTER = 0.6                      # share of the steps with the full learning rate
SETTLED = 0.1                           # share of the learning rate that is left at the end
FIRST_WEIGHTS = 0.1                     # of the decoder's last layer, beside their usual size
USUAL_BATCH = 32                        # that learning_rate is meant for
SHOWN_STEPS = 20                        # between two moves of the bar, and two questions whether to stop


@dataclass(frozen=True)
class Fitted:
    model: Reconstructor
    shape: Shape
    looks: tuple[Losses, ...] = ()
    best: int = 0                       # the look whose weights these are
    steps: int = 0
    seconds: float = 0.0


@dataclass
class _Best:
    look: int = -1
    total: float = math.inf
    weights: dict[str, Tensor] = field(default_factory=dict)


class Inputs(NamedTuple):
    """Scaled readings as the model sees them, and where a value was there. A window is a row of indices."""

    x_KF: Tensor                        # the training median where missing
    present_KF: Tensor
    index_NW: Tensor                    # windows that are full

    def __len__(self) -> int:
        return len(self.index_NW)

    @property
    def complete(self) -> bool:
        """Whether no value is missing."""
        return bool(self.present_KF.all())

    def rows(self, index_N: Tensor) -> tuple[Tensor, Tensor]:
        """These windows as inputs of the model: x_ND, present_ND."""
        index_NW = self.index_NW[index_N]
        return self.x_KF[index_NW].flatten(1), self.present_KF[index_NW].flatten(1)

    def parts(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        for index_N in torch.split(torch.arange(len(self), device=self.x_KF.device), size):
            yield self.rows(index_N)

    def whole(self) -> Tensor:
        """All windows at once, x_ND: for what cannot take them in parts."""
        return self.x_KF[self.index_NW].flatten(1)


def inputs(batch: Batch, scaling: Scaling, window: int, gap_seconds: float | None, device: torch.device) -> Inputs:
    """The full windows of readings that are in order by entity; raises TrainingError where there is none."""
    n_features = batch.x_BF.shape[1]
    states = States(windows.fields(window, n_features))
    states.reserve(int(batch.entity_B.max(initial=-1)) + 1)
    gap_ms = None if gap_seconds is None else round(gap_seconds * 1000)
    windowed = windows.gather(states, batch, Visits.of(batch.entity_B), window, gap_ms)
    if not windowed.full_B.any():
        raise TrainingError(
            f"no entity has {window} readings in a row, as many as a window holds; lower ZMU_TRAINING__WINDOW, raise "
            f"ZMU_TRAINING__GAP_SECONDS (now {gap_seconds}), or take ZMU_TRAINING__PROFILE=pointwise"
        )
    scaled_KF = scaling.scale(windowed.stack_KF)
    missing_KF = np.isnan(scaled_KF)
    filled_KF = np.where(missing_KF, scaling.fill_F, scaled_KF)
    return Inputs(
        torch.from_numpy(filled_KF).to(device),
        torch.from_numpy(~missing_KF).to(device),
        torch.from_numpy(windowed.index_BW[windowed.full_B]).to(device),
    )


def fit(
    train: Inputs, held: Inputs, recipe: Profile, settings: TrainingSettings, device: torch.device, progress: Progress
) -> Fitted:
    """The same seed, data, settings and machine give the same weights. Leaves torch's random state as it was.

    Raises TrainingError where the loss is no number any more, Stopped where told to stop.
    """
    begin = time.monotonic()
    n_features = train.x_KF.shape[1]
    if settings.kind != "vae":
        x_ND = train.whole()
        baseline = ZChart.fit(x_ND) if settings.kind == "zchart" else PCA.fit(x_ND, settings.explained)
        latent = baseline.components if isinstance(baseline, PCA) else 1
        shape = Shape(features=n_features, window=recipe.window, hidden=(), latent=latent)
        return Fitted(baseline.to(device), shape, seconds=time.monotonic() - begin)
    shape = Shape(
        features=n_features, window=recipe.window, hidden=settings.hidden, latent=settings.latent,
        family=settings.family, components=settings.components, flows=settings.flows, classes=settings.classes,
        output=recipe.output,
    )
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(settings.seed)
        model = VAE(shape).to(device)
        start_at_mean(model, train)
        if ranks.rank():
            torch.manual_seed(settings.seed + ranks.rank())     # each process draws noise of its own
        fitted = _Descent(model, train, held, recipe.objective, settings).run(progress)
    model, looks, best, steps = fitted
    return Fitted(model.eval(), shape, tuple(looks), best, steps, time.monotonic() - begin)


@torch.no_grad()
def start_at_mean(model: VAE, train: Inputs) -> None:
    """Lets the decoder say the mean, nearly, before the first step.

    Otherwise the first hundreds of steps only teach it where each feature lies; a constant one, whose error weighs
    most, would own them.
    """
    last = next(layer for layer in reversed(model.decoder) if isinstance(layer, torch.nn.Linear))
    count_F = train.present_KF.sum(0).clamp(min=1)
    mean_F = (train.x_KF.where(train.present_KF, 0.0).double().sum(0) / count_F).float()
    bias_F = torch.logit(mean_F, eps=1e-3) if model.shape.output == "sigmoid" else mean_F
    last.weight.mul_(FIRST_WEIGHTS)
    last.bias.copy_(bias_F.repeat(model.shape.window))


class _Descent:
    def __init__(
        self, model: VAE, train: Inputs, held: Inputs, objective: ObjectiveSettings, settings: TrainingSettings
    ) -> None:
        self._model, self._train, self._held = model, train, held
        self._objective, self._settings = objective, settings
        self._weight_D: Tensor | None = None
        if objective.feature_weights != "equal":
            weight_F = weights_for(objective, train.x_KF.where(train.present_KF, torch.nan))
            self._weight_D = weight_F.repeat(model.shape.window)
        scale = math.sqrt(settings.batch_size / USUAL_BATCH) if settings.scale_rate else 1.0
        self._rate = settings.learning_rate * scale
        self._shuffle = torch.Generator().manual_seed(settings.seed)
        self._epoch_steps = math.ceil(len(train) / settings.batch_size)
        self._steps = max(settings.epochs * self._epoch_steps, settings.min_steps)
        self._look_steps = max(self._epoch_steps, self._steps // LOOKS)
        plan = Plan(objective, self._weight_D, settings.noise, settings.batch_size, self._steps, self._pace)
        self._descent = steps_of(model, train, plan)

    def _pace(self, step: int) -> Pace:
        return Pace(
            self._rate * self._share_of_rate(step), self._objective.kl_weight_at(step / self._steps)
        )

    def _share_of_rate(self, step: int) -> float:
        """Rises at first, as Adam's means are still those of few steps; falls in the end, to settle."""
        rest = (1 - step / self._steps) / (1 - SETTLE_AFTER)
        return min(1.0, (step + 1) / RISE_STEPS) * min(1.0, SETTLED + (1 - SETTLED) * max(rest, 0.0))

    def run(self, progress: Progress) -> tuple[VAE, list[Losses], int, int]:
        looks: list[Losses] = []
        best = _Best()
        since = 0
        with progress.bar("training", self._steps) as bar:
            for step in self._taken():
                since += 1
                if step % SHOWN_STEPS == 0:
                    bar.advance(SHOWN_STEPS)
                if since == self._look_steps or step == self._steps:
                    looks.append(self._look(step, self._descent.sums / since))
                    self._descent.sums.zero_()
                    since = 0
                    self._say(bar, looks[-1])
                    if looks[-1].held_total < best.total:
                        best = _Best(len(looks) - 1, looks[-1].held_total, copy.deepcopy(self._model.state_dict()))
                    if step == self._steps or self._waited(looks, best, step):
                        break
        self._model.load_state_dict(best.weights)
        return self._model, looks, best.look, step

    def _taken(self) -> Iterator[int]:
        """Takes the steps of epoch after epoch: how many by then."""
        for step in itertools.count():
            if step % self._epoch_steps == 0:
                order_N = torch.randperm(len(self._train), generator=self._shuffle)
                self._descent.begin(order_N.to(self._train.x_KF.device))
            self._descent.take()
            yield step + 1

    def _look(self, step: int, train: Tensor) -> Losses:
        held = self._evaluate()
        reconstruction, kl = train.tolist()
        epoch = step / self._epoch_steps
        if not all(map(math.isfinite, (reconstruction, kl, *held))):
            raise TrainingError(
                f"the loss is no number any more after {epoch:.1f} epochs; lower ZMU_TRAINING__LEARNING_RATE "
                f"(now {self._settings.learning_rate:g}), or leave out readings that cannot be right"
            )
        held_reconstruction, held_kl, held_total = held
        return Losses(
            epoch=epoch, train_reconstruction=reconstruction, train_kl=kl, held_reconstruction=held_reconstruction,
            held_kl=held_kl, held_total=held_total,
        )

    @torch.no_grad()
    def _evaluate(self) -> tuple[float, float, float]:
        """Held-out loss at the KL's full weight, always with the same draws, so that looks compare."""
        held, settings = self._held, self._settings
        sums = torch.zeros(3, dtype=torch.float64)
        devices = [held.x_KF.device] if held.x_KF.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(settings.seed)
            for x_BD, present_BD in held.parts(EVALUATED_AT_ONCE):
                terms = loss(
                    self._model(x_BD), x_BD, self._objective, weight_D=self._weight_D, present_BD=present_BD
                )
                sums += torch.stack(terms).double().cpu() * len(x_BD)
        reconstruction, kl, total = (sums / len(held)).tolist()
        return reconstruction, kl, total

    def _waited(self, looks: list[Losses], best: _Best, step: int) -> bool:
        """Patience begins when the KL has its full weight: until then the goal itself moves."""
        warm = step / self._steps >= self._objective.warm_up
        return warm and len(looks) - 1 - best.look >= self._settings.patience

    def _say(self, bar: Bar, look: Losses) -> None:
        bar.note(
            f"epoch {look.epoch:.4g}: reconstruction {look.train_reconstruction:.4g}, KL {look.train_kl:.4g}; "
            f"held out {look.held_reconstruction:.4g}, {look.held_kl:.4g}"
        )
