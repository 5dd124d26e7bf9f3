"""Every fact that scheduled training states, once: a method counts it and logs it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector, disable_created_metrics

from training.history.drift import Drifted
from training.history.feedback import LABELS
from training.reporting.outcome import Promotion
from worker import log


class Metrics:
    """Training's series. One object a process; tests make their own."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._log = log.get("training")

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(name, text, namespace="zmu", registry=registry)

        def counter(name: str, text: str, results: Sequence[str]) -> Counter:
            made = Counter(name, text, ("result",), namespace="zmu", registry=registry)
            for result in results:      # from 0 on: rate() and increase() do not see a first increment otherwise
                made.labels(result)
            return made

        self._last_success = gauge(
            "training_last_success_timestamp_seconds", "When a training last published a version that passed its gates."
        )
        self._duration = gauge("training_duration_seconds", "How long the last training took.")
        self._loss = gauge("training_validation_loss", "Held-out loss of the last training that came so far.")
        self._runs = counter(
            "training_runs",
            "Trainings: success, refused by its gates, skipped as too little was new, failed, stopped.",
            ("success", "refused", "skipped", "failed", "stopped"),
        )
        self._next = gauge("training_next_start_timestamp_seconds", "When the next training is due.")
        self._drift = gauge(
            "training_drift_statistic",
            "Highest PSI, of a feature or the score, at the last look for drift (ZMU_TRAINING__DRIFT_BOUND).",
        )
        self._feedback = Gauge(
            "training_feedback_labels", "Events that people had labelled at the last training, by label; and records "
            "that could not be read.", ("label",), namespace="zmu", registry=registry,
        )
        self._promotions = counter(
            "training_promotions", "Versions: promoted, refused, or waiting for a person (ZMU_TRAINING__PROMOTE).",
            get_args(Promotion),
        )

    def trained(
        self, version: str, seconds: float, loss: float, promotion: Promotion, feedback: Mapping[str, int]
    ) -> None:
        """A version was published. feedback: number by label."""
        for label in (*LABELS, "invalid"):
            self._feedback.labels(label).set(feedback.get(label, 0))
        refused = promotion == "refused"
        self._runs.labels("refused" if refused else "success").inc()
        self._promotions.labels(promotion).inc()
        self._duration.set(seconds)
        self._loss.set(loss)
        if not refused:
            self._last_success.set(time.time())
        self._log.info("trained", version=version, seconds=round(seconds, 1), loss=loss, promotion=promotion)

    def failed(self, seconds: float, error: Exception, traceback: bool) -> None:
        self._runs.labels("failed").inc()
        self._duration.set(seconds)
        self._log.error("training failed", error=str(error), exc_info=error if traceback else None)

    def skipped(self, why: str) -> None:
        self._runs.labels("skipped").inc()
        self._log.info("training skipped", why=why)

    def stopped(self) -> None:
        self._runs.labels("stopped").inc()
        self._log.info("training stopped; nothing was published")

    def looked(self, drifted: Drifted, triggers: bool) -> None:
        self._drift.set(drifted.psi)
        if triggers:
            self._log.info("drift: training before it is due", **drifted._asdict())

    def looked_in_vain(self, error: Exception, traceback: bool) -> None:
        self._log.warning("no look for drift", why=str(error), exc_info=error if traceback else None)

    def waits(self, seconds: float) -> None:
        self._next.set(time.time() + seconds)
        self._log.info("next training", in_seconds=round(seconds))
