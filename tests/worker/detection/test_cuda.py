"""Scoring on a GPU: the CPU's scores to rounding, and the same bits in any batch. Skipped where there is none."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from tests.worker.untrained import CASES, made, readings
from worker.detection.model import VAE, Family, Shape
from worker.detection.reconstructor import Reconstructor
from worker.detection.scorer import Scorer, scorer_of
from worker.records import F32, I64

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is visible")

CUDA = torch.device("cuda")
SHAPES = [(20, 1), (38, 10)]            # features, window: gathered by the host, and by the card


def on_card(model: Reconstructor) -> Reconstructor:
    return copy.deepcopy(model).to(CUDA).eval()


def windows(n: int, features: int, window: int) -> tuple[F32, I64]:
    start_B = np.random.default_rng(4).integers(0, n, n)
    return readings(n + window, features).numpy(), start_B[:, None] + np.arange(window)


@pytest.mark.parametrize(("kind", "family"), CASES)
@pytest.mark.parametrize(("features", "window"), SHAPES)
@pytest.mark.parametrize("newest", [False, True])
def test_the_cpu_says_the_same(kind: str, family: Family, features: int, window: int, newest: bool) -> None:
    model = made(kind, family, features, window)
    stack_KF, index_BW = windows(40_000, features, window)
    here_BN = scorer_of(model, window, features, newest=newest).expected(stack_KF, index_BW)
    there_BN = scorer_of(on_card(model), window, features, newest=newest).expected(stack_KF, index_BW)
    np.testing.assert_allclose(there_BN, here_BN, rtol=1e-5, atol=1e-5)


@pytest.fixture(params=SHAPES, ids=str)
def scored(request: pytest.FixtureRequest) -> tuple[Scorer, F32, I64]:
    features, window = request.param
    model = on_card(made("vae", "normal", features, window))
    return scorer_of(model, window, features, newest=True), *windows(40_000, features, window)


def test_the_same_bits_in_any_batch_and_every_time(scored: tuple[Scorer, F32, I64]) -> None:
    scorer, stack_KF, index_BW = scored
    together_BF = scorer.expected(stack_KF, index_BW)
    for size in (20_000, 4096, 777):
        parts = [scorer.expected(stack_KF, index_BW[i : i + size]) for i in range(0, len(index_BW), size)]
        np.testing.assert_array_equal(np.concatenate(parts), together_BF)
    alone_BF = np.concatenate([scorer.expected(stack_KF, index_BW[i : i + 1]) for i in range(0, 40_000, 997)])
    np.testing.assert_array_equal(alone_BF, together_BF[::997])
    order_B = np.random.default_rng(1).permutation(len(index_BW))
    np.testing.assert_array_equal(scorer.expected(stack_KF, index_BW[order_B]), together_BF[order_B])


def test_the_same_bits_of_another_scorer_of_the_model() -> None:
    model = on_card(made("vae", "normal", 20, 1))
    asked = windows(5000, 20, 1)
    first_BF, second_BF = (scorer_of(model, 1, 20).expected(*asked) for _ in range(2))
    np.testing.assert_array_equal(first_BF, second_BF)


def test_a_large_model_gives_the_same_bits_in_any_place_of_a_block() -> None:
    torch.manual_seed(3)
    model = VAE(Shape(features=500, window=60, hidden=(1024,), latent=10)).to(CUDA).eval()
    scorer = scorer_of(model, 60, 500, newest=True)
    stack_KF = readings(60, 500).numpy()
    everywhere_BF = scorer.expected(stack_KF, np.tile(np.arange(60), (5000, 1)))
    assert (everywhere_BF == everywhere_BF[0]).all()


def test_nan_in_a_reading_spoils_its_windows_and_no_other(scored: tuple[Scorer, F32, I64]) -> None:
    scorer, stack_KF, index_BW = scored
    clean_BF = scorer.expected(stack_KF, index_BW)
    stack_KF[index_BW[100, 0], 2] = np.nan
    spoilt_B = (index_BW == index_BW[100, 0]).any(1)
    found_BF = scorer.expected(stack_KF, index_BW)
    assert np.isnan(found_BF[spoilt_B]).all()
    np.testing.assert_array_equal(found_BF[~spoilt_B], clean_BF[~spoilt_B])


def test_a_model_that_is_replaced_leaves_the_card() -> None:
    def serve(seed: int) -> None:
        torch.manual_seed(seed)
        model = VAE(Shape(features=40, window=5, hidden=(512,))).to(CUDA).eval()
        assert np.isfinite(scorer_of(model, 5, 40).expected(*windows(20_000, 40, 5))).all()

    serve(0)                            # libraries set themselves up at first use, and stay
    before = torch.cuda.memory_allocated()
    for seed in range(1, 4):
        serve(seed)
        assert torch.cuda.memory_allocated() == before


def test_products_are_those_that_torch_is_set_to() -> None:
    model = on_card(made("vae", "normal", 512, 1))
    asked = windows(5000, 512, 1)
    exact_BN = scorer_of(model, 1, 512).expected(*asked)
    torch.set_float32_matmul_precision("high")
    try:
        coarse = scorer_of(model, 1, 512)
    finally:
        torch.set_float32_matmul_precision("highest")
    miss = np.abs(coarse.expected(*asked) - exact_BN).max() / np.abs(exact_BN).max()
    assert 1e-6 < miss < 1e-2
    np.testing.assert_array_equal(scorer_of(model, 1, 512).expected(*asked), exact_BN)


def test_what_was_scored_stays_when_more_is(scored: tuple[Scorer, F32, I64]) -> None:
    scorer, stack_KF, index_BW = scored
    first_BF = scorer.expected(stack_KF, index_BW)
    kept_BF = first_BF.copy()
    for _ in range(3):
        scorer.expected(stack_KF + 1, index_BW)
    np.testing.assert_array_equal(first_BF, kept_BF)
