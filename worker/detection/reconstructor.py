"""What every model is to the rest of zmu: a module that says what each reading should have been.

Shapes: B batch, R rows of one block, D = W*F inputs (window rows * features), K columns in, N columns out.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BLOCK_ROWS = 256
ALIGNMENT = 16  # float32s in 64 bytes: a cache line, and the widest vector register

# Inputs are scaled to about 1, so this clips no reading that means anything; it only keeps 1e30 from overflowing.
LIMIT = 1e6


class Reconstructor(nn.Module, ABC):
    """A model of normal readings. Its state_dict holds tensors only: safetensors saves and loads every kind alike."""

    @abstractmethod
    def predict(self, x_BD: Tensor, newest: int | None = None) -> Tensor:
        """The readings expected in place of x_BD: xhat_BD. Deterministic. NaN in a row spoils that row only.

        newest: only so many of the last inputs are asked for, xhat_BN, which costs less.
        """


def guarded(x_BD: Tensor) -> Tensor:
    """x within ±LIMIT, infinities included, so that sums and squares of it stay finite in float32."""
    if torch.is_grad_enabled() or x_BD.is_cuda:
        return F.hardtanh(x_BD, -LIMIT, LIMIT)          # a clamp whose gradient is one kernel and not five
    return torch.clamp(x_BD, -LIMIT, LIMIT, out=room(x_BD, x_BD.shape[-1]))


def room(x_BK: Tensor, columns: int) -> Tensor:
    """For so many columns beside each row of x_BK: every row starts on a 64-byte boundary."""
    rows, columns = int(x_BK.shape[-2]), int(columns)      # numbers to a trace too, which would work them out each time
    return x_BK.new_empty(rows, columns + -columns % ALIGNMENT)[:, :columns]


def aligned(x_BK: Tensor) -> Tensor:
    """The same values, laid out so that every row starts on a 64-byte boundary.

    Some matrix kernels peel a row's first elements until they reach a vector boundary, and so add the same numbers
    in another order for a row that starts elsewhere: MKL does so for products with fewer than 12 columns, and a
    row of 33 float32s then differs in its last bit from the next row with the very same values. A GPU's kernels go by
    the row length, which is the same for all.
    """
    rows_apart, apart = x_BK.stride(-2), x_BK.stride(-1)
    if x_BK.is_cuda or (apart == 1 and rows_apart % ALIGNMENT == 0 and x_BK.data_ptr() % 64 == 0):
        return x_BK
    return room(x_BK, x_BK.shape[-1]).copy_(x_BK)


class Linear(nn.Linear):
    """nn.Linear whose result for a row does not depend on where in the block the row lies, but while it is learning."""

    def forward(self, input: Tensor) -> Tensor:
        return self._of(input, self.weight, self.bias)

    def newest(self, input: Tensor, columns: int) -> Tensor:
        """Only the last columns of the result."""
        return self._of(input, self.weight[-columns:], self.bias[-columns:])

    @staticmethod
    def _of(input: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        if torch.is_grad_enabled() or input.is_cuda:
            return F.linear(input, weight, bias)
        return torch.addmm(bias, aligned(input), weight.t(), out=room(input, len(weight)))


@torch.inference_mode()
def predict_in_blocks(model: Reconstructor, x_BD: Tensor, rows: int = BLOCK_ROWS) -> Tensor:
    """model.predict, bit-equal for a row whatever batch, and whatever place in the batch, it comes in.

    Matrix products choose their kernel, and so their order of addition, by the shape and the alignment of what they
    multiply. Here both are always the same: blocks of `rows` rows (a multiple of 16, so that no kernel has a
    remainder to treat apart), the last one filled up with zeros, each in memory that torch allocated itself.

    Bit-equal holds for one model, machine, device, number of threads and `rows`; across those, expect agreement to
    about 1e-5 of the size of the values, which float32 sums allow. Returns xhat_BD on the device of x_BD.
    """
    if rows < 1 or rows % ALIGNMENT:
        raise ValueError(f"rows is {rows}; blocks need a multiple of {ALIGNMENT}")
    xhat_BD = torch.empty_like(x_BD, memory_format=torch.contiguous_format)
    for start in range(0, len(x_BD), rows):
        part_RD = x_BD[start : start + rows]
        block_RD = x_BD.new_zeros(rows, x_BD.shape[1])
        block_RD[: len(part_RD)] = part_RD
        xhat_BD[start : start + rows] = model.predict(block_RD)[: len(part_RD)]
    return xhat_BD
