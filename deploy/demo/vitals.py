"""What the worker's /metrics say, for the screen."""

from __future__ import annotations

import http.client
import math
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families


@dataclass(frozen=True)
class Vitals:
    """One look. Rates are since the look before; quantiles since the worker's start."""

    scored: float = 0.0
    lag_records: float = 0.0
    dead_lettered: float = 0.0
    anomalies: float = 0.0
    readings_per_second: float = 0.0
    latency_p50_seconds: float = math.nan
    latency_p99_seconds: float = math.nan
    score_p50: float = math.nan
    score_p99: float = math.nan
    memory_bytes: float = 0.0
    model: str = "–"


@dataclass
class Scraper:
    """Reads `url` (…/metrics). A worker that does not answer leaves the last look standing, and `answers` False."""

    url: str
    clock: Callable[[], float]
    last: Vitals = field(default_factory=Vitals)
    answers: bool = False
    _last_seconds: float | None = None

    def look(self) -> Vitals:
        try:
            with urllib.request.urlopen(self.url, timeout=2) as response:
                samples = _samples(response.read().decode())
        except (OSError, http.client.HTTPException):
            self.answers = False
            return self.last
        now, scored = self.clock(), _total(samples, "zmu_records_scored_total")
        rate = 0.0
        if self._last_seconds is not None and now > self._last_seconds:
            rate = max(scored - self.last.scored, 0.0) / (now - self._last_seconds)
        self.last = Vitals(
            scored=scored,
            lag_records=_total(samples, "zmu_consumer_lag_records"),
            dead_lettered=_total(samples, "zmu_records_dead_lettered_total"),
            anomalies=_total(samples, "zmu_anomalies_total"),
            readings_per_second=rate,
            latency_p50_seconds=_quantile(samples, "zmu_end_to_end_latency_seconds", 0.5),
            latency_p99_seconds=_quantile(samples, "zmu_end_to_end_latency_seconds", 0.99),
            score_p50=_quantile(samples, "zmu_anomaly_score", 0.5),
            score_p99=_quantile(samples, "zmu_anomaly_score", 0.99),
            memory_bytes=_total(samples, "process_resident_memory_bytes"),
            model=next((labels.get("version", "–") for labels, _ in samples.get("zmu_model_info", [])), "–"),
        )
        self._last_seconds, self.answers = now, True
        return self.last


Samples = dict[str, list[tuple[dict[str, str], float]]]


def _samples(exposition: str) -> Samples:
    found: Samples = {}
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def _total(samples: Samples, name: str) -> float:
    return sum(value for _, value in samples.get(name, []))


def _quantile(samples: Samples, name: str, q: float) -> float:
    """Within a histogram's bucket by straight line, as Prometheus' histogram_quantile does; NaN where it is empty."""
    counts: dict[float, float] = {}
    for labels, value in samples.get(f"{name}_bucket", []):
        edge = float(labels["le"])
        counts[edge] = counts.get(edge, 0.0) + value
    edges = sorted(counts)
    if not edges or not counts[edges[-1]]:
        return math.nan
    rank = q * counts[edges[-1]]
    below, floor = 0.0, 0.0
    for edge in edges:
        if counts[edge] >= rank:
            if math.isinf(edge):
                return floor
            return floor + (edge - floor) * (rank - below) / (counts[edge] - below)
        below, floor = counts[edge], edge
    return floor
