"""What the VAE is trained to make small: how far it misses, plus how much it says about each reading (the KL).

The balance of the two decides all. A mean squared error over features beside a full KL makes it cheapest to say
nothing: the latents collapse and every reading is reconstructed as the mean. So the error is summed over features, in
units of each feature's own spread, and the KL has a weight.

Shapes: B batch, N rows, D inputs, Z width of z, L latents.
"""

import math
from typing import Literal, NamedTuple

import torch
from pydantic import BaseModel, Field
from torch import Tensor

from worker.detection.model import Forward
from worker.detection.reconstructor import guarded

SIGMA_SQUARED_FLOOR = math.exp(-12)  # Rybkin et al. keep log σ above -6: a perfect reconstruction must not divide by 0
ACTIVE_SHARE = 0.01


class ObjectiveSettings(BaseModel, frozen=True, extra="forbid"):
    kl_weight: float = Field(
        2.0,
        ge=0,
        description="Weight of the KL beside the summed squared error (β-VAE, Higgins et al. 2017). 2 is the ELBO of "
        "readings with noise of spread 1. Lower follows the data more closely; higher uses fewer latents: lower it "
        "when the report says that latents have collapsed. Profile pointwise: 0.1.",
    )
    warm_up: float = Field(
        0.2,
        ge=0,
        le=1,
        description="Share of the training over which the KL weight rises from 0 (Bowman et al. 2016), so that the "
        "latents come to mean something before they cost anything. 0 is the full weight from the start.",
    )
    free_bits: float = Field(
        0.0,
        ge=0,
        description="Nats of KL per latent that cost nothing (Kingma et al. 2016). 0.05 to 0.5 against collapse.",
    )
    sigma: Literal["fixed", "shared", "per-feature"] = Field(
        "fixed",
        description="fixed: summed squared error. shared: Gaussian likelihood whose σ is the best one for each batch "
        "(σ-VAE, Rybkin et al. 2021), which balances error and KL by itself: then take kl_weight 1. per-feature: "
        "the same with a σ for each feature.",
    )
    feature_weights: Literal["equal", "inverse-variance"] = Field(
        "equal",
        description="inverse-variance: squared errors in units of each feature's own variance. equal: as they are. "
        "For scaling unit: inverse-variance.",
    )
    spread_floor: float = Field(
        0.01,
        gt=0,
        description="Smallest spread, in scaled units, that inverse-variance divides by: a constant feature must not "
        "outweigh all others.",
    )

    def kl_weight_at(self, progress: float) -> float:
        """The KL's weight once this share (0 to 1) of the training is done."""
        return self.kl_weight if progress >= self.warm_up else self.kl_weight * progress / self.warm_up


class Loss(NamedTuple):
    """Means over the batch, each a scalar tensor. total is what is descended; the two others are for people to read."""

    reconstruction: Tensor  # summed squared error, or nats where σ is learned
    kl: Tensor  # nats, before weight and free bits
    total: Tensor


def loss(
    out: Forward,
    x_BD: Tensor,
    settings: ObjectiveSettings,
    *,
    weight_D: Tensor | None = None,
    present_BD: Tensor | None = None,
    kl_weight: float | Tensor | None = None,
) -> Loss:
    """The objective at one batch.

    x_BD is the target: the clean reading, also where the model was shown a noisy one. weight_D weighs squared errors
    (see weights_for); an input of weight 0 is not asked for at all. present_BD is False where a value is missing: it
    counts for nothing, and x may be NaN there (the likelihood of what was observed; Nazábal et al. 2020). kl_weight:
    default the settings', the full one.
    """
    miss_BD = guarded(x_BD - out.xhat_BD)
    if present_BD is not None:
        miss_BD = torch.where(present_BD, miss_BD, 0.0)  # before it is squared, as NaN² has a NaN gradient, used or not
    square_BD = miss_BD**2
    if weight_D is not None:
        square_BD = square_BD * weight_D
    match settings.sigma:
        case "fixed":
            reconstruction_B = square_BD.sum(-1)
        case "shared":
            asked_BD = _asked(x_BD, present_BD, weight_D)
            reconstruction_B = gaussian_nats(square_BD, asked_BD, mean_square(square_BD, asked_BD, dims=(0, 1)))
        case "per-feature":
            asked_BD = _asked(x_BD, present_BD, weight_D)
            reconstruction_B = gaussian_nats(square_BD, asked_BD, mean_square(square_BD, asked_BD, dims=(0,)))

    kl_L = out.kl_BL.mean(0)
    kl = kl_L.sum()
    kl_paid = kl_L.clamp(min=settings.free_bits).sum() if settings.free_bits else kl
    reconstruction = reconstruction_B.mean()
    kl_weight = settings.kl_weight if kl_weight is None else kl_weight
    return Loss(reconstruction, kl, reconstruction + kl_weight * kl_paid)


def _asked(x_BD: Tensor, present_BD: Tensor | None, weight_D: Tensor | None) -> Tensor:
    """What counts: is present and has a weight."""
    asked_BD = torch.ones_like(x_BD, dtype=torch.bool) if present_BD is None else present_BD
    return asked_BD if weight_D is None else asked_BD & (weight_D > 0)


def mean_square(square_BD: Tensor, present_BD: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Mean over dims of what is present: the σ² that makes the batch likeliest (Rybkin et al. 2021, section 3.2)."""
    return square_BD.sum(dims) / present_BD.sum(dims).clamp(min=1) + SIGMA_SQUARED_FLOOR


def gaussian_nats(square_BD: Tensor, present_BD: Tensor, sigma2: Tensor) -> Tensor:
    """-log N(x; xhat, σ²) over what is present: nats_B."""
    nats_BD = 0.5 * (math.log(2 * math.pi) + sigma2.log() + square_BD / sigma2)
    return torch.where(present_BD, nats_BD, 0.0).sum(-1)


def weights_for(settings: ObjectiveSettings, x_ND: Tensor) -> Tensor:
    """weight_D of squared errors, from the training rows; NaN (missing) is left out."""
    if settings.feature_weights == "equal":
        return torch.ones_like(x_ND[0])
    mean_D = x_ND.double().nanmean(0)
    variance_D = ((x_ND.double() - mean_D) ** 2).nanmean(0).nan_to_num(0.0)
    return (1 / variance_D.clamp(min=settings.spread_floor**2)).to(x_ND.dtype)


def explained_share(mu_NZ: Tensor, logvar_NZ: Tensor, latents: int) -> Tensor:
    """How much of each latent's variance tells readings apart: share_L, from 0 (collapsed) to 1.

    By the law of total variance, Var(z) = Var(E[z|x]) + E[Var(z|x)]: signal and noise. Burda et al. 2016 call a latent
    active where the first exceeds 0.01, under a prior of variance 1; as a share it means the same there, and still
    means something where the prior is learned or z is discrete (a categorical latent's classes are added up).
    """
    signal_L = mu_NZ.double().var(0, correction=0).view(latents, -1).sum(1)
    noise_L = logvar_NZ.double().exp().mean(0).view(latents, -1).sum(1)
    return signal_L / (signal_L + noise_L)
