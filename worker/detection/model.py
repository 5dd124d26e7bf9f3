"""The variational autoencoder, after Kingma & Welling 2014 ("Auto-Encoding Variational Bayes").

An encoder says where in a small latent space a reading belongs, and how surely: mu and logvar. A decoder turns a
place there back into a reading. Training draws z = mu + eps * σ, so that neighbouring places learn to mean
neighbouring readings; scoring takes z = mu, so that the same reading always gets the same score. A model that has
only seen normal readings has no place for an anomaly, and its reconstruction misses.

Shapes: B batch, N samples, F features, W window rows, D = W*F inputs, E encoder outputs, Z width of z, L latents.
"""

from itertools import pairwise
from typing import Annotated, Literal, NamedTuple, Self

import torch
from pydantic import BaseModel, Field, model_validator
from torch import Tensor, nn

from worker.detection.baselines import PCA, ZChart
from worker.detection.latents import Bernoulli, Categorical, Flow, Latents, Mixture, Normal
from worker.detection.reconstructor import Linear, Reconstructor, guarded

Kind = Literal["vae", "pca", "zchart"]
Family = Literal["normal", "mixture", "flow", "categorical", "bernoulli"]

MAX_WEIGHTS = 100_000_000  # 400 MB

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "silu": nn.SiLU, "gelu": nn.GELU}


class Shape(BaseModel, frozen=True, extra="forbid"):
    """All that is needed to build a model for weights. Bounded, as it is read from a file before that is trusted."""

    features: int = Field(ge=1, le=4096, description="Values in one reading (F).")
    window: int = Field(1, ge=1, le=1024, description="Readings scored together (W); 1 looks at each by itself.")
    hidden: tuple[Annotated[int, Field(ge=1, le=8192)], ...] = Field(
        (64,), max_length=8, description="Widths of the encoder's hidden layers; the decoder has them in reverse."
    )
    latent: int = Field(10, ge=1, le=4096, description="Latents (L); for PCA, its components.")
    family: Family = Field("normal", description="What z is: see worker/detection/latents.py.")
    output: Literal["linear", "sigmoid"] = Field("linear", description="sigmoid for inputs scaled to [0, 1].")
    activation: Literal["relu", "tanh", "silu", "gelu"] = Field("relu", description="Between layers.")
    components: int = Field(10, ge=1, le=1024, description="Gaussians in the prior; family mixture only.")
    flows: int = Field(4, ge=1, le=16, description="Coupling layers in the prior; family flow only.")
    classes: int = Field(4, ge=2, le=256, description="Classes of each latent; family categorical only.")

    @property
    def inputs(self) -> int:
        """D, the width of the model's input: the window's readings one after the other, oldest first."""
        return self.window * self.features

    @model_validator(mode="after")
    def fits_in_memory(self) -> Self:
        latents = self.latent * (self.classes if self.family == "categorical" else 2)
        weights = 2 * sum(a * b for a, b in pairwise((self.inputs, *self.hidden, latents)))
        weights += self.latent * (self.components + self.inputs)
        if weights > MAX_WEIGHTS:
            raise ValueError(
                f"a model of {self.inputs} inputs, hidden {self.hidden} and {self.latent} latents has about "
                f"{weights:,} weights; at most {MAX_WEIGHTS:,} are allowed: take a smaller window or narrower layers"
            )
        return self

    @model_validator(mode="after")
    def flow_has_two_latents(self) -> Self:
        if self.family == "flow" and self.latent < 2:
            raise ValueError("latent is 1, but a flow lets one half of the latents bend the other: take 2 or more")
        return self


class Forward(NamedTuple):
    """What one training pass gives."""

    xhat_BD: Tensor
    z_BZ: Tensor
    mu_BZ: Tensor
    logvar_BZ: Tensor
    kl_BL: Tensor  # nats per latent

    @property
    def kl_B(self) -> Tensor:
        return self.kl_BL.sum(-1)


class VAE(Reconstructor):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.latents = latents_of(shape)
        self.encoder = layers(shape.activation, shape.inputs, *shape.hidden, self.latents.outputs)
        self.decoder = layers(shape.activation, self.latents.width, *reversed(shape.hidden), shape.inputs)
        if shape.output == "sigmoid":
            self.decoder.append(nn.Sigmoid())

    def extra_repr(self) -> str:
        return repr(self.shape)

    def forward(self, x_BD: Tensor) -> Forward:
        """The training path: z is drawn, so that the decoder sees a neighbourhood and not a point."""
        draw = self.latents.draw(self.encoder(guarded(x_BD)))
        return Forward(self.decode(draw.z_BZ), draw.z_BZ, draw.mu_BZ, draw.logvar_BZ, draw.kl_BL)

    def predict(self, x_BD: Tensor, newest: int | None = None) -> Tensor:
        """The deterministic path, z = mu: xhat_BD, or its last columns. For scores that repeat to the bit, use a Scorer
        or predict_in_blocks.
        """
        mu_BZ = self.latents.mean(self.encoder(guarded(x_BD)))
        return self.decode(mu_BZ) if newest is None else self._decode_newest(mu_BZ, newest)

    def encode(self, x_BD: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of z given x: (mu_BZ, logvar_BZ)."""
        return self.latents.moments(self.encoder(guarded(x_BD)))

    def decode(self, z_BZ: Tensor) -> Tensor:
        """The reading that belongs to z: xhat_BD."""
        xhat_BD: Tensor = self.decoder(z_BZ)
        return xhat_BD

    def _decode_newest(self, z_BZ: Tensor, newest: int) -> Tensor:
        *before, last = (layer for layer in self.decoder if not isinstance(layer, nn.Sigmoid))
        for layer in before:
            z_BZ = layer(z_BZ)
        assert isinstance(last, Linear)
        xhat_BN = last.newest(z_BZ, newest)
        return xhat_BN.sigmoid() if self.shape.output == "sigmoid" else xhat_BN

    @torch.no_grad()
    def generate(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n new readings, x_ND: z from the prior, decoded (the mean of p(x|z), without measurement noise)."""
        return self.decode(self.latents.prior(n, generator).to(next(self.parameters()).device))

    def reconstruct(self, noisy_BD: Tensor) -> Tensor:
        """Noisy readings without their noise, xhat_BD: predict, in its second use.

        Noise that is not shared between features finds no room in the latents. It works best when training added
        noise to the input and asked for the clean reading: forward(x + noise), loss against x (Vincent et al. 2008;
        Im et al. 2017, "Denoising Criterion for Variational Auto-Encoding Framework").
        """
        return self.predict(noisy_BD)


def layers(activation: str, *widths: int) -> nn.Sequential:
    """Linear layers of these widths, an activation between any two."""
    stack = nn.Sequential(Linear(widths[0], widths[1]))
    for narrow, wide in pairwise(widths[1:]):
        stack.extend([ACTIVATIONS[activation](), Linear(narrow, wide)])
    return stack


def latents_of(shape: Shape) -> Latents:
    match shape.family:
        case "normal":
            return Normal(shape.latent)
        case "mixture":
            return Mixture(shape.latent, shape.components)
        case "flow":
            return Flow(shape.latent, shape.flows)
        case "categorical":
            return Categorical(shape.latent, shape.classes)
        case "bernoulli":
            return Bernoulli(shape.latent)


def build(kind: Kind, shape: Shape) -> Reconstructor:
    """An untrained model of this kind, to train or to load weights into."""
    match kind:
        case "vae":
            return VAE(shape)
        case "pca":
            return PCA(shape.inputs, shape.latent)
        case "zchart":
            return ZChart(shape.inputs)
