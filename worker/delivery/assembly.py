"""What of the worker talks to Kafka, put together for the delivery that is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from worker.delivery.at_least_once import AtLeastOnce
from worker.delivery.checkpoint import Checkpoint
from worker.delivery.exactly_once import ExactlyOnce
from worker.heartbeat import Heartbeat
from worker.kafka.replica import transactional_id_of
from worker.kafka.sink import KafkaSink, Sends, Sink
from worker.kafka.source import KafkaSource
from worker.kafka.statestore import KafkaStateStore, StateStore
from worker.kafka.transactions import KafkaTransactions, Transactions
from worker.metrics import Metrics
from worker.settings import Settings
from worker.source import Source


def open_source(settings: Settings) -> Source:
    return KafkaSource(settings.kafka, settings.input)


def open_sink(settings: Settings) -> Sink:
    return KafkaSink(settings.kafka, settings.output, settings.input.max_record_bytes)


def open_transactions(settings: Settings, kind: type[KafkaTransactions] = KafkaTransactions) -> Transactions:
    name = transactional_id_of(settings)
    return kind(settings.kafka, settings.output, settings.input.max_record_bytes, name)


def open_store(settings: Settings, rows: Sends, heartbeat: Heartbeat) -> StateStore:
    return KafkaStateStore(settings.kafka, settings.input, rows, heartbeat)


@dataclass(frozen=True)
class Parts:
    """How each part is opened. Raise BrokerError. Fault tests put theirs around these."""

    source: Callable[[Settings], Source] = open_source
    sink: Callable[[Settings], Sink] = open_sink
    transactions: Callable[[Settings], Transactions] = open_transactions
    store: Callable[[Settings, Sends, Heartbeat], StateStore] = open_store

    def output(self, settings: Settings) -> Sink | Transactions:
        return (self.transactions if settings.output.delivery == "exactly-once" else self.sink)(settings)


def checkpoint(
    settings: Settings,
    source: Source,
    output: Sink | Transactions,
    metrics: Metrics,
    heartbeat: Heartbeat,
    stopping: Callable[[], bool],
) -> Checkpoint:
    interval_seconds = settings.output.commit_interval_ms / 1000
    if settings.output.delivery == "at-least-once":
        return AtLeastOnce(source, output, interval_seconds, metrics, heartbeat, stopping)
    transactions = cast(Transactions, output)
    timeout_seconds = settings.output.transaction_timeout_ms / 1000
    return ExactlyOnce(
        source, transactions, interval_seconds, metrics, heartbeat, stopping, timeout_seconds=timeout_seconds
    )
