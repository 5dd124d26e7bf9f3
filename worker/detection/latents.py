"""The latent families of the VAE: what may lie between its encoder and its decoder.

A family turns the encoder's outputs into a posterior q(z|x), draws z from it to train, measures how far it is from
the prior p(z), and draws z from that prior to make new readings. For scoring nothing may be drawn: there z = mu, the
posterior mean E[z|x], which every family has.

Shapes: B batch, N samples, E encoder outputs, L latents, Z width of z (L, or L*C), C classes, K mixture components.
"""

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worker.detection.reconstructor import Linear

LOG_2PI = math.log(2 * math.pi)

# σ stays within e^-10 and e^10. The bound is a tanh and not a clamp, so that a latent that has reached it still gets
# a gradient to come back by.
LOGVAR_BOUND = 20.0

# Between z that is nearly discrete (low) and gradients of low variance (high); 2/3 is Maddison et al.'s choice.
TEMPERATURE = 2 / 3

COUPLING_HIDDEN = 64
COUPLING_LOG_SCALE = 2.0


class Draw(NamedTuple):
    """One sample of the posterior with what the loss needs of it."""

    z_BZ: Tensor
    mu_BZ: Tensor  # E[z|x]
    logvar_BZ: Tensor  # log Var[z|x]
    kl_BL: Tensor  # nats; the columns add up to KL(q(z|x) || p(z))


class Latents(nn.Module, ABC):
    """One family. `outputs` (E) is what it needs of the encoder, `width` (Z) what it hands to the decoder."""

    def __init__(self, latent: int, outputs: int, width: int) -> None:
        super().__init__()
        self.latent, self.outputs, self.width = latent, outputs, width

    def extra_repr(self) -> str:
        return f"latent={self.latent}, outputs={self.outputs}, width={self.width}"

    @abstractmethod
    def moments(self, out_BE: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of z given x: (mu_BZ, logvar_BZ). mu is the code that scoring decodes."""

    def mean(self, out_BE: Tensor) -> Tensor:
        """mu_BZ alone."""
        return self.moments(out_BE)[0]

    @abstractmethod
    def draw(self, out_BE: Tensor) -> Draw:
        """A sample that gradients pass through (global random state of the device), and its KL."""

    @abstractmethod
    def prior(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """z_NZ drawn from the prior. The noise comes from the CPU, so that a seed means the same on any device."""


class Gaussian(Latents):
    """Posterior N(mu, σ²), one σ per latent. z = mu + eps * σ (Kingma & Welling 2014); the code is mu itself.

    The encoder gives log σ²: any real number is then a valid output, σ = exp(logvar / 2) is positive without a
    constraint, and a step of a given size changes σ by the same factor whether it is tiny or large.
    """

    def __init__(self, latent: int) -> None:
        super().__init__(latent, outputs=2 * latent, width=latent)

    def moments(self, out_BE: Tensor) -> tuple[Tensor, Tensor]:
        mu_BZ, raw_BZ = out_BE.chunk(2, dim=-1)
        return mu_BZ, LOGVAR_BOUND * torch.tanh(raw_BZ / LOGVAR_BOUND)

    def mean(self, out_BE: Tensor) -> Tensor:
        return out_BE[..., : self.latent]

    def draw(self, out_BE: Tensor) -> Draw:
        mu_BZ, logvar_BZ = self.moments(out_BE)
        z_BZ = mu_BZ + torch.randn_like(mu_BZ) * torch.exp(logvar_BZ / 2)
        return Draw(z_BZ, mu_BZ, logvar_BZ, self.kl(mu_BZ, logvar_BZ, z_BZ))

    @abstractmethod
    def kl(self, mu_BZ: Tensor, logvar_BZ: Tensor, z_BZ: Tensor) -> Tensor:
        """kl_BL of N(mu, exp(logvar)) to the prior; z_BZ is a sample, for priors without a closed form."""


class Normal(Gaussian):
    """Prior N(0, 1)."""

    def kl(self, mu_BZ: Tensor, logvar_BZ: Tensor, z_BZ: Tensor) -> Tensor:  # noqa: ARG002, it needs no sample
        """KL = -½ Σ (1 + logvar - mu² - exp(logvar)), exactly (Kingma & Welling 2014, appendix B)."""
        return -0.5 * (1 + logvar_BZ - mu_BZ**2 - logvar_BZ.exp())

    def prior(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return torch.randn(n, self.width, generator=generator)


class LearnedPrior(Gaussian):
    """A prior with a density but no closed-form KL: its cross-entropy is estimated at the z that was drawn anyway."""

    @abstractmethod
    def log_prior(self, z_BZ: Tensor) -> Tensor:
        """log p(z): logp_B."""

    def kl(self, mu_BZ: Tensor, logvar_BZ: Tensor, z_BZ: Tensor) -> Tensor:  # noqa: ARG002, H(q) knows no mu
        """KL = -H(q) - E_q[log p(z)], the entropy exact, the expectation by one sample (unbiased; may be negative).

        Such a prior ties the latents together, so the KL has no share per latent: it is spread evenly over L columns.
        """
        negative_entropy_B = -0.5 * (1 + LOG_2PI + logvar_BZ).sum(-1)
        kl_B = negative_entropy_B - self.log_prior(z_BZ)
        return kl_B[:, None].expand_as(z_BZ) / self.latent


class Mixture(LearnedPrior):
    """Prior: a learned mixture of K Gaussians, for plants with several modes of running.

    Source: the mixture-of-Gaussians prior that Tomczak & Welling 2018 ("VAE with a VampPrior", section 3) set beside
    the VampPrior; taken because it needs no inputs of its own. The posterior stays Gaussian, so z = mu stays as it is.
    """

    def __init__(self, latent: int, components: int) -> None:
        super().__init__(latent)
        self.logits_K = nn.Parameter(torch.zeros(components))
        self.mean_KZ = nn.Parameter(torch.randn(components, latent))
        self.raw_logvar_KZ = nn.Parameter(torch.zeros(components, latent))

    def log_prior(self, z_BZ: Tensor) -> Tensor:
        logvar_KZ = LOGVAR_BOUND * torch.tanh(self.raw_logvar_KZ / LOGVAR_BOUND)
        square_BKZ = (z_BZ[:, None] - self.mean_KZ) ** 2 / logvar_KZ.exp()
        logp_BK = -0.5 * (LOG_2PI + logvar_KZ + square_BKZ).sum(-1)
        return torch.logsumexp(self.logits_K.log_softmax(0) + logp_BK, dim=1)

    def prior(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        share_K = self.logits_K.softmax(0).cpu()
        which_N = torch.multinomial(share_K, n, replacement=True, generator=generator).to(self.mean_KZ.device)
        eps_NZ = torch.randn(n, self.width, generator=generator).to(self.mean_KZ)
        logvar_KZ = LOGVAR_BOUND * torch.tanh(self.raw_logvar_KZ / LOGVAR_BOUND)
        return self.mean_KZ[which_N] + eps_NZ * torch.exp(logvar_KZ[which_N] / 2)


class Coupling(nn.Module):
    """One affine coupling layer of RealNVP (Dinh et al. 2017, section 3.2): u = (a, b·exp(s(a)) + t(a)), reversed.

    Reversing the order makes the next layer change the half that this one left alone.
    """

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.kept = latent // 2
        last = Linear(COUPLING_HIDDEN, 2 * (latent - self.kept))
        nn.init.normal_(last.weight, std=0.01)  # begins as almost the identity: the prior as almost N(0, 1)
        nn.init.zeros_(last.bias)
        self.net = nn.Sequential(Linear(self.kept, COUPLING_HIDDEN), nn.ReLU(), last)

    def scale_and_shift(self, a_BZ: Tensor) -> tuple[Tensor, Tensor]:
        s_BZ, t_BZ = self.net(a_BZ).chunk(2, dim=-1)
        return COUPLING_LOG_SCALE * torch.tanh(s_BZ / COUPLING_LOG_SCALE), t_BZ

    def forward(self, z_BZ: Tensor) -> tuple[Tensor, Tensor]:
        """u_BZ and log |det du/dz| (B)."""
        a_BZ, b_BZ = z_BZ[:, : self.kept], z_BZ[:, self.kept :]
        s_BZ, t_BZ = self.scale_and_shift(a_BZ)
        return torch.cat([a_BZ, b_BZ * s_BZ.exp() + t_BZ], dim=-1).flip(-1), s_BZ.sum(-1)

    def inverse(self, u_BZ: Tensor) -> Tensor:
        u_BZ = u_BZ.flip(-1)
        a_BZ, b_BZ = u_BZ[:, : self.kept], u_BZ[:, self.kept :]
        s_BZ, t_BZ = self.scale_and_shift(a_BZ)
        return torch.cat([a_BZ, (b_BZ - t_BZ) * torch.exp(-s_BZ)], dim=-1)


class Flow(LearnedPrior):
    """Prior: N(0, 1) seen through an invertible network u = f(z), so that log p(z) = log N(f(z)) + log |det df/dz|.

    Source: RealNVP (Dinh et al. 2017) as the prior; Chen et al. 2017 ("Variational Lossy Autoencoder", section 3.2)
    show that a flow on the prior says what its inverse would on the posterior, and costs nothing when scoring: the
    posterior stays Gaussian, so z = mu stays as it is. Needs at least 2 latents.
    """

    def __init__(self, latent: int, flows: int) -> None:
        super().__init__(latent)
        self.couplings = nn.ModuleList(Coupling(latent) for _ in range(flows))

    def log_prior(self, z_BZ: Tensor) -> Tensor:
        logdet_B = z_BZ.new_zeros(len(z_BZ))
        for coupling in self.couplings:
            z_BZ, log_scale_B = coupling(z_BZ)
            logdet_B = logdet_B + log_scale_B
        return -0.5 * (LOG_2PI + z_BZ**2).sum(-1) + logdet_B

    def prior(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        z_NZ = torch.randn(n, self.width, generator=generator).to(next(self.parameters()))
        for coupling in reversed(self.couplings):
            assert isinstance(coupling, Coupling)
            z_NZ = coupling.inverse(z_NZ)
        return z_NZ


class Categorical(Latents):
    """L latents, each one of C classes, uniform prior, drawn by Gumbel-softmax (Jang et al. and Maddison et al. 2017).

    The code is the class probabilities: they are E[z|x] of the one-hot z, just as mu is of the Gaussian one, and they
    move smoothly with x. The arg-max, the other choice, jumps where two classes are about as likely, and the score
    would jump with it. The KL is that of the classes themselves, as in Jang et al.
    """

    def __init__(self, latent: int, classes: int) -> None:
        super().__init__(latent, outputs=latent * classes, width=latent * classes)
        self.classes = classes

    def moments(self, out_BE: Tensor) -> tuple[Tensor, Tensor]:
        mu_BZ = self.by_class(out_BE).softmax(-1).flatten(1)
        return mu_BZ, log_spread(mu_BZ)

    def draw(self, out_BE: Tensor) -> Draw:
        logits_BLC = self.by_class(out_BE)
        z_BLC = F.gumbel_softmax(logits_BLC, tau=TEMPERATURE)
        kl_BL = math.log(self.classes) + (logits_BLC.softmax(-1) * logits_BLC.log_softmax(-1)).sum(-1)
        return Draw(z_BLC.flatten(1), *self.moments(out_BE), kl_BL)

    def prior(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        class_NL = torch.randint(self.classes, (n, self.latent), generator=generator)
        return F.one_hot(class_NL, self.classes).flatten(1).float()

    def by_class(self, out_BE: Tensor) -> Tensor:
        return out_BE.view(-1, self.latent, self.classes)


class Bernoulli(Latents):
    """L bits, uniform prior, drawn by the binary concrete relaxation (Maddison et al. 2017, appendix B).

    The code is the probability of a 1, E[z|x], for the reasons given at Categorical; a threshold would jump.
    """

    def __init__(self, latent: int) -> None:
        super().__init__(latent, outputs=latent, width=latent)

    def moments(self, out_BE: Tensor) -> tuple[Tensor, Tensor]:
        mu_BZ = out_BE.sigmoid()
        return mu_BZ, log_spread(mu_BZ)

    def draw(self, out_BE: Tensor) -> Draw:
        logistic_BZ = torch.logit(torch.rand_like(out_BE), eps=1e-6)
        z_BZ = torch.sigmoid((out_BE + logistic_BZ) / TEMPERATURE)
        mu_BZ, logvar_BZ = self.moments(out_BE)
        kl_BL = math.log(2) + mu_BZ * F.logsigmoid(out_BE) + (1 - mu_BZ) * F.logsigmoid(-out_BE)
        return Draw(z_BZ, mu_BZ, logvar_BZ, kl_BL)

    def prior(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return torch.randint(2, (n, self.width), generator=generator).float()


def log_spread(p_BZ: Tensor) -> Tensor:
    """Log variance p(1 - p) of a 0-or-1 variable, no lower than a Gaussian's may be."""
    return (p_BZ * (1 - p_BZ)).clamp(min=math.exp(-LOGVAR_BOUND)).log()
