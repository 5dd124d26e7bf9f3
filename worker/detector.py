"""Readings → anomaly scores. Pure arithmetic: no input or output, no clock, no random numbers.

    scale → predict (z = mu) → residual in held-out units → feature score → anomaly score, p-value

Legend: B readings, F features, D inputs of the model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from worker.artifact import Artifact
from worker.reconstructor import predict_in_blocks
from worker.records import F32, F64, Bools


@dataclass(frozen=True, slots=True)
class Scores:
    """What is known of each reading of a batch."""

    anomaly_score_B: F64            # ≥ 0; above 1 is anomalous
    p_value_B: F64                  # share of normal readings that score at least as high
    raw_B: F64                      # before the threshold divides it
    feature_score_BF: F64           # ≥ 0; 0 where the feature is missing
    expected_BF: F32                # what the model takes for normal, in the features' own units
    imputed_B: Bools                # whether a feature was missing

    @property
    def anomalous_B(self) -> Bools:
        return self.anomaly_score_B > 1.0


class Detector:
    """One model version at work. The same reading gets the same bits, whatever batch it comes in."""

    def __init__(self, artifact: Artifact) -> None:
        self.manifest = artifact.manifest
        self._model = artifact.model
        self._device = next(iter(artifact.model.state_dict().values())).device
        self._residual_scale_F = np.asarray(self.manifest.residual_scale, np.float64)

    @property
    def weights_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self._model.state_dict().values())

    def score(self, x_BF: F32) -> Scores:
        """Readings in their own units, NaN where missing."""
        calibration = self.manifest.calibration
        expected_BF, residual_BF = self.residuals(x_BF)
        feature_score_BF = (residual_BF / self._residual_scale_F) ** 2
        missing_BF = np.isnan(x_BF)
        feature_score_BF[missing_BF] = 0.0
        present_B = (~missing_BF).sum(1)
        raw_B = feature_score_BF.sum(1) / np.maximum(present_B, 1)
        return Scores(
            anomaly_score_B=raw_B / calibration.threshold,
            p_value_B=calibration.p_value(raw_B),
            raw_B=raw_B,
            feature_score_BF=feature_score_BF,
            expected_BF=self.manifest.scaling.unscale(expected_BF),
            imputed_B=np.asarray(missing_BF.any(1)),
        )

    def residuals(self, x_BF: F32) -> tuple[F32, F64]:
        """What the model expects, and how far the readings are from it, both in scaled units (NaN where missing)."""
        scaling = self.manifest.scaling
        scaled_BF = scaling.scale(x_BF)
        input_BD = np.where(np.isnan(scaled_BF), scaling.fill_F, scaled_BF)
        expected_BF = predict_in_blocks(self._model, torch.from_numpy(input_BD).to(self._device)).cpu().numpy()
        return expected_BF, scaled_BF.astype(np.float64) - expected_BF
