"""The two models every VAE has to beat: a z-chart and principal components, behind the VAE's own interface.

Shapes: B batch, N training rows, D inputs, K principal components.
"""

from typing import Self

import torch
from torch import Tensor

from worker.detection.reconstructor import Reconstructor, aligned, guarded

FIT_ROWS = 4096  # rows turned to float64 at a time: memory stays flat however long the training range is


class ZChart(Reconstructor):
    """Expects the training mean, always: Shewhart's control chart (1931), one per input.

    The residual in units of spread, which the detector takes of any model, is then the z-score.
    """

    mean_D: Tensor

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.register_buffer("mean_D", torch.zeros(inputs))

    @classmethod
    def fit(cls, x_ND: Tensor) -> Self:
        chart = cls(x_ND.shape[1])
        chart.mean_D.copy_(mean_and_scatter(x_ND)[0])
        return chart

    def predict(self, x_BD: Tensor, newest: int | None = None) -> Tensor:
        """The centre, whatever came in. Returns xhat_BD, or its last columns."""
        centre_N = self.mean_D if newest is None else self.mean_D[-newest:]
        return centre_N.repeat(len(x_BD), 1)


class PCA(Reconstructor):
    """Expects the reading's projection on the K directions in which normal readings vary most (Pearson 1901).

    It is the linear limit of a VAE (Tipping & Bishop 1999), and its squared residual is the Q statistic of process
    monitoring (Jackson & Mudholkar 1979).
    """

    mean_D: Tensor
    components_KD: Tensor  # orthonormal rows, largest variance first

    def __init__(self, inputs: int, components: int) -> None:
        super().__init__()
        self.register_buffer("mean_D", torch.zeros(inputs))
        self.register_buffer("components_KD", torch.zeros(components, inputs))

    @property
    def components(self) -> int:
        """K, which `build("pca", shape)` takes from `shape.latent`."""
        return len(self.components_KD)

    @classmethod
    def fit(cls, x_ND: Tensor, explained: float = 0.95) -> Self:
        """As few components as explain the asked share (0 to 1) of the variance of x_ND, and at least one.

        The singular vectors of the centred rows are the eigenvectors of their scatter matrix, which is D*D however
        many rows there are. It is summed in float64, where squaring the spread of the values costs nothing.
        """
        mean_D, scatter_DD = mean_and_scatter(x_ND)
        variance_D, direction_DD = torch.linalg.eigh(scatter_DD)  # ascending, eigenvectors in columns
        variance_D = variance_D.flip(0).clamp(min=0)
        share_D = variance_D.cumsum(0) / variance_D.sum().clamp(min=torch.finfo(torch.float64).tiny)
        enough = int((share_D < explained).sum()) + 1
        most = max(1, int((variance_D > 0).sum()))
        pca = cls(x_ND.shape[1], min(enough, most))
        pca.mean_D.copy_(mean_D)
        pca.components_KD.copy_(direction_DD.flip(1)[:, : pca.components].T)
        return pca

    def predict(self, x_BD: Tensor, newest: int | None = None) -> Tensor:
        """Project on the components and back. Returns xhat_BD, or its last columns."""
        code_BK = aligned(guarded(x_BD) - self.mean_D) @ self.components_KD.T
        xhat_BD = self.mean_D + aligned(code_BK) @ self.components_KD
        return xhat_BD if newest is None else xhat_BD[:, -newest:]      # a narrower product depends on the row's place


def mean_and_scatter(x_ND: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (D) and scatter matrix (D, D: the sum of outer products of centred rows) of x_ND, in float64."""
    mean_D = x_ND.mean(0, dtype=torch.float64)
    scatter_DD = mean_D.new_zeros(len(mean_D), len(mean_D))
    for part_ND in torch.split(x_ND, FIT_ROWS):
        centred_ND = part_ND.double() - mean_D
        scatter_DD += centred_ND.T @ centred_ND
    return mean_D, scatter_DD
