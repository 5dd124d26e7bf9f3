"""Messages and offsets that show together or never: the port, and Kafka's transactional producer behind it."""

from __future__ import annotations

import threading
from typing import Any, Protocol

from kafka import KafkaProducer
from kafka.errors import KafkaError

from worker.errors import BrokerError
from worker.kafka.brokers import explained
from worker.kafka.sink import Failed, KafkaSink, Message, Receipt, Sink, shut
from worker.settings import KafkaSettings, OutputSettings
from worker.source import Pledge

ABORT_SECONDS = 5.0
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

    def send(self, message: Message) -> Receipt:
        try:
            self._begin()
        except KafkaError as error:
            return Failed(error)
        return super().send(message)

    def _begin(self) -> None:
        if not self._open:
            self._producer.begin_transaction()
            self._open = True

    def commit(self, pledge: Pledge) -> Receipt:
        outcome = _Outcome()
        try:
            self._begin()
        except KafkaError as error:
            return Failed(error)
        self._open = False
        _aside(outcome, lambda: self._end(self._producer, pledge))
        return outcome

    def _end(self, producer: KafkaProducer, pledge: Pledge) -> None:
        if pledge.offsets:
            producer.send_offsets_to_transaction(pledge.offsets, pledge.member)
        producer.commit_transaction()

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

    def close(self) -> None:
        try:
            self.abort()                # an open one would keep its readers waiting until it times out
        except BrokerError:
            shut(self._producer, 0)
        super().close()


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
