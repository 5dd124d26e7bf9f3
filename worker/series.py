"""How the worker's series are made; the edges of its histograms, and many observations at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from worker.records import F64

STAGE_SECONDS = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30)
LATENCY_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
BATCH_RECORDS = tuple(float(2**k) for k in range(15))
SCORES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2, 3, 5, 10, 30, 100)


class Series:
    """Makers of series in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def counter(self, name: str, text: str, labels: Sequence[str] = (), known: Sequence[str] = ()) -> Counter:
        """known: values of the one label that begin at 0. A series that begins with its first increment hides that one
        from rate() and increase(), and so from alerts.
        """
        made = Counter(name, text, labels, namespace="zmu", registry=self._registry)
        for value in known:
            made.labels(value)
        return made

    def gauge(self, name: str, text: str, labels: Sequence[str] = ()) -> Gauge:
        return Gauge(name, text, labels, namespace="zmu", registry=self._registry)

    def histogram(self, name: str, text: str, buckets: Sequence[float], labels: Sequence[str] = ()) -> Histogram:
        return Histogram(name, text, labels, namespace="zmu", registry=self._registry, buckets=buckets)


def observe_all(series: Histogram, value_B: F64, buckets: Sequence[float]) -> None:
    """Observes many values at once: prometheus-client takes one a call, 1 µs each."""
    counts = np.bincount(np.searchsorted(buckets, value_B, side="left"), minlength=len(buckets) + 1)
    for bucket, count in zip(series._buckets, counts.tolist(), strict=True):
        if count:
            bucket.inc(count)
    series._sum.inc(float(value_B.sum()))
