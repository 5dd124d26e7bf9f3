"""Each family against what torch.distributions, or many samples, say of it."""

import math

import pytest
import torch
from torch import Tensor
from torch import distributions as td

from worker.detection.latents import (
    LOGVAR_BOUND,
    Bernoulli,
    Categorical,
    Coupling,
    Flow,
    Gaussian,
    Latents,
    Mixture,
    Normal,
)

MANY = 20_000


def families() -> list[Latents]:
    torch.manual_seed(1)
    return [Normal(4), Mixture(4, 3), Flow(4, 4), Categorical(4, 5), Bernoulli(4)]


each_family = pytest.mark.parametrize("family", families(), ids=lambda f: type(f).__name__)


def outputs(family: Latents, n: int = 6, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(n, family.outputs, generator=torch.Generator().manual_seed(2))


def gaussian(mu_BZ: Tensor, logvar_BZ: Tensor) -> td.Normal:
    return td.Normal(mu_BZ, (logvar_BZ / 2).exp())


@each_family
def test_shapes(family: Latents) -> None:
    draw = family.draw(outputs(family, 7))
    assert draw.z_BZ.shape == draw.mu_BZ.shape == draw.logvar_BZ.shape == (7, family.width)
    assert draw.kl_BL.shape == (7, 4)
    assert family.prior(9).shape == (9, family.width)


@each_family
def test_the_code_draws_nothing(family: Latents) -> None:
    out_BE = outputs(family)
    torch.manual_seed(1)
    first_BZ, _ = family.moments(out_BE)
    torch.manual_seed(2)
    second_BZ, _ = family.moments(out_BE)
    assert torch.equal(first_BZ, second_BZ)
    assert not torch.equal(family.draw(out_BE).z_BZ, family.draw(out_BE).z_BZ)


@each_family
def test_the_prior_repeats_with_its_seed(family: Latents) -> None:
    first_NZ, second_NZ = (family.prior(5, torch.Generator().manual_seed(seed)) for seed in (8, 8))
    assert torch.equal(first_NZ, second_NZ)
    assert not torch.equal(first_NZ, family.prior(5, torch.Generator().manual_seed(9)))


@each_family
@pytest.mark.parametrize("scale", [0.0, 1e3, 1e8])
def test_extreme_encoder_outputs_stay_finite_and_so_do_their_gradients(family: Latents, scale: float) -> None:
    out_BE = outputs(family, 50, scale).requires_grad_()
    draw = family.draw(out_BE)
    assert all(part.isfinite().all() for part in draw)
    (draw.kl_BL.mean() + draw.z_BZ.mean()).backward()
    assert out_BE.grad is not None
    assert out_BE.grad.isfinite().all()


@pytest.mark.parametrize("family", [Normal(4), Mixture(4, 3), Flow(4, 4)], ids=lambda f: type(f).__name__)
def test_reparameterised_samples_have_the_posterior_s_moments(family: Gaussian) -> None:
    torch.manual_seed(0)
    draw = family.draw(outputs(family, 1).expand(MANY, -1))
    sigma_Z = (draw.logvar_BZ[0] / 2).exp()
    standard_BZ = (draw.z_BZ - draw.mu_BZ) / sigma_Z
    torch.testing.assert_close(standard_BZ.mean(0), torch.zeros(4), rtol=0, atol=5 / MANY**0.5)
    torch.testing.assert_close(standard_BZ.std(0), torch.ones(4), rtol=0, atol=5 / (2 * MANY) ** 0.5)
    assert torch.corrcoef(standard_BZ.T).fill_diagonal_(0).abs().max() < 5 / MANY**0.5


def test_gradients_pass_through_the_sample() -> None:
    out_BE = outputs(Normal(4)).requires_grad_()
    torch.manual_seed(0)
    draw = Normal(4).draw(out_BE)
    (grad_BE,) = torch.autograd.grad(draw.z_BZ.sum(), out_BE)
    assert torch.equal(grad_BE[:, :4], torch.ones(6, 4))  # dz/dmu = 1
    half_eps_sigma_BZ = (draw.z_BZ - draw.mu_BZ) / 2  # dz/dlogvar = eps σ / 2
    torch.testing.assert_close(grad_BE[:, 4:], half_eps_sigma_BZ, rtol=0.05, atol=1e-6)


def test_normal_kl_is_the_textbook_formula_and_torch_agrees() -> None:
    family = Normal(4)
    mu_BZ, logvar_BZ = family.moments(outputs(family))
    kl_BL = family.draw(outputs(family)).kl_BL
    torch.testing.assert_close(kl_BL.sum(1), -0.5 * (1 + logvar_BZ - mu_BZ**2 - logvar_BZ.exp()).sum(1))
    torch.testing.assert_close(kl_BL, td.kl_divergence(gaussian(mu_BZ, logvar_BZ), td.Normal(0, 1)))
    assert torch.equal(family.kl(torch.zeros(1, 4), torch.zeros(1, 4), torch.randn(1, 4)), torch.zeros(1, 4))


def test_normal_kl_agrees_with_monte_carlo() -> None:
    torch.manual_seed(0)
    family = Normal(4)
    draw = family.draw(outputs(family, 1).expand(MANY, -1))
    log_ratio_B = gaussian(draw.mu_BZ, draw.logvar_BZ).log_prob(draw.z_BZ) - td.Normal(0, 1).log_prob(draw.z_BZ)
    estimate, error = log_ratio_B.sum(1).mean(), log_ratio_B.sum(1).std() / MANY**0.5
    assert abs(estimate - draw.kl_BL[0].sum()) < 4 * error


def test_a_mixture_of_one_standard_gaussian_has_the_normal_family_s_kl() -> None:
    torch.manual_seed(0)
    family = Mixture(4, 1)
    torch.nn.init.zeros_(family.mean_KZ)
    draw = family.draw(outputs(family, 1).expand(MANY, -1))
    exact = Normal(4).draw(outputs(family, 1)).kl_BL.sum()
    kl_B = draw.kl_BL.sum(1)
    assert abs(kl_B.mean() - exact) < 4 * kl_B.std() / MANY**0.5


def test_mixture_density_is_torch_s() -> None:
    torch.manual_seed(0)
    family = Mixture(4, 3)
    torch.nn.init.normal_(family.logits_K)
    torch.nn.init.normal_(family.raw_logvar_KZ)
    sigma_KZ = (LOGVAR_BOUND * torch.tanh(family.raw_logvar_KZ / LOGVAR_BOUND) / 2).exp()
    mixture = td.MixtureSameFamily(
        td.Categorical(logits=family.logits_K), td.Independent(td.Normal(family.mean_KZ, sigma_KZ), 1)
    )
    z_BZ = torch.randn(20, 4)
    torch.testing.assert_close(family.log_prior(z_BZ), mixture.log_prob(z_BZ))
    z_NZ = family.prior(MANY)
    torch.testing.assert_close(z_NZ.mean(0), mixture.mean, rtol=0, atol=0.1)
    torch.testing.assert_close(z_NZ.var(0), mixture.variance, rtol=0.1, atol=0)


def bent_flow(latent: int) -> Flow:
    """A flow that has learned something: its last layers are no longer near zero."""
    torch.manual_seed(0)
    family = Flow(latent, 4)
    for parameter in family.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return family


@pytest.mark.parametrize("latent", [2, 3, 4, 7])
def test_each_coupling_inverts_and_its_log_determinant_is_that_of_its_jacobian(latent: int) -> None:
    coupling = bent_flow(latent).couplings[0]
    assert isinstance(coupling, Coupling)
    z_BZ = torch.randn(5, latent)
    u_BZ, logdet_B = coupling(z_BZ)
    torch.testing.assert_close(coupling.inverse(u_BZ), z_BZ, rtol=1e-4, atol=1e-5)
    for z_Z, logdet in zip(z_BZ, logdet_B, strict=True):
        jacobian_ZZ = torch.autograd.functional.jacobian(lambda z: coupling(z[None])[0][0], z_Z)
        torch.testing.assert_close(torch.linalg.slogdet(jacobian_ZZ).logabsdet, logdet, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_flow_prior_is_a_density_and_prior_draws_from_it() -> None:
    family = bent_flow(2)
    grid = torch.linspace(-15, 15, 601)
    log_density = family.log_prior(torch.cartesian_prod(grid, grid)).double()
    density = log_density.exp() * (grid[1] - grid[0]).double() ** 2
    assert density.sum().item() == pytest.approx(1, abs=0.01)
    mean_Z = (density[:, None] * torch.cartesian_prod(grid, grid)).sum(0)
    torch.testing.assert_close(family.prior(MANY).mean(0).double(), mean_Z, rtol=0, atol=0.05)


@torch.no_grad()
def test_flow_changes_every_latent_within_two_couplings() -> None:
    z_BZ = torch.randn(5, 3)
    first, second, *_ = bent_flow(3).couplings
    u_BZ, _ = second(first(z_BZ)[0])  # two reversals: the order is that of z again
    assert ((u_BZ - z_BZ).abs() > 1e-3).all()


def test_categorical_kl_and_moments_are_torch_s() -> None:
    family = Categorical(4, 5)
    out_BE = outputs(family)
    q = td.Categorical(logits=out_BE.view(6, 4, 5))
    uniform = td.Categorical(logits=torch.zeros(5))
    torch.testing.assert_close(family.draw(out_BE).kl_BL, td.kl_divergence(q, uniform))
    mu_BZ, logvar_BZ = family.moments(out_BE)
    torch.testing.assert_close(mu_BZ.view(6, 4, 5), q.probs)
    torch.testing.assert_close(logvar_BZ.exp().view(6, 4, 5), q.probs * (1 - q.probs))


def test_bernoulli_kl_and_moments_are_torch_s() -> None:
    family = Bernoulli(4)
    out_BE = outputs(family)
    q = td.Bernoulli(logits=out_BE)
    torch.testing.assert_close(family.draw(out_BE).kl_BL, td.kl_divergence(q, td.Bernoulli(0.5)))
    mu_BZ, logvar_BZ = family.moments(out_BE)
    torch.testing.assert_close(mu_BZ, q.mean)
    torch.testing.assert_close(logvar_BZ.exp(), q.variance)


def test_a_certain_posterior_costs_the_whole_entropy_of_the_prior() -> None:
    certain_BE = torch.tensor([[80.0, 0, 0, -80]])
    torch.testing.assert_close(Categorical(1, 4).draw(certain_BE).kl_BL, torch.tensor([[math.log(4)]]))
    torch.testing.assert_close(Bernoulli(4).draw(certain_BE).kl_BL[0, [0, 3]], torch.full((2,), math.log(2)))


def test_relaxed_samples_round_to_the_posterior_s_classes() -> None:
    torch.manual_seed(0)
    categorical, bernoulli = Categorical(1, 3), Bernoulli(1)
    out_BE = torch.tensor([[1.0, 0.0, -1.0]]).expand(MANY, -1)
    share_C = torch.bincount(categorical.draw(out_BE).z_BZ.argmax(1), minlength=3) / MANY
    torch.testing.assert_close(share_C, out_BE[0].softmax(0), rtol=0, atol=0.02)
    ones = (bernoulli.draw(out_BE[:, :1]).z_BZ > 0.5).float().mean()
    assert ones == pytest.approx(torch.tensor(1.0).sigmoid().item(), abs=0.02)


@pytest.mark.parametrize("family", [Categorical(2, 3), Bernoulli(3)], ids=lambda f: type(f).__name__)
def test_discrete_priors_are_uniform_over_codes_of_zeros_and_ones(family: Latents) -> None:
    z_NZ = family.prior(MANY, torch.Generator().manual_seed(0))
    assert set(z_NZ.unique().tolist()) == {0.0, 1.0}
    expected = 1 / 3 if isinstance(family, Categorical) else 1 / 2
    torch.testing.assert_close(z_NZ.mean(0), torch.full((family.width,), expected), rtol=0, atol=0.02)


def test_logvar_never_leaves_its_bound_and_is_itself_within_it() -> None:
    _, logvar_BZ = Normal(1).moments(torch.tensor([[0, -1e9], [0, 1e9], [0, 0.5]]))
    assert logvar_BZ.flatten().tolist() == pytest.approx([-LOGVAR_BOUND, LOGVAR_BOUND, 0.5], abs=1e-3)
