"""Features in comparable units. Never clipped: what lies outside the training range must stay outside.

Legend: B readings, F features.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from worker import compiled
from worker.records import F32

LARGEST = float(np.finfo(np.float32).max)


class Scaling(BaseModel):
    """scaled = (x − offset) / span, by feature; missing values become the training median."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    offset: tuple[float, ...]
    span: tuple[float, ...] = Field(description="Never 0: a constant feature has a span of its own size.")
    median: tuple[float, ...] = Field(description="In the features' own units.")

    @cached_property
    def _offset_F(self) -> F32:
        return np.asarray(self.offset, np.float32)

    @cached_property
    def _span_F(self) -> F32:
        return np.asarray(self.span, np.float32)

    @cached_property
    def fill_F(self) -> F32:
        """The training median, scaled: what stands for a missing value at the model's input."""
        return self.scale(np.asarray(self.median, np.float32))

    @property
    def of_core(self) -> tuple[F32, F32]:
        """Offset and span, as the compiled core takes them."""
        return self._offset_F, self._span_F

    def scale(self, x_BF: F32) -> F32:
        """In double precision, and finite for every finite reading: a sensor's 3.4e38 must not become infinite."""
        return self._scaled(x_BF, None)

    def filled(self, x_BF: F32) -> F32:
        """Scaled, and the training median for what is missing: the model's input."""
        return self._scaled(x_BF, self.fill_F)

    def _scaled(self, x_BF: F32, fill_F: F32 | None) -> F32:
        core = compiled.core()
        if core is not None:
            scaled_BF = np.empty(x_BF.shape, np.float32)
            core.scale(np.ascontiguousarray(x_BF), self._offset_F, self._span_F, LARGEST, fill_F, scaled_BF)
            return scaled_BF
        wide_BF = (x_BF.astype(np.float64) - self._offset_F) / self._span_F
        scaled_BF = np.asarray(np.clip(wide_BF, -LARGEST, LARGEST), np.float32)
        return scaled_BF if fill_F is None else np.where(np.isnan(scaled_BF), fill_F, scaled_BF)

    def unscale(self, scaled_BF: F32) -> F32:
        return np.asarray(scaled_BF * self._span_F + self._offset_F, np.float32)
