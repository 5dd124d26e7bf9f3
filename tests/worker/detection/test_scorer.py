"""Blocks and lanes: what goes in comes out in its place, whatever the device does meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.worker.untrained import CASES, made, readings
from worker import threads
from worker.detection.model import Family
from worker.detection.reconstructor import BLOCK_ROWS, Reconstructor, predict_in_blocks
from worker.detection.scorer import Cpu, CpuLane, Scorer, Task, blocks, cpu_rows, cuda_rows, pool, scorer_of
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
    index_BW = np.arange(2500)[:, None] % 300 + np.arange(4)
    together_BF = scorer.expected(stack_KF, index_BW)           # in blocks of three sizes
    for size in (11, 100, 256, 300):
        parts = [scorer.expected(stack_KF, index_BW[i : i + size]) for i in range(0, len(index_BW), size)]
        np.testing.assert_array_equal(np.concatenate(parts), together_BF)


@pytest.mark.parametrize(("kind", "family"), CASES)
@pytest.mark.parametrize("features", [1, 3, 7, 12, 38])
def test_the_newest_reading_gets_the_same_bits_in_any_row(kind: str, family: Family, features: int) -> None:
    scorer = scorer_of(made(kind, family, features, 10), 10, features, newest=True)
    everywhere_BF = scorer.expected(readings(10, features).numpy(), np.tile(np.arange(10), (9 * BLOCK_ROWS, 1)))
    assert (everywhere_BF == everywhere_BF[0]).all()


@pytest.mark.parametrize(("length", "sizes", "found"), [
    (0, (64, 16), []),
    (15, (64, 16), [15]),
    (17, (64, 16), [17]),
    (64, (64, 16), [64]),
    (129, (64, 16), [64, 64, 1]),
    (90, (64, 32, 16), [64, 26]),
    (100, (64, 32, 16), [64, 32, 4]),
    (33, (16,), [16, 16, 1]),
])
def test_blocks_are_large_while_there_are_windows_for_them(
    length: int, sizes: tuple[int, ...], found: list[int]
) -> None:
    cut = list(blocks(length, sizes))
    assert [len(range(length)[block]) for block in cut] == found
    assert [row for block in cut for row in range(length)[block]] == list(range(length))


def test_large_blocks_are_for_small_models() -> None:
    assert cpu_rows(20) == 2048
    assert cpu_rows(200) == 1024
    assert cpu_rows(30_000) == BLOCK_ROWS


class Unlike(Reconstructor):
    """Its other blocks come out otherwise, as they might where a kernel for them adds in another order."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def predict(self, x_BD: Tensor, newest: int | None = None) -> Tensor:
        x_BD = x_BD * self.weight
        return x_BD + 2e-7 * x_BD if len(x_BD) != BLOCK_ROWS else x_BD


def test_blocks_that_give_other_bits_are_not_used() -> None:
    stack_KF, index_BW = windows(3000)
    scorer = scorer_of(Unlike(), WINDOW, FEATURES)
    np.testing.assert_array_equal(scorer.expected(stack_KF, index_BW), stack_KF[index_BW].reshape(3000, -1))


class Deferred(Cpu):
    """A device that does nothing before it is waited for, as a busy GPU may."""

    def __init__(self, *of: object) -> None:
        super().__init__(*of)  # type: ignore[arg-type]
        self.at_work = self.most_at_work = 0

    def lanes(self) -> Sequence[DeferredLane]:
        return DeferredLane(self), DeferredLane(self)


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


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = threads.most()
    threads.choose(3)
    pool.cache_clear()
    yield
    pool().shutdown()
    pool.cache_clear()
    threads.choose(before)


@pytest.mark.parametrize(("kind", "family"), CASES)
def test_several_threads_give_the_bits_of_one(kind: str, family: Family, request: pytest.FixtureRequest) -> None:
    model = made(kind, family, FEATURES, WINDOW)
    stack_KF, index_BW = windows(9000, 9000)
    threads.choose(1)
    alone_BD = scorer_of(model, WINDOW, FEATURES).expected(stack_KF, index_BW)
    request.getfixturevalue("three_threads")
    scorer = scorer_of(model, WINDOW, FEATURES)
    assert len(scorer.lanes) == 3
    for length in (9000, 8999, 2500, 300, 1, 0):
        np.testing.assert_array_equal(scorer.expected(stack_KF, index_BW[:length]), alone_BD[:length])


@pytest.mark.usefixtures("three_threads")
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="no list of a process's threads here")
def test_a_thread_is_alone_with_its_block() -> None:
    """A small product asks torch for no count, and OpenMP's own is all of the cores. It starts none."""
    def running() -> int:
        return len(list(Path("/proc/self/task").iterdir()))

    pool().submit(int).result()
    before = running()
    x_BD, weight, bias = torch.zeros(256, 20), torch.zeros(20, 64), torch.zeros(64)
    pool().submit(torch.addmm, bias, x_BD, weight).result()
    assert running() <= before


class Witness(Cpu):
    """Knows who was at work; fails where a reading is 13."""

    def __init__(self) -> None:
        model = made("vae", "normal", FEATURES, WINDOW)
        super().__init__(model, Task(WINDOW, FEATURES, newest=False, rows=256))
        self.who: list[str] = []

    def predict(self, x_RD: Tensor) -> Tensor:
        self.who.append(threading.current_thread().name)
        if (x_RD == 13).any():
            raise ValueError("thirteen")
        return super().predict(x_RD)


@pytest.mark.usefixtures("three_threads")
def test_a_batch_of_one_block_is_done_by_who_asks() -> None:
    """No other thread need wake for it."""
    device, (stack_KF, index_BW) = Witness(), windows(600)
    scorer, us = Scorer(device, device.task), threading.current_thread().name
    scorer.expected(stack_KF, index_BW[:256])
    assert device.who == [us]
    scorer.expected(stack_KF, index_BW)
    others = {name for name in device.who if name.startswith("arithmetic")}
    assert len(device.who) == 4
    assert device.who.count(us) == 2
    assert others


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize("at", [0, 300, 599])
def test_what_fails_in_a_thread_fails_for_who_asks(at: int) -> None:
    device, (stack_KF, index_BW) = Witness(), windows(600, 600)
    index_BW = np.arange(600)[:, None] % 590 + np.arange(WINDOW)
    scorer = Scorer(device, device.task)
    before_BD = scorer.expected(stack_KF, index_BW)
    spoilt_KF = stack_KF.copy()
    spoilt_KF[index_BW[at, -1]] = 13
    with pytest.raises(ValueError, match="thirteen"):
        scorer.expected(spoilt_KF, index_BW)
    np.testing.assert_array_equal(scorer.expected(stack_KF, index_BW), before_BD)


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
