"""Every fact that the worker states, once: a method counts it, and logs it where an operator would want a line.

Labels are partitions, stages, reasons and versions only; never a value that the data choose.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import get_args

import numpy as np
from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    Info,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)

from worker import build, log
from worker.models.drift_series import DriftSeries
from worker.models.shadow_series import ShadowSeries
from worker.records import F64, I64, REASONS, Kind, Refusal, Severity
from worker.series import BATCH_RECORDS, LATENCY_SECONDS, SCORES, STAGE_SECONDS, Series, observe_all
from worker.state.restore import Restored
from worker.state.snapshotter import Settled
from worker.tracing import Tracing, Untraced

FAULTS = tuple(kind for kind in get_args(Kind) if kind != "anomaly")
_RATE_READINGS = 100_000


class Metrics:
    """The worker's series. One object a process; tests make their own."""

    def __init__(self, tracing: Tracing | None = None) -> None:
        self.tracing = tracing or Untraced()
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        self._log = log.get("worker")
        self._partitions: set[tuple[str, int]] = set()
        self._judged = self._in_alarm = 0.0         # readings, the older the less

        made = Series(registry)
        counter, gauge, histogram = made.counter, made.gauge, made.histogram
        self._consumed = counter("records_consumed", "Records fetched.", ("topic", "partition"))
        self._decoded = counter(
            "records_decoded", "Records decoded, by who did it.", ("path",), ("compiled", "python", "records")
        )
        self._consumed_bytes = counter("consumed_bytes", "Bytes of the fetched records' values.", ("topic",))
        self._scored = counter("records_scored", "Readings scored.", ("model_version",))
        self._anomalies = counter("anomalies", "Anomalous readings.", ("severity",), get_args(Severity))
        self._faults = counter("sensor_faults", "Faults of sensors, and silences of entities.", ("kind",), FAULTS)
        self._warming = counter("readings_warming_up", "Readings scored before their entity's window was full.")
        self._restored = counter(
            "state_entities", "Entities whose state was taken over, read again further back, or lost.", ("result",),
            ("restored", "late", "lost"),
        )
        self._snapshots = counter("snapshots", "Snapshots of a partition's state.", ("result",), ("ok", "failed"))
        self._produced = counter("events_produced", "Records acknowledged by the output topics.", ("topic",))
        self._refused = counter("records_dead_lettered", "Records that are no readings.", ("reason",), REASONS)
        self._errors = counter("errors", "Errors survived.", ("stage", "type"))
        self._commits = counter("commits", "Commits of input offsets.", ("result",), ("ok", "failed"))
        self._transactions = counter(
            "transactions", "Transactions, where delivery is exactly-once.", ("result",),
            ("committed", "aborted", "failed"),
        )
        self._rebalances = counter(
            "rebalances", "Changes of assignment.", ("kind",), ("assigned", "revoked", "lost", "rewound")
        )
        self._reloads = counter("model_reloads", "Looks at a newer model version.", ("result",), ("loaded", "refused"))
        self._rollbacks = counter(
            "rollbacks", "Versions that the guard took out of service.", ("result",),
            ("served", "alias", "alias_failed"),
        )
        self._batches = counter("batches", "Batches by what ended them.", ("reason",), ("full", "waited", "drained"))
        self._stage = histogram("stage_duration_seconds", "Time of a stage for a batch.", STAGE_SECONDS, ("stage",))
        self._batch_records = histogram("batch_records", "Readings in a batch.", BATCH_RECORDS)
        self._latency = histogram(
            "end_to_end_latency_seconds", "From a reading's timestamp to its batch acknowledged.", LATENCY_SECONDS
        )
        self._score = histogram("anomaly_score", "Scores; above 1 is anomalous.", SCORES, ("model_version",))
        self._lag = gauge("consumer_lag_records", "Records not yet scored and committed.", ("topic", "partition"))
        self._time_lag = gauge(
            "consumer_time_lag_seconds", "Age of the newest scored reading while there is lag.", ("topic", "partition")
        )
        self._last_processed = gauge("last_record_processed_timestamp_seconds", "When a record was last committed.")
        self._last_poll = gauge("last_poll_timestamp_seconds", "When the loop last polled.")
        self._inflight = gauge("inflight_records", "Output records not yet acknowledged.")
        self._assigned = gauge("assigned_partitions", "Input partitions of this worker.")
        self._entities = gauge("entities_tracked", "Entities with state in memory.")
        self._model_loaded = gauge("model_loaded_timestamp_seconds", "When the served model was loaded.")
        self._threshold = gauge("threshold", "The model's raw score at which anomaly_score is 1.")
        self._target_rate = gauge("target_alarm_rate", "Share of normal readings that may be in alarm.")
        self._alarm_rate = gauge("realised_alarm_rate", "Share of about the last 100,000 readings that was in alarm.")
        self._cold = gauge("entities_cold_start", "Tracked entities that training has not seen.")
        self.drifts = DriftSeries(gauge)
        self.shadow = ShadowSeries(counter)
        self._device_memory = gauge("device_memory_bytes", "Memory that the model's device holds for us.")
        self._ready = gauge("ready", "Whether /readyz says yes: model, assignment and a writable output.")
        self._build = Info("build", "The program.", namespace="zmu", registry=registry)
        self._model = Info("model", "The served model.", namespace="zmu", registry=registry)
        self._build.info(build.facts())

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times one stage of one batch; the loop's stages are decode, window, score, publish and commit."""
        start = time.perf_counter()
        try:
            with self.tracing.stage(name):
                yield
        finally:
            self._stage.labels(name).observe(time.perf_counter() - start)

    def polled(self) -> None:
        self._last_poll.set(time.time())

    def batch_fetched(self, topic: str, records: Mapping[int, int], size_bytes: int, reason: str) -> None:
        """records: number by partition; reason: full, waited or drained."""
        for partition, count in records.items():
            self._consumed.labels(topic, partition).inc(count)
        self._consumed_bytes.labels(topic).inc(size_bytes)
        self._batches.labels(reason).inc()
        self._batch_records.observe(sum(records.values()))

    def decoded(self, records: int, path: str) -> None:
        """path: compiled or python from whole batches, or records."""
        self._decoded.labels(path).inc(records)

    def records_refused(self, refused: Iterable[Refusal]) -> None:
        for refusal in refused:
            self._refused.labels(refusal.code).inc(refusal.readings)
            self._log.debug(
                "record refused",
                code=refusal.code,
                message=refusal.message,
                partition=refusal.record.partition,
                offset=refusal.record.offset,
                readings=refusal.readings,
            )

    def batch_scored(self, model_version: str, score_B: F64, warming: int) -> None:
        """warming: readings whose entity's window was not full yet."""
        self._scored.labels(model_version).inc(len(score_B))
        self._warming.inc(warming)
        observe_all(self._score.labels(model_version), score_B, SCORES)
        self._in_alarm = self._in_alarm * math.exp(-len(score_B) / _RATE_READINGS) + int((score_B > 1.0).sum())
        self._judged = self._judged * math.exp(-len(score_B) / _RATE_READINGS) + len(score_B)
        self._alarm_rate.set(self._in_alarm / self._judged if self._judged else 0.0)

    def anomalies_found(self, severities: Mapping[str, int]) -> None:
        for severity, count in severities.items():
            self._anomalies.labels(severity).inc(count)

    def faults_found(self, kinds: Mapping[str, int]) -> None:
        for kind, count in kinds.items():
            self._faults.labels(kind).inc(count)

    def state_restored(self, partition: int, restored: Restored, committed: int) -> None:
        """A partition's state, of whoever had it before."""
        self._restored.labels("restored").inc(len(restored.rows))
        self._restored.labels("late").inc(restored.late)
        self._restored.labels("lost").inc(restored.lost.total())
        again = max(committed - restored.replay_from, 0)
        said = self._log.warning if restored.afresh or restored.lost else self._log.info
        said(
            "state restored", partition=partition, entities=len(restored.rows), readings_again=again,
            **({"lost": dict(restored.lost)} if restored.lost else {}),
            **({"afresh": restored.afresh} if restored.afresh else {}),
        )

    def snapshot_settled(self, settled: Settled) -> None:
        """A snapshot that is on its topic, or failed."""
        self._snapshots.labels("ok" if settled.error is None else "failed").inc()
        if settled.error is None:
            self._stage.labels("snapshot").observe(settled.seconds)
        else:
            self.survived("snapshot", settled.error)

    def produced(self, records: Mapping[str, int]) -> None:
        """Acknowledged by the broker; number by topic."""
        for topic, count in records.items():
            self._produced.labels(topic).inc(count)

    def batch_done(self, timestamp_ms_B: I64) -> None:
        """Subscribers can read everything that a batch said."""
        # A clock ahead of ours must not give a negative latency.
        observe_all(self._latency, np.maximum(time.time() - timestamp_ms_B / 1000, 0.0), LATENCY_SECONDS)

    def inflight(self, records: int) -> None:
        self._inflight.set(records)

    def committed(self, seconds: float) -> None:
        """seconds: from the request to the answer."""
        self._stage.labels("commit").observe(seconds)
        self._commits.labels("ok").inc()
        self._last_processed.set(time.time())

    def commit_failed(self, error: Exception) -> None:
        self._commits.labels("failed").inc()
        self.survived("commit", error)

    def transaction_committed(self, seconds: float) -> None:
        """seconds: as for committed."""
        self._transactions.labels("committed").inc()
        self.committed(seconds)

    def transaction_aborted(self) -> None:
        """Given up because partitions went."""
        self._transactions.labels("aborted").inc()

    def transaction_failed(self, stage: str, error: Exception) -> None:
        """Given up because of an error, or (commit) with an unknown end."""
        self._transactions.labels("failed").inc()
        self.survived(stage, error)

    def rewound(self, partitions: Iterable[int]) -> None:
        """They begin again at their committed offsets."""
        self._rebalances.labels("rewound").inc()
        self._log.warning("partitions begin again where the group has them", partitions=sorted(partitions))

    def survived(self, stage: str, error: Exception) -> None:
        """An error after which the loop goes on."""
        self._errors.labels(stage, type(error).__name__).inc()
        self._log.warning("error survived", stage=stage, error=str(error), type=type(error).__name__)

    def assigned(self, topic: str, partitions: Iterable[int], total: int) -> None:
        added = sorted(partitions)
        self._partitions.update((topic, partition) for partition in added)
        self._rebalances.labels("assigned").inc()
        self._assigned.set(total)
        self._log.info("partitions assigned", topic=topic, partitions=added, total=total)

    def revoked(self, topic: str, partitions: Iterable[int], total: int, kind: str = "revoked") -> None:
        """kind: revoked (asked to give back) or lost (already with another). Their series go."""
        gone = sorted(partitions)
        for partition in gone:
            self._partitions.discard((topic, partition))
            for series in (self._consumed, self._lag, self._time_lag):
                with contextlib.suppress(KeyError):
                    series.remove(topic, str(partition))
        self._rebalances.labels(kind).inc()
        self._assigned.set(total)
        self._log.info("partitions revoked", topic=topic, partitions=gone, total=total, how=kind)

    def lag(self, topic: str, partition: int, records: int, seconds: float) -> None:
        if (topic, partition) in self._partitions:
            self._lag.labels(topic, partition).set(max(records, 0))
            self._time_lag.labels(topic, partition).set(max(seconds, 0.0))

    def entities(self, number: int, cold: int) -> None:
        """cold: how many of them training has not seen."""
        self._entities.set(number)
        self._cold.set(cold)

    def model_loaded(
        self, name: str, version: str, sha256: str, kind: str, threshold: float, target_rate: float, device: str
    ) -> None:
        self._reloads.labels("loaded").inc()
        self._model_loaded.set(time.time())
        self._threshold.set(threshold)
        self._target_rate.set(target_rate)
        self._model.info({"name": name, "version": version, "sha256": sha256, "kind": kind, "device": device})
        self._log.info("model loaded", name=name, version=version, kind=kind, device=device)

    def model_refused(self, error: Exception, kept: str | None) -> None:
        self._reloads.labels("refused").inc()
        self._log.error("model refused", error=str(error), kept=kept)

    def rolled_back(self, version: str, to: str, share: float, most: float) -> None:
        """This worker goes on with the version before; the alias is moved next."""
        self._rollbacks.labels("served").inc()
        said = f"{share:.1%} of its readings are in alarm"
        self._log.error("version rolled back", version=version, to=to, why=said, most=f"{most:.1%}")

    def alias_moved_back(self, error: Exception | None) -> None:
        """So that other workers and a restart have the version before as well, or not."""
        self._rollbacks.labels("alias" if error is None else "alias_failed").inc()
        if error is not None:
            self.survived("rollback", error)

    def device_memory(self, size_bytes: int) -> None:
        self._device_memory.set(size_bytes)

    def ready_by(self, check: Callable[[], bool]) -> None:
        """Asked at every scrape."""
        self._ready.set_function(check)
