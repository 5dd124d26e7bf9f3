"""The VAE: what Shape admits, what forward and predict give, and that every family learns what a VAE should."""

from functools import cache
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor

from worker.detection.baselines import PCA, ZChart
from worker.detection.model import VAE, Family, Shape, build

FAMILIES: list[Family] = ["normal", "mixture", "flow", "categorical", "bernoulli"]
FEATURES, FACTORS, NOISE = 8, 2, 0.2

each_family = pytest.mark.parametrize("family", FAMILIES)


def plant(n: int, seed: int) -> Tensor:
    """n standardised readings of 8 sensors that follow 2 hidden causes, with a little noise of their own."""
    mix_LD = torch.randn(FACTORS, FEATURES, generator=torch.Generator().manual_seed(0))
    mix_LD = mix_LD / mix_LD.norm(dim=0)
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, FACTORS, generator=g) @ mix_LD + NOISE * torch.randn(n, FEATURES, generator=g)


def trained(shape: Shape, x_ND: Tensor, input_noise: float = 0.0, steps: int = 500, kl_weight: float = 0.1) -> VAE:
    torch.manual_seed(0)
    model = VAE(shape)
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(steps):
        x_BD = x_ND[torch.randint(len(x_ND), (128,))]
        out = model(x_BD + input_noise * torch.randn_like(x_BD))
        loss = ((x_BD - out.xhat_BD) ** 2).sum(-1) + kl_weight * out.kl_B
        optimiser.zero_grad()
        loss.mean().backward()
        optimiser.step()
    return model


@cache
def learned(family: Family) -> VAE:
    return trained(Shape(features=FEATURES, hidden=(32,), latent=6, family=family, components=4), plant(2000, 1))


@each_family
@pytest.mark.parametrize("hidden", [(), (16,), (24, 12, 9)])
@pytest.mark.parametrize("window", [1, 3])
def test_shapes(family: Family, hidden: tuple[int, ...], window: int) -> None:
    model = VAE(Shape(features=5, window=window, hidden=hidden, latent=4, classes=3, family=family))
    x_BD = torch.randn(7, 5 * window)
    out = model(x_BD)
    width = 12 if family == "categorical" else 4
    assert out.xhat_BD.shape == x_BD.shape
    assert out.z_BZ.shape == out.mu_BZ.shape == out.logvar_BZ.shape == (7, width)
    assert out.kl_B.shape == (7,)
    torch.testing.assert_close(out.kl_B, out.kl_BL.sum(1))
    assert model.predict(x_BD).shape == model.reconstruct(x_BD).shape == x_BD.shape
    assert model.generate(3).shape == (3, 5 * window)
    assert model.decode(out.z_BZ).shape == x_BD.shape


@each_family
@pytest.mark.parametrize("activation", ["relu", "tanh", "silu", "gelu"])
def test_gradient_reaches_every_parameter(family: Family, activation: str) -> None:
    torch.manual_seed(0)
    shape = Shape.model_validate(
        {"features": 6, "hidden": (12, 8), "latent": 4, "family": family, "activation": activation}
    )
    model = VAE(shape)
    out = model(torch.randn(64, 6))
    (((out.xhat_BD - 1) ** 2).sum(-1) + out.kl_B).mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


@each_family
def test_predict_is_the_decoder_at_the_posterior_mean_and_draws_nothing(family: Family) -> None:
    model = VAE(Shape(features=6, latent=4, family=family))
    x_BD = torch.randn(9, 6)
    torch.manual_seed(1)
    first_BD = model.predict(x_BD)
    torch.manual_seed(2)
    assert torch.equal(model.predict(x_BD), first_BD)
    assert torch.equal(model.decode(model.encode(x_BD)[0]), first_BD)
    assert torch.equal(model.encode(x_BD)[0], model(x_BD).mu_BZ)
    assert not torch.equal(model(x_BD).xhat_BD, first_BD)


@each_family
def test_learns_what_its_sensors_have_in_common(family: Family) -> None:
    x_ND, model = plant(2000, seed=2), learned(family)
    with torch.no_grad():
        error = (x_ND - model.predict(x_ND)).square().mean()
    share = (error / x_ND.var(0).mean()).item()
    assert share < 0.25  # the mean alone gives 1; the noise, which nothing can predict, is 0.04


@each_family
def test_an_error_shows_on_the_sensor_that_broke_with_the_others(family: Family) -> None:
    broken_ND, model = plant(1000, seed=3), learned(family)
    broken_ND[:, 5] += 4
    with torch.no_grad():
        residual_ND = (broken_ND - model.predict(broken_ND)).abs()
    assert (residual_ND.argmax(1) == 5).float().mean() > 0.6  # 1 in 8 by chance


@each_family
def test_generated_readings_look_like_the_plant_s(family: Family) -> None:
    x_ND = plant(4000, seed=4)
    new_ND = learned(family).generate(4000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(new_ND.mean(0), x_ND.mean(0), rtol=0, atol=0.35)
    ratio_D = new_ND.std(0) / x_ND.std(0)
    assert ((ratio_D > 0.6) & (ratio_D < 1.5)).all(), ratio_D
    assert (torch.corrcoef(new_ND.T) - torch.corrcoef(x_ND.T)).abs().mean() < 0.2


def test_generate_repeats_with_its_seed() -> None:
    model = learned("normal")
    first_ND, second_ND = (model.generate(20, torch.Generator().manual_seed(seed)) for seed in (1, 1))
    assert torch.equal(first_ND, second_ND)
    assert not torch.equal(first_ND, model.generate(20, torch.Generator().manual_seed(2)))
    assert not first_ND.requires_grad


def test_reconstruct_takes_noise_out_and_better_when_trained_to() -> None:
    clean_ND = plant(4000, seed=5)
    noisy_ND = clean_ND + torch.randn(4000, FEATURES, generator=torch.Generator().manual_seed(6))
    plain = learned("normal")
    denoiser = trained(plain.shape, plant(2000, 1), input_noise=1.0)

    def error(x_ND: Tensor) -> float:
        return (x_ND - clean_ND).square().mean().item()

    with torch.no_grad():
        assert error(plain.reconstruct(noisy_ND)) < 0.6 * error(noisy_ND)
        assert error(denoiser.reconstruct(noisy_ND)) < 0.9 * error(plain.reconstruct(noisy_ND))


def test_a_sigmoid_decoder_stays_within_its_range_and_learns() -> None:
    x_ND = torch.sigmoid(plant(2000, 1))
    shape = Shape(features=FEATURES, hidden=(32,), latent=4, output="sigmoid")
    model = trained(shape, x_ND, kl_weight=0.01)
    with torch.no_grad():
        xhat_ND = model.predict(x_ND)
        far_ND = model.predict(x_ND * 1e30)
    assert (xhat_ND - x_ND).square().mean() < 0.3 * x_ND.var(0).mean()
    for y_ND in (xhat_ND, far_ND, model.generate(100)):
        assert ((y_ND >= 0) & (y_ND <= 1)).all()


@each_family
def test_a_huge_reading_in_training_leaves_loss_and_gradients_finite(family: Family) -> None:
    torch.manual_seed(0)
    model = VAE(Shape(features=6, latent=4, family=family))
    x_BD = torch.randn(32, 6)
    x_BD[3] = 1e30
    x_BD[4, 2] = -float("inf")
    out = model(x_BD)
    assert all(part.isfinite().all() for part in out)
    (out.xhat_BD.mean() + out.kl_B.mean()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@each_family
def test_weights_survive_safetensors(family: Family, tmp_path: Path) -> None:
    model = learned(family)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    loaded = build("vae", Shape.model_validate_json(model.shape.model_dump_json()))
    x_BD = plant(10, seed=7)
    assert not torch.equal(loaded.predict(x_BD), model.predict(x_BD))
    loaded.load_state_dict(load_file(tmp_path / "model.safetensors"))
    assert torch.equal(loaded.predict(x_BD), model.predict(x_BD))


def test_the_same_seed_makes_the_same_model() -> None:
    shape = Shape(features=FEATURES, hidden=(8,), latent=3)
    one, two = (trained(shape, plant(200, 1), steps=5) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_build_makes_each_kind() -> None:
    shape = Shape(features=5, window=2, latent=3)
    pca = build("pca", shape)
    assert isinstance(build("vae", shape), VAE)
    assert isinstance(pca, PCA)
    assert pca.components_KD.shape == (3, 10)
    assert isinstance(build("zchart", shape), ZChart)
    assert all(build(kind, shape).predict(torch.zeros(2, 10)).shape == (2, 10) for kind in ("vae", "pca", "zchart"))


def test_defaults_are_the_textbook_s() -> None:
    shape = Shape(features=20)
    assert (shape.hidden, shape.latent, shape.window, shape.family, shape.inputs) == ((64,), 10, 1, "normal", 20)
    assert Shape(features=20, window=40).inputs == 800


@pytest.mark.parametrize(
    "wrong",
    [
        {"features": 0},
        {"features": 10**9},
        {"features": 5, "window": 0},
        {"features": 5, "hidden": (0,)},
        {"features": 5, "hidden": (64,) * 9},
        {"features": 5, "latent": 0},
        {"features": 5, "family": "cauchy"},
        {"features": 5, "classes": 1},
        {"features": 5, "depth": 3},
        {"features": 5, "hidden": (10**6,)},
    ],
    ids=str,
)
def test_shape_refuses_what_cannot_be_built(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Shape.model_validate(wrong)


def test_shape_refuses_within_bounds_what_is_too_large_together() -> None:
    with pytest.raises(ValidationError, match=r"smaller window or narrower layers"):
        Shape(features=4096, window=1024)


def test_shape_bounds_the_weights_that_are_really_made() -> None:
    def weights(latent: int) -> int:
        shape = Shape(features=38, window=40, hidden=(8192, 4096), latent=latent)
        with torch.device("meta"):
            return sum(p.numel() for p in VAE(shape).parameters())

    assert 90_000_000 < weights(10) < 100_000_000
    with pytest.raises(ValidationError, match="about 10"):
        weights(1000)


def test_a_flow_needs_two_latents() -> None:
    with pytest.raises(ValidationError, match="take 2 or more"):
        Shape(features=5, family="flow", latent=1)
    VAE(Shape(features=5, family="flow", latent=2))


def test_shape_is_frozen() -> None:
    with pytest.raises(ValidationError):
        Shape(features=5).latent = 3  # type: ignore[misc]
