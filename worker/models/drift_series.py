"""Drift as Prometheus sees it: a series for each feature of the model, which are so many and no more."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Protocol

from prometheus_client import Gauge

from worker.models.drift import Drift

MOST_FEATURES = 256                     # of a model, the first


class NewGauge(Protocol):
    def __call__(self, name: str, text: str, labels: Sequence[str] = ..., /) -> Gauge: ...


class DriftSeries:
    def __init__(self, gauge: NewGauge) -> None:
        self._psi = gauge(
            "drift_statistic", "PSI of the newest readings beside those learnt from; NaN while they are few.",
            ("feature",),
        )
        self._ks = gauge("drift_ks_statistic", "Kolmogorov-Smirnov statistic of the same.", ("feature",))
        self._score = gauge("score_drift_statistic", "PSI of the newest raw scores beside the held-out ones.")

    def __call__(self, features: Sequence[str], drift: Drift | None) -> None:
        """Of the version that serves now; asked at every scrape. None: it is not measured."""
        self._psi.clear()
        self._ks.clear()
        self._score.set_function(lambda: float("nan") if drift is None else _psi(drift, -1))
        if drift is None:
            return
        for f, name in enumerate(features[:MOST_FEATURES]):
            self._psi.labels(name).set_function(partial(_psi, drift, f))
            self._ks.labels(name).set_function(partial(_ks, drift, f))


def _psi(drift: Drift, f: int) -> float:
    return float(drift.statistics().psi_F[f])


def _ks(drift: Drift, f: int) -> float:
    return float(drift.statistics().ks_F[f])
