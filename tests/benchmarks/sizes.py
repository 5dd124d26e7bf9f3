"""Models that are timed, and correlated readings to teach them.

Legend: B windows, K readings, F features, W readings of a window.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch

from training.fitting.fit import Inputs
from worker.detection.model import VAE, Shape

CAUSES = 5                              # that move all features together
NOISE = 0.1


class Size(NamedTuple):
    name: str
    shape: Shape

    @property
    def weights(self) -> int:
        return sum(weight.numel() for weight in VAE(self.shape).parameters())

    def products(self, newest: bool) -> int:
        """Multiplications of one window's way through the model."""
        shape = self.shape
        outputs = shape.features if newest else shape.inputs
        there = pairwise((shape.inputs, *shape.hidden, 2 * shape.latent))
        back = pairwise((shape.latent, *reversed(shape.hidden), outputs))
        return sum(a * b for a, b in (*there, *back))


SMALL = Size("20→64→10", Shape(features=20, hidden=(64,), latent=10))
WINDOWED = Size("20×10→64→10", Shape(features=20, window=10, hidden=(64,), latent=10))
WIDE = Size("500→1024→10", Shape(features=500, hidden=(1024,), latent=10))
LARGE = Size("500×60→1024→10", Shape(features=500, window=60, hidden=(1024,), latent=10))


def readings(size: Size, windows: int, device: torch.device) -> Inputs:
    """One series, of spread about 1, none missing; each window begins a reading later than the one before."""
    generator = torch.Generator().manual_seed(0)
    shape, length = size.shape, windows + size.shape.window - 1
    cause_KC = torch.randn(length, CAUSES, generator=generator)
    mixing_CF = torch.randn(CAUSES, shape.features, generator=generator) / CAUSES**0.5
    x_KF = cause_KC @ mixing_CF + NOISE * torch.randn(length, shape.features, generator=generator)
    index_BW = torch.arange(windows)[:, None] + torch.arange(shape.window)
    return Inputs(x_KF.to(device), torch.ones_like(x_KF, dtype=torch.bool).to(device), index_BW.to(device))
