"""Messages and offsets that show together or never: the port, and Kafka's transactional producer behind it."""

from __future__ import annotations

import threading
from typing import Any, Protocol

from kafka import KafkaProducer, TopicPartition
from kafka.errors import KafkaError, ProducerFencedError

from worker import log
from worker.errors import BrokerError
from worker.kafka.brokers import explained
from worker.kafka.sink import Failed, KafkaSink, Message, Receipt, Sent, Sink, shut
from worker.kafka.sweep import sweep
from worker.settings import KafkaSettings, OutputSettings
from worker.source import Pledge

ABORT_SECONDS = 5.0
SWEEP_SECONDS, SWEEPS = 5.0, 3
RETRY_BACKOFF_MS = 20                   # the markers of the transaction before are on their way for so long, or less


class Transactions(Sink, Protocol):
    """One transaction after the other; the first message opens it. Not for use while a commit is under way.

    renew: gives the open one up for certain, and whatever bears the same name elsewhere.
    """

    def commit(self, pledge: Pledge) -> Receipt:
        """Begins to commit what was sent, with these offsets. An error leaves it open whether it was committed."""

    def abort(self) -> None:
        """Gives up the open one. Raises BrokerError where only renew can."""


class KafkaTransactions(KafkaSink):
    """Raises BrokerError where the broker does not answer, or refuses the transactional id."""

    def __init__(
        self, kafka: KafkaSettings, settings: OutputSettings, max_message_bytes: int, transactional_id: str
    ) -> None:
        self.transactional_id = transactional_id
        self._open = False
        self._left = _Left()
        super().__init__(kafka, settings, max_message_bytes)

    def _options(self) -> dict[str, Any]:
        return {
            **super()._options(),
            "transactional_id": self.transactional_id,
            "transaction_timeout_ms": self._settings.transaction_timeout_ms,
            "retry_backoff_ms": RETRY_BACKOFF_MS,
        }

    def _built(self) -> KafkaProducer:
        self._open = False
        producer = super()._built()
        try:
            with explained(self._kafka):
                producer.init_transactions()    # ends what a predecessor of this name left open, and shuts it out
        except BrokerError:
            shut(producer, 0)
            raise
        return producer

    def renew(self) -> None:
        super().renew()
        left, producer = self._left, self._producer
        if not left:
            return
        outcome, seconds = _Outcome(), min(SWEEP_SECONDS, self._kafka.request_timeout_ms / 1000)
        _aside(outcome, lambda: sweep(producer, left.partitions, left.group_id, seconds))
        error = outcome.error() if outcome.wait(2 * seconds) else BrokerError("no answer from the broker")
        if error is None:
            self._left = _Left()
            return
        left.sweeps += 1
        if left.sweeps < SWEEPS:
            raise BrokerError(f"partitions of a transaction that was given up are not swept: {error}") from error
        # A topic of it may have been deleted: no reason to go no further.
        places = sorted(f"{tp.topic}/{tp.partition}" for tp in left.partitions)
        log.get("transactions").warning(
            "partitions of a transaction that was given up are not swept; where their readers wait, ask "
            "kafka-transactions.sh find-hanging", error=str(error), partitions=places,
        )
        self._left = _Left()
        super().renew()

    def send(self, message: Message) -> Receipt:
        try:
            self._begin()
        except KafkaError as error:
            return Failed(error)
        receipt = super().send(message)
        self._left.wrote(receipt)
        return receipt

    def _begin(self) -> None:
        if not self._open:
            self._producer.begin_transaction()
            self._open = True
            self._left = _Left()

    def commit(self, pledge: Pledge) -> Receipt:
        outcome = _Outcome()
        try:
            self._begin()
        except KafkaError as error:
            return Failed(error)
        self._open = False
        producer, left = self._producer, self._left
        _aside(outcome, lambda: self._end(producer, pledge, left))
        return outcome

    def _end(self, producer: KafkaProducer, pledge: Pledge, left: _Left) -> None:
        if pledge.offsets:
            left.group_id = getattr(pledge.member, "group_id", None)
            producer.send_offsets_to_transaction(pledge.offsets, pledge.member)
        self._commit(producer, left)

    def _commit(self, producer: KafkaProducer, left: _Left) -> None:
        given_up, left.given_up = left.given_up, False
        try:
            producer.commit_transaction()
        except ProducerFencedError:             # it ran into its timeout before: aborted by the broker
            left.given_up = given_up
            raise

    def abort(self) -> None:
        if not self._open:
            return
        self._open = False
        outcome = _Outcome()
        _aside(outcome, self._producer.abort_transaction)
        if not outcome.wait(ABORT_SECONDS):
            raise BrokerError(f"the transaction was not aborted in {ABORT_SECONDS:g} s")
        error = outcome.error()
        if error is not None:
            raise BrokerError(f"the transaction was not aborted: {error}") from error
        self._left = _Left()

    def close(self) -> None:
        try:
            self.abort()                # an open one would keep its readers waiting until it times out
        except BrokerError:
            shut(self._producer, 0)
        super().close()


class _Left:
    """What a transaction wrote to, while it is not known to be over. True where it is known to have been given up."""

    def __init__(self) -> None:
        self.partitions: set[TopicPartition] = set()
        self.group_id: str | None = None        # whose offsets it holds
        self.given_up = True                    # False: it may have been committed
        self.sweeps = 0

    def wrote(self, receipt: Receipt) -> None:
        if isinstance(receipt, Sent):
            self.partitions.add(receipt.partition)

    def __bool__(self) -> bool:
        return self.given_up and bool(self.partitions or self.group_id)


class _Outcome:
    """What became of a call in another thread."""

    def __init__(self) -> None:
        self._over = threading.Event()
        self._error: Exception | None = None

    def end(self, error: Exception | None) -> None:
        self._error = error
        self._over.set()

    def wait(self, timeout_seconds: float) -> bool:
        return self._over.wait(timeout_seconds)

    def done(self) -> bool:
        return self._over.is_set()

    def error(self) -> Exception | None:
        return self._error


def _aside(outcome: _Outcome, call: Any) -> None:
    """kafka-python waits for ever where no answer comes. So that our loop need not, another thread does, and is left
    behind with the producer then.
    """

    def run() -> None:
        try:
            call()
        except Exception as error:
            outcome.end(error)
        else:
            outcome.end(None)

    threading.Thread(target=run, name="transaction", daemon=True).start()
