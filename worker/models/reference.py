"""What a version has learnt from, in numbers that drift is measured against.

Legend: B readings, F features, K edges, C bins between and beyond them.
"""

from __future__ import annotations

import itertools
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from worker.records import F32, F64

DECILES, PER_DECILE = 10, 4
EDGES = DECILES * PER_DECILE + 1
BINS = EDGES + 1
MAX_FEATURES = 4096


class Reference(BaseModel):
    """What a version has learnt from: of each feature, and last of the raw score, quantiles and shares between them."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    edges: tuple[tuple[float, ...], ...] = Field(max_length=MAX_FEATURES + 1)
    shares: tuple[tuple[float, ...], ...] = Field(max_length=MAX_FEATURES + 1)

    @model_validator(mode="after")
    def fits(self) -> Self:
        if {len(row) for row in self.edges} != {EDGES} or {len(row) for row in self.shares} != {BINS}:
            raise ValueError(f"each feature needs {EDGES} edges and {BINS} shares")
        if len(self.edges) != len(self.shares):
            raise ValueError("edges and shares differ in length")
        if any(a > b for row in self.edges for a, b in itertools.pairwise(row)):
            raise ValueError("edges do not ascend")
        return self

    @classmethod
    def of(cls, x_BF: F32 | F64) -> Self:
        """Of readings, NaN where missing; each column has at least one value."""
        edges, shares = [], []
        for column in x_BF.T:
            x_B = column[~np.isnan(column)].astype(np.float64)
            edge_K = np.quantile(x_B, np.linspace(0, 1, EDGES), method="inverted_cdf")
            edge_K[-1] = np.nextafter(edge_K[-1], np.inf)       # the largest lies within
            edges.append(tuple(edge_K.tolist()))
            shares.append(tuple((counted(x_B, edge_K) / len(x_B)).tolist()))
        return cls(edges=tuple(edges), shares=tuple(shares))


def counted(x_B: F64, edge_K: F64) -> NDArray[np.int64]:
    return np.bincount(np.searchsorted(edge_K, x_B, side="right"), minlength=BINS)
