"""What a model makes of the held-out readings, through the worker's own detector: what is calibrated, judged, shown.

Legend: H held-out rows, F features, L latents.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from training.fitting.dataset import Dataset
from training.fitting.fit import Inputs
from training.fitting.objective import explained_share
from worker.detection.detector import AT_ONCE, Detector, Scores
from worker.detection.model import VAE
from worker.detection.reconstructor import Reconstructor
from worker.records import F32, F64

CAP = 10.0                              # spreads that a miss counts at most: a few faults must not decide


@dataclass(frozen=True)
class HeldOut:
    """Squared misses are in units of each feature's own spread in training, capped."""

    scores: Scores
    error_F: F64                        # mean squared miss of the model
    constant_F: F64                     # … and of the training mean in its place
    target_rate: float

    @property
    def error_ratio(self) -> float:
        """The model's error over that of the training mean: 0 is perfect, 1 has learnt nothing."""
        constant = float(self.constant_F.sum())
        return float(self.error_F.sum()) / constant if constant > 0 else float(self.error_F.sum() > 0)

    @property
    def alert_rate(self) -> float:
        return float(self.scores.anomalous_B.mean())


def score(detector: Detector, data: Dataset) -> HeldOut:
    x_HF = data.held.x_BF
    scores = detector.score_history(data.held)
    return HeldOut(
        scores,
        error_F=_error(x_HF, scores.expected_BF.astype(np.float64), data.spread_F),
        constant_F=_error(x_HF, np.broadcast_to(data.mean_F, x_HF.shape), data.spread_F),
        target_rate=detector.manifest.calibration.target_rate,
    )


def latent_shares(model: Reconstructor, held: Inputs) -> F64:
    """How much of each latent's variance tells readings apart, share_L; empty for models without latents."""
    if not isinstance(model, VAE):
        return np.empty(0)
    with torch.no_grad():
        moments = [model.encode(x_HD) for x_HD, _ in held.parts(AT_ONCE)]
        mu_HZ, logvar_HZ = (torch.cat(column) for column in zip(*moments, strict=True))
        return np.asarray(explained_share(mu_HZ, logvar_HZ, model.latents.latent).cpu().numpy())


def worst(scores: Scores, count: int) -> list[int]:
    """Rows of the highest scores, the highest first."""
    return [int(i) for i in np.argsort(-scores.raw_B, kind="stable")[:count]]


def _error(x_HF: F32, expected_HF: F64, spread_F: F64) -> F64:
    miss_HF = (x_HF.astype(np.float64) - expected_HF) / spread_F
    square_HF = np.minimum(miss_HF**2, CAP**2)
    present_F = np.maximum((~np.isnan(square_HF)).sum(0), 1)
    return np.asarray(np.nansum(square_HF, axis=0) / present_F)
