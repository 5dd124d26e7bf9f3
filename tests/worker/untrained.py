"""Models of every kind that nothing was taught, and numbers to ask them of."""

from __future__ import annotations

import torch
from torch import Tensor

from worker.detection.baselines import PCA, ZChart
from worker.detection.model import VAE, Family, Shape
from worker.detection.reconstructor import Reconstructor

FAMILIES: list[Family] = ["normal", "mixture", "flow", "categorical", "bernoulli"]
CASES = [("vae", family) for family in FAMILIES] + [("pca", "normal"), ("zchart", "normal")]


def made(kind: str, family: Family, features: int, window: int) -> Reconstructor:
    """A model with weights, its hidden layers of widths that are multiples of nothing."""
    torch.manual_seed(3)
    match kind:
        case "vae":
            return VAE(Shape(features=features, window=window, hidden=(33, 10), latent=3, family=family))
        case "pca":
            return PCA.fit(torch.randn(300, features * window), explained=0.5)
        case _:
            return ZChart.fit(torch.randn(300, features * window))


def readings(n: int, inputs: int) -> Tensor:
    return torch.randn(n, inputs, generator=torch.Generator().manual_seed(5))
