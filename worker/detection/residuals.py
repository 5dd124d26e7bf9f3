"""Readings beside what the model expects of them: one pass of the compiled core over a batch, or a dozen of numpy's, to
the same bits.

Legend: B readings, F features.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from worker import compiled
from worker.detection.scaling import LARGEST, Scaling
from worker.records import F32, F64, Bools


class Residuals(NamedTuple):
    unit_BF: F64                        # reading − expected in normal spreads, by feature; NaN where it is missing
    expected_BF: F32                    # in the features' own units
    imputed_B: Bools                    # whether a feature was missing
    empty_B: Bools                      # whether all of them were


def compare(scaling: Scaling, spread_F: F64, x_BF: F32, output_BF: F32) -> Residuals:
    """output_BF: of the model, scaled. spread_F: normal ones, of what is scaled."""
    core = compiled.core()
    if core is None:
        missing_BF = np.isnan(x_BF)
        unit_BF = (scaling.scale(x_BF).astype(np.float64) - output_BF) / spread_F
        imputed_B, empty_B = np.asarray(missing_BF.any(1)), np.asarray(missing_BF.all(1))
        return Residuals(unit_BF, scaling.unscale(output_BF), imputed_B, empty_B)
    unit_BF, expected_BF = np.empty(x_BF.shape), np.empty(x_BF.shape, np.float32)
    imputed_B, empty_B = np.empty(len(x_BF), bool), np.empty(len(x_BF), bool)
    core.compare(
        (*scaling.of_core, LARGEST), spread_F, np.ascontiguousarray(x_BF), np.ascontiguousarray(output_BF),
        (unit_BF, expected_BF, imputed_B.view(np.uint8), empty_B.view(np.uint8)),
    )
    return Residuals(unit_BF, expected_BF, imputed_B, empty_B)


def mean_square(unit_BF: F64, judged_B: Bools) -> tuple[F64, F64]:
    """Of each reading over the features that are there, 0 where it is not judged; and each feature's square."""
    core = compiled.core()
    if core is None:
        present_BF = ~np.isnan(unit_BF) & judged_B[:, None]
        square_BF = np.where(present_BF, unit_BF, 0.0) ** 2
        return square_BF.sum(1) / np.maximum(present_BF.sum(1), 1), square_BF
    mean_B, square_BF = np.empty(len(unit_BF)), np.empty(unit_BF.shape)
    core.mean_square(np.ascontiguousarray(unit_BF), judged_B.view(np.uint8), mean_B, square_BF)
    return mean_B, square_BF
