from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from worker.detection.baselines import PCA, ZChart
from worker.detection.model import Shape, build


def correlated(n: int, features: int = 8, factors: int = 2, noise: float = 0.1) -> Tensor:
    """n readings of `features` sensors that follow `factors` hidden causes, around 5."""
    g = torch.Generator().manual_seed(0)
    mix_LD = torch.randn(factors, features, generator=g)
    return 5 + torch.randn(n, factors, generator=g) @ mix_LD + noise * torch.randn(n, features, generator=g)


def test_z_chart_expects_the_mean_whatever_comes() -> None:
    x_ND = correlated(500)
    chart = ZChart.fit(x_ND)
    torch.testing.assert_close(chart.predict(x_ND), x_ND.mean(0).expand(500, -1))
    assert torch.equal(chart.predict(x_ND), chart.predict(x_ND * 100))


def test_pca_finds_the_hidden_causes() -> None:
    x_ND = correlated(5000)
    pca = PCA.fit(x_ND)
    assert pca.components == 2
    rest_ND = x_ND - pca.predict(x_ND)
    assert rest_ND.var() == pytest.approx(0.1**2 * 6 / 8, rel=0.1)  # 6 of 8 directions of the noise are left


@pytest.mark.parametrize("explained", [0.3, 0.7, 0.95, 0.999])
def test_pca_is_the_truncated_singular_value_decomposition(explained: float) -> None:
    x_ND = correlated(200, features=12, factors=5, noise=0.5)
    pca = PCA.fit(x_ND, explained)
    k = pca.components
    mean_D = x_ND.double().mean(0)
    u_NR, s_R, v_RD = torch.linalg.svd(x_ND.double() - mean_D, full_matrices=False)
    share_R = (s_R**2).cumsum(0) / (s_R**2).sum()
    assert share_R[k - 1] >= explained
    assert k == 1 or share_R[k - 2] < explained
    best_ND = mean_D + u_NR[:, :k] * s_R[:k] @ v_RD[:k]
    torch.testing.assert_close(pca.predict(x_ND), best_ND.float(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(pca.components_KD @ pca.components_KD.T, torch.eye(k), rtol=0, atol=1e-5)


def test_pca_does_not_reconstruct_what_breaks_the_correlation() -> None:
    x_ND = correlated(1000)
    pca = PCA.fit(x_ND)
    broken_ND = x_ND.clone()
    broken_ND[:, 3] += 3
    residual_ND = (broken_ND - pca.predict(broken_ND)).abs()
    assert (residual_ND.argmax(1) == 3).float().mean() > 0.95


def test_pca_of_all_the_variance_stops_at_the_rank() -> None:
    assert PCA.fit(correlated(1000, noise=0), explained=1.0).components <= 8
    few_ND = correlated(3)
    torch.testing.assert_close(PCA.fit(few_ND, explained=1.0).predict(few_ND), few_ND, rtol=1e-4, atol=1e-4)


def test_constant_readings_are_their_own_model() -> None:
    x_ND = torch.full((50, 4), 7.25)
    pca, chart = PCA.fit(x_ND), ZChart.fit(x_ND)
    assert pca.components == 1
    torch.testing.assert_close(pca.predict(x_ND), x_ND)
    assert torch.equal(chart.predict(x_ND), x_ND)


def test_a_large_offset_costs_pca_no_precision() -> None:
    x_ND = correlated(2000)
    far_ND = x_ND + 1000
    near, far = PCA.fit(x_ND), PCA.fit(far_ND)
    assert far.components == near.components
    torch.testing.assert_close(far.predict(far_ND) - 1000, near.predict(x_ND), rtol=0, atol=2e-3)


@pytest.mark.parametrize("kind", ["pca", "zchart"])
def test_weights_survive_safetensors(kind: str, tmp_path: Path) -> None:
    x_ND = correlated(300)
    fitted = PCA.fit(x_ND) if kind == "pca" else ZChart.fit(x_ND)
    save_file(fitted.state_dict(), tmp_path / "model.safetensors")
    latent = fitted.components if isinstance(fitted, PCA) else 1
    loaded = build("pca" if kind == "pca" else "zchart", Shape(features=8, latent=latent))
    loaded.load_state_dict(load_file(tmp_path / "model.safetensors"))
    assert torch.equal(loaded.predict(x_ND), fitted.predict(x_ND))
