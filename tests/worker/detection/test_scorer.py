"""Blocks and lanes: what goes in comes out in its place, whatever the device does meanwhile."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.worker.untrained import CASES, made, readings
from worker.detection.model import Family
from worker.detection.reconstructor import BLOCK_ROWS, predict_in_blocks
from worker.detection.scorer import Cpu, CpuLane, Scorer, Task, cuda_rows, scorer_of
from worker.records import F32, I64

WINDOW, FEATURES = 7, 5


def windows(n: int, stack_rows: int = 90) -> tuple[F32, I64]:
    """A stack, and n windows of it that overlap and repeat."""
    start_B = np.random.default_rng(4).integers(0, stack_rows - WINDOW, n)
    return readings(stack_rows, FEATURES).numpy(), start_B[:, None] + np.arange(WINDOW)


@pytest.mark.parametrize(("kind", "family"), CASES)
def test_all_of_a_window_is_what_the_model_says_of_it(kind: str, family: Family) -> None:
    model = made(kind, family, FEATURES, WINDOW)
    stack_KF, index_BW = windows(BLOCK_ROWS * 3 + 44)
    expected_BD = predict_in_blocks(model, torch.from_numpy(stack_KF[index_BW]).flatten(1))
    found_BD = scorer_of(model, WINDOW, FEATURES).expected(stack_KF, index_BW)
    np.testing.assert_array_equal(found_BD, expected_BD.numpy())


@pytest.mark.parametrize(("kind", "family"), CASES)
def test_the_newest_reading_alone_is_the_same_to_rounding(kind: str, family: Family) -> None:
    model = made(kind, family, FEATURES, WINDOW)
    stack_KF, index_BW = windows(300)
    whole_BD = scorer_of(model, WINDOW, FEATURES).expected(stack_KF, index_BW)
    newest_BF = scorer_of(model, WINDOW, FEATURES, newest=True).expected(stack_KF, index_BW)
    np.testing.assert_allclose(newest_BF, whole_BD[:, -FEATURES:], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("kind", "family"), CASES)
@pytest.mark.parametrize("features", [1, 3, 12, 38])
def test_the_newest_reading_gets_the_same_bits_in_any_batch(kind: str, family: Family, features: int) -> None:
    scorer = scorer_of(made(kind, family, features, 4), 4, features, newest=True)
    stack_KF = readings(400, features).numpy()
    index_BW = np.arange(300)[:, None] + np.arange(4)
    together_BF = scorer.expected(stack_KF, index_BW)
    for size in (1, 7, 256):
        parts = [scorer.expected(stack_KF, index_BW[i : i + size]) for i in range(0, len(index_BW), size)]
        np.testing.assert_array_equal(np.concatenate(parts), together_BF)


@pytest.mark.parametrize(("kind", "family"), CASES)
@pytest.mark.parametrize("features", [1, 3, 7, 12, 38])
def test_the_newest_reading_gets_the_same_bits_in_any_row(kind: str, family: Family, features: int) -> None:
    scorer = scorer_of(made(kind, family, features, 10), 10, features, newest=True)
    everywhere_BF = scorer.expected(readings(10, features).numpy(), np.tile(np.arange(10), (BLOCK_ROWS, 1)))
    assert (everywhere_BF == everywhere_BF[0]).all()


class Deferred(Cpu):
    """A device that does nothing before it is waited for, as a busy GPU may."""

    def __init__(self, *of: object) -> None:
        super().__init__(*of)  # type: ignore[arg-type]
        self.at_work = self.most_at_work = 0

    def lane(self) -> DeferredLane:  # type: ignore[override]
        return DeferredLane(self)


class DeferredLane(CpuLane):
    def __init__(self, device: Deferred) -> None:
        super().__init__(device)
        self._device = device
        self._asked: tuple[I64, F32] | None = None

    def start(self, index_BW: I64, expected_BN: F32) -> None:
        assert self._asked is None, "filled again before it was emptied"
        self._asked = index_BW, expected_BN
        self._device.at_work += 1
        self._device.most_at_work = max(self._device.most_at_work, self._device.at_work)

    def finish(self) -> None:
        if self._asked is not None:
            super().start(*self._asked)
            self._asked = None
            self._device.at_work -= 1


@pytest.mark.parametrize("length", [0, 1, 16, 17, 32, 33, 100])
def test_two_lanes_work_while_the_host_goes_on(length: int) -> None:
    model = made("vae", "normal", FEATURES, WINDOW)
    stack_KF, index_BW = windows(length)
    task = Task(WINDOW, FEATURES, newest=True, rows=16)
    device = Deferred(model, task)
    found_BF = Scorer(device, task).expected(stack_KF, index_BW)
    at_once_BF = scorer_of(model, WINDOW, FEATURES, newest=True, rows=16).expected(stack_KF, index_BW)
    np.testing.assert_array_equal(found_BF, at_once_BF)
    assert device.at_work == 0
    assert device.most_at_work == min(2, -(-length // 16))


def test_nan_in_a_reading_spoils_its_windows_and_no_other() -> None:
    scorer = scorer_of(made("vae", "normal", FEATURES, WINDOW), WINDOW, FEATURES, newest=True)
    stack_KF, index_BW = windows(200)
    clean_BF = scorer.expected(stack_KF, index_BW)
    stack_KF[40, 2] = np.nan
    spoilt_B = (index_BW == 40).any(1)
    found_BF = scorer.expected(stack_KF, index_BW)
    assert 0 < spoilt_B.sum() < 200
    assert np.isnan(found_BF[spoilt_B]).all()
    np.testing.assert_array_equal(found_BF[~spoilt_B], clean_BF[~spoilt_B])


def test_blocks_that_cannot_be() -> None:
    for rows in (-16, 250):
        with pytest.raises(ValueError, match="multiple of 16"):
            scorer_of(made("vae", "normal", 3, 1), 3, 1, rows=rows)


def test_a_block_on_a_card_is_large_for_small_models() -> None:
    assert cuda_rows(4_000) == 32_768
    assert cuda_rows(62_000_000) == 4096
    assert cuda_rows(10**12) == 1024
