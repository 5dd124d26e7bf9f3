"""Bit-equal scores: a reading's reconstruction may depend on the reading and the model, and on nothing around it."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import nn

from tests.worker.untrained import CASES, made, readings
from worker.detection.model import Family
from worker.detection.reconstructor import BLOCK_ROWS, LIMIT, Linear, aligned, predict_in_blocks


@pytest.mark.parametrize(("kind", "family"), CASES)
@pytest.mark.parametrize("features", [3, 20, 38])
@pytest.mark.parametrize("window", [1, 10, 40])
def test_a_row_scores_the_same_bits_wherever_it_stands(kind: str, family: Family, features: int, window: int) -> None:
    model = made(kind, family, features, window)
    x_BD = readings(BLOCK_ROWS + 44, features * window)
    whole_BD = predict_in_blocks(model, x_BD)

    alone_BD = torch.cat([predict_in_blocks(model, x_BD[i : i + 1]) for i in range(0, len(x_BD), 23)])
    assert torch.equal(alone_BD, whole_BD[::23])

    order_B = torch.randperm(len(x_BD), generator=torch.Generator().manual_seed(7))
    assert torch.equal(predict_in_blocks(model, x_BD[order_B]), whole_BD[order_B])

    shifted_BD = torch.cat([predict_in_blocks(model, part_BD) for part_BD in x_BD.split([1, 6, 30, 100, 163])])
    assert torch.equal(shifted_BD, whole_BD)

    everywhere_BD = predict_in_blocks(model, x_BD[:1].expand(BLOCK_ROWS, -1))
    assert torch.equal(everywhere_BD, whole_BD[:1].expand(BLOCK_ROWS, -1))


@contextmanager
def running_on(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_bit_equal_for_narrow_and_odd_layers_and_any_number_of_threads(threads: int) -> None:
    with running_on(threads):
        unequal = [
            (wide, narrow)
            for wide in [*range(1, 40), 63, 69, 114, 799]
            for narrow in [1, 2, 3, 4, 6, 10, 11, 12, 17, 64]
            if not same_everywhere(Linear(wide, narrow))
        ]
    assert unequal == []


@torch.inference_mode()
def same_everywhere(layer: nn.Linear) -> bool:
    y_RN = layer(torch.randn(1, layer.in_features).expand(BLOCK_ROWS, -1).contiguous())
    return torch.equal(y_RN, y_RN[:1].expand(BLOCK_ROWS, -1))


def test_block_sizes_and_threads_agree_to_float32_rounding() -> None:
    model = made("vae", "normal", 38, 10)
    x_BD = readings(300, 380)
    by_256_BD = predict_in_blocks(model, x_BD)
    for rows in (16, 64, 1024):
        torch.testing.assert_close(predict_in_blocks(model, x_BD, rows), by_256_BD, rtol=1e-5, atol=1e-5)
    for threads in (1, 2, 3):
        with running_on(threads):
            torch.testing.assert_close(predict_in_blocks(model, x_BD), by_256_BD, rtol=1e-5, atol=1e-5)


def test_where_the_input_lies_in_memory_does_not_matter() -> None:
    model = made("vae", "normal", 20, 1)
    x_BD = readings(50, 20)
    off_by_one_BD = torch.cat([torch.zeros(1), x_BD.flatten()])[1:].view(50, 20)
    strided_BD = torch.cat([x_BD, x_BD], dim=1)[:, :20]
    for other_BD in (off_by_one_BD, strided_BD, x_BD.T.contiguous().T):
        assert torch.equal(predict_in_blocks(model, other_BD), predict_in_blocks(model, x_BD))


def test_other_rows_of_any_size_change_nothing() -> None:
    model = made("vae", "normal", 20, 1)
    x_BD = readings(40, 20)
    beside_BD = x_BD.clone()
    beside_BD[::2] = torch.tensor([1e30, float("nan"), float("inf"), -float("inf")]).repeat(5)
    assert torch.equal(predict_in_blocks(model, beside_BD)[1::2], predict_in_blocks(model, x_BD)[1::2])


@pytest.mark.parametrize(("kind", "family"), CASES)
def test_huge_readings_are_reconstructed_as_numbers(kind: str, family: Family) -> None:
    model = made(kind, family, 20, 1)
    x_BD = readings(8, 20)
    x_BD[:4] *= 1e30
    x_BD[4:, 3] = torch.tensor([1e38, -1e38, float("inf"), LIMIT])
    assert predict_in_blocks(model, x_BD).isfinite().all()


def test_empty_batches_and_impossible_blocks() -> None:
    model = made("vae", "normal", 20, 1)
    assert predict_in_blocks(model, torch.empty(0, 20)).shape == (0, 20)
    for rows in (0, -16, 250):
        with pytest.raises(ValueError, match="multiple of 16"):
            predict_in_blocks(model, torch.zeros(1, 20), rows)


def test_nothing_is_kept_for_gradients() -> None:
    assert not predict_in_blocks(made("vae", "normal", 20, 1), readings(5, 20)).requires_grad


@pytest.mark.parametrize("columns", [1, 15, 16, 17, 33])
def test_aligned_keeps_the_values_and_moves_the_rows(columns: int) -> None:
    x_BK = readings(9, columns)
    assert torch.equal(aligned(x_BK), x_BK)
    assert aligned(x_BK).stride(0) % 16 == 0


def test_linear_is_torch_linear() -> None:
    ours, theirs = Linear(33, 7), nn.Linear(33, 7)
    theirs.load_state_dict(ours.state_dict())
    x_BK = readings(20, 33)
    torch.testing.assert_close(ours(x_BK), theirs(x_BK))
    ours(x_BK).square().sum().backward()
    theirs(x_BK).square().sum().backward()
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad)
