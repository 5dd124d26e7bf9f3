"""The loss, term by term, against torch.distributions and against what each option is for."""

import math

import pytest
import torch
from torch import Tensor
from torch import distributions as td

from training.fitting.objective import ACTIVE_SHARE, ObjectiveSettings, explained_share, loss, weights_for
from worker.detection.model import VAE, Family, Forward, Shape

PLAIN = ObjectiveSettings(kl_weight=1.0, warm_up=0.0)
NAN = float("nan")


def forward_of(xhat_BD: Tensor, kl_BL: Tensor | None = None) -> Forward:
    zeros_BL = torch.zeros(len(xhat_BD), 2)
    return Forward(xhat_BD, zeros_BL, zeros_BL, zeros_BL, zeros_BL if kl_BL is None else kl_BL)


def plant(n: int, seed: int) -> Tensor:
    mix_LD = torch.randn(2, 6, generator=torch.Generator().manual_seed(0))
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, 2, generator=g) @ mix_LD + 0.2 * torch.randn(n, 6, generator=g)


def train(settings: ObjectiveSettings, x_ND: Tensor, family: Family = "normal", steps: int = 300) -> VAE:
    torch.manual_seed(0)
    model = VAE(Shape(features=x_ND.shape[1], hidden=(24,), latent=5, family=family))
    weight_D = weights_for(settings, x_ND)
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
    for step in range(steps):
        x_BD = x_ND[torch.randint(len(x_ND), (128,))]
        terms = loss(model(x_BD), x_BD, settings, weight_D=weight_D, kl_weight=settings.kl_weight_at(step / steps))
        optimiser.zero_grad()
        terms.total.backward()
        optimiser.step()
    return model


@torch.no_grad()
def unexplained(model: VAE, x_ND: Tensor) -> float:
    """Error as a share of the variance: 1 for a model that has collapsed onto the mean."""
    return ((x_ND - model.predict(x_ND)).square().mean(0) / x_ND.var(0)).mean().item()


@torch.no_grad()
def active(model: VAE, x_ND: Tensor) -> int:
    return int((explained_share(*model.encode(x_ND), model.latents.latent) > ACTIVE_SHARE).sum())


def test_terms_are_the_summed_squared_error_and_the_kl() -> None:
    x_BD, xhat_BD, kl_BL = torch.randn(5, 3), torch.randn(5, 3), torch.rand(5, 2)
    terms = loss(forward_of(xhat_BD, kl_BL), x_BD, ObjectiveSettings(kl_weight=0.3))
    torch.testing.assert_close(terms.reconstruction, (x_BD - xhat_BD).square().sum() / 5)
    torch.testing.assert_close(terms.kl, kl_BL.sum() / 5)
    torch.testing.assert_close(terms.total, terms.reconstruction + 0.3 * terms.kl)


def test_kl_weight_rises_linearly_over_the_warm_up() -> None:
    settings = ObjectiveSettings(kl_weight=0.5, warm_up=0.4)
    weights = [settings.kl_weight_at(progress) for progress in (0, 0.1, 0.2, 0.4, 0.7, 1)]
    assert weights == pytest.approx([0, 0.125, 0.25, 0.5, 0.5, 0.5])
    assert ObjectiveSettings(kl_weight=0.5, warm_up=0).kl_weight_at(0) == 0.5
    out = forward_of(torch.zeros(1, 3), torch.ones(1, 2))
    early = loss(out, torch.zeros(1, 3), settings, kl_weight=settings.kl_weight_at(0.2))
    assert early.total.item() == pytest.approx(0.25 * 2)


def test_missing_values_count_for_nothing() -> None:
    x_BD, xhat_BD = torch.randn(4, 3), torch.randn(4, 3, requires_grad=True)
    present_BD = torch.tensor([[True, True, False]]).expand(4, 3)
    holes_BD = torch.where(present_BD, x_BD, NAN)
    for sigma in ("fixed", "shared", "per-feature"):
        settings = ObjectiveSettings(sigma=sigma)
        masked = loss(forward_of(xhat_BD), holes_BD, settings, present_BD=present_BD)
        without = loss(forward_of(xhat_BD[:, :2]), x_BD[:, :2], settings)
        torch.testing.assert_close(masked.total, without.total)
        (grad_BD,) = torch.autograd.grad(masked.total, xhat_BD, retain_graph=True)
        assert grad_BD.isfinite().all()
        assert (grad_BD[:, 2] == 0).all()
        assert (grad_BD[:, :2] != 0).all()


def test_a_batch_with_nothing_present_is_worth_nothing() -> None:
    xhat_BD = torch.randn(4, 3, requires_grad=True)
    nothing_BD = torch.zeros(4, 3, dtype=torch.bool)
    for sigma in ("fixed", "shared", "per-feature"):
        settings = ObjectiveSettings(sigma=sigma)
        terms = loss(forward_of(xhat_BD), torch.full((4, 3), NAN), settings, present_BD=nothing_BD)
        assert terms.total.item() == 0
        assert not torch.autograd.grad(terms.total, xhat_BD)[0].any()


def test_weights_bring_features_of_any_spread_to_the_same_footing() -> None:
    settings = ObjectiveSettings(feature_weights="inverse-variance")
    x_ND = torch.randn(4000, 3) * torch.tensor([0.05, 1.0, 20.0])
    weight_D = weights_for(settings, x_ND)
    torch.testing.assert_close(weight_D * x_ND.var(0), torch.ones(3), rtol=0.01, atol=0)
    mean_BD = x_ND.mean(0).expand_as(x_ND)
    error = loss(forward_of(mean_BD), x_ND, settings, weight_D=weight_D).reconstruction
    assert error.item() == pytest.approx(3, rel=0.01)
    assert torch.equal(weights_for(PLAIN, x_ND), torch.ones(3))


def test_weights_of_constant_and_missing_features_are_bounded() -> None:
    settings = ObjectiveSettings(feature_weights="inverse-variance", spread_floor=0.1)
    x_ND = torch.randn(100, 3)
    x_ND[:, 0], x_ND[:, 1], x_ND[::2, 2] = 4.0, NAN, NAN
    weight_D = weights_for(settings, x_ND)
    assert weight_D[:2].tolist() == pytest.approx([100, 100])
    assert weight_D[2].item() == pytest.approx(1 / x_ND[1::2, 2].var(correction=0).item(), rel=1e-4)


def test_features_of_weight_zero_are_not_asked_for() -> None:
    x_BD, xhat_BD = torch.randn(8, 4), torch.randn(8, 4)
    weight_D = torch.tensor([0.0, 0.0, 1.0, 1.0])
    for sigma in ("fixed", "shared", "per-feature"):
        settings = ObjectiveSettings(sigma=sigma)
        newest = loss(forward_of(xhat_BD), x_BD, settings, weight_D=weight_D)
        torch.testing.assert_close(newest.total, loss(forward_of(xhat_BD[:, 2:]), x_BD[:, 2:], settings).total)


def test_shared_sigma_is_the_likeliest_one_and_the_loss_its_likelihood() -> None:
    x_BD, xhat_BD = torch.randn(50, 4), 0.5 * torch.randn(50, 4)
    nats = loss(forward_of(xhat_BD), x_BD, ObjectiveSettings(sigma="shared")).reconstruction
    best = (x_BD - xhat_BD).square().mean().sqrt()

    def by_torch(sigma: Tensor) -> Tensor:
        return -td.Normal(xhat_BD, sigma).log_prob(x_BD).sum(1).mean()

    torch.testing.assert_close(nats, by_torch(best), rtol=1e-4, atol=1e-4)
    assert nats < by_torch(0.9 * best)
    assert nats < by_torch(1.1 * best)


def test_sigma_per_feature_is_each_feature_s_likelihood() -> None:
    x_BD = torch.randn(50, 3) * torch.tensor([0.1, 1.0, 5.0])
    xhat_BD = torch.zeros(50, 3)
    nats = loss(forward_of(xhat_BD), x_BD, ObjectiveSettings(sigma="per-feature")).reconstruction
    best_D = x_BD.square().mean(0).sqrt()
    torch.testing.assert_close(nats, -td.Normal(0, best_D).log_prob(x_BD).sum(1).mean(), rtol=1e-3, atol=1e-3)
    assert nats < loss(forward_of(xhat_BD), x_BD, ObjectiveSettings(sigma="shared")).reconstruction


def test_learned_sigma_of_a_perfect_reconstruction_is_finite() -> None:
    xhat_BD = torch.ones(5, 3, requires_grad=True)
    for sigma in ("shared", "per-feature"):
        terms = loss(forward_of(xhat_BD), torch.ones(5, 3), ObjectiveSettings(sigma=sigma))
        assert terms.reconstruction.item() == pytest.approx(3 * (0.5 * math.log(2 * math.pi) - 6), rel=1e-5)
        assert torch.autograd.grad(terms.total, xhat_BD)[0].isfinite().all()


def test_free_bits_cost_nothing_and_pull_on_nothing() -> None:
    kl_BL = torch.tensor([[0.1, 0.9], [0.1, 0.9]], requires_grad=True)
    settings = ObjectiveSettings(kl_weight=1.0, warm_up=0, free_bits=0.5)
    terms = loss(forward_of(torch.zeros(2, 3), kl_BL), torch.zeros(2, 3), settings)
    assert terms.kl.item() == pytest.approx(1.0)
    assert terms.total.item() == pytest.approx(0.5 + 0.9)
    (grad_BL,) = torch.autograd.grad(terms.total, kl_BL)
    assert grad_BL.tolist() == [[0, 0.5], [0, 0.5]]


def test_huge_misses_stay_finite() -> None:
    x_BD = torch.tensor([[1e30, -float("inf"), 0.5]])
    xhat_BD = torch.zeros(1, 3, requires_grad=True)
    for sigma in ("fixed", "shared", "per-feature"):
        terms = loss(forward_of(xhat_BD), x_BD, ObjectiveSettings(sigma=sigma), weight_D=torch.full((3,), 1e4))
        assert all(term.isfinite() for term in terms)
        assert torch.autograd.grad(terms.total, xhat_BD)[0].isfinite().all()


def test_the_textbook_balance_collapses_and_ours_does_not() -> None:
    """The reason for this file. A mean over features beside 1·KL is the same as summed errors beside D·KL."""
    x_ND = torch.sigmoid(plant(2000, 1))  # within [0, 1]
    features = x_ND.shape[1]
    textbook = train(ObjectiveSettings(kl_weight=features, warm_up=0), x_ND)
    weighted = train(ObjectiveSettings(kl_weight=0.1, feature_weights="inverse-variance"), x_ND)
    assert active(textbook, x_ND) == 0
    assert unexplained(textbook, x_ND) > 0.9
    assert active(weighted, x_ND) >= 2
    assert unexplained(weighted, x_ND) < 0.2


@pytest.mark.parametrize("sigma", ["shared", "per-feature"])
def test_learned_sigma_balances_error_and_full_kl_by_itself(sigma: str) -> None:
    x_ND = 0.15 * plant(2000, 1)  # so small that a full KL beside the squared error collapses
    settings = ObjectiveSettings.model_validate({"kl_weight": 1, "sigma": sigma})
    balanced = train(settings, x_ND, steps=600)
    assert unexplained(train(PLAIN, x_ND), x_ND) > 0.8
    assert unexplained(balanced, x_ND) < 0.2
    assert active(balanced, x_ND) >= 2


def test_free_bits_keep_latents_from_collapsing() -> None:
    x_ND = 0.3 * plant(2000, 1)
    strict = train(ObjectiveSettings(kl_weight=4), x_ND)
    free = train(ObjectiveSettings(kl_weight=4, free_bits=0.5), x_ND)
    assert active(strict, x_ND) == 0
    assert active(free, x_ND) >= 2


@pytest.mark.parametrize("family", ["normal", "mixture", "flow", "categorical", "bernoulli"])
def test_active_units_tell_a_working_model_from_a_collapsed_one(family: Family) -> None:
    x_ND = plant(2000, 1)
    working = train(ObjectiveSettings(kl_weight=0.1), x_ND, family)
    collapsed = train(ObjectiveSettings(kl_weight=100, warm_up=0), x_ND, family)
    assert active(working, x_ND) >= 2
    assert active(collapsed, x_ND) == 0


def test_explained_share_is_that_of_the_law_of_total_variance() -> None:
    mu_NZ = torch.randn(20_000, 3) * torch.tensor([0.0, 1.0, 3.0])
    share_L = explained_share(mu_NZ, torch.zeros(20_000, 3), 3)
    assert share_L.tolist() == pytest.approx([0, 0.5, 0.9], abs=0.01)
    assert (explained_share(mu_NZ, torch.zeros(20_000, 3), 3) > ACTIVE_SHARE).tolist() == [False, True, True]


def test_a_categorical_latent_counts_once_for_all_its_classes() -> None:
    certain_N3 = torch.eye(3)[torch.arange(300) % 3]
    vague_N3 = torch.full((300, 3), 1 / 3)
    mu_NZ = torch.cat([certain_N3, vague_N3], dim=1)
    share_L = explained_share(mu_NZ, (mu_NZ * (1 - mu_NZ)).clamp(min=1e-9).log(), 2)
    assert share_L.tolist() == pytest.approx([1, 0], abs=1e-6)
