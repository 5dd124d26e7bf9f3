"""Named points of the loop, and what may happen to a worker there. The parts are the real ones, with points in them."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from worker.delivery.assembly import Parts, open_transactions
from worker.heartbeat import Heartbeat
from worker.kafka.sink import KafkaSink, Message, Receipt, Sends, Sink
from worker.kafka.source import KafkaSource
from worker.kafka.statestore import KafkaStateStore
from worker.kafka.transactions import KafkaTransactions
from worker.settings import Settings
from worker.source import Fetched, Pledge
from worker.state.restore import Loaded
from worker.state.snapshots import Row

AT_LEAST_ONCE_POINTS = (
    "assigned", "state loaded", "polled", "sending", "sent", "acknowledged", "committed", "rows sent",
)
EXACTLY_ONCE_POINTS = (
    "assigned", "state loaded", "polled", "sending", "committing", "offsets sent", "committed", "rows sent",
)


@dataclass(frozen=True)
class Hook:
    """What happens when the worker passes a point for the nth time.

    how: a signal's name, that the worker sends to itself; "spin", "hang" or "still" for a loop that is stuck.
    pause_seconds: before it goes on, if it does: time for kafka-python's own thread to hear what has happened.
    """

    point: str
    how: str = "SIGKILL"
    nth: int = 1
    pause_seconds: float = 0.0


class Passing:
    """Counts, and strikes."""

    def __init__(self, hook: Hook | None) -> None:
        self._hook, self._times = hook, 0

    def by(self, point: str) -> None:
        if self._hook is None or self._hook.point != point:
            return
        self._times += 1
        if self._times == self._hook.nth:
            os.kill(os.getpid(), signal.Signals[self._hook.how])
            time.sleep(self._hook.pause_seconds)

    @property
    def stuck(self) -> str:
        """How the loop is stuck from now on, if so."""
        hook = self._hook
        return hook.how if hook is not None and hook.how in ("spin", "hang", "still") else ""


def parts(hook: Hook | None) -> Parts:
    passing = Passing(hook)

    class Source(KafkaSource):
        def poll(self, max_records: int, max_wait_seconds: float, idle_seconds: float) -> Fetched:
            if passing.stuck == "still":                # it turns, and reads nothing
                time.sleep(0.05)
                return Fetched(changes=super().idle())
            fetched = super().poll(max_records, max_wait_seconds, idle_seconds)
            if fetched.records:
                passing.by("polled")
                while passing.stuck == "spin":
                    pass
            return fetched

        def start(self, partition: int) -> Any:
            passing.by("assigned")
            return super().start(partition)

        def begin_commit(self, offsets: Mapping[int, int], notes: Mapping[int, str]) -> Receipt:
            passing.by("acknowledged")
            while passing.stuck == "hang":
                time.sleep(1)
            return Committing(super().begin_commit(offsets, notes))

    class Committing:
        def __init__(self, receipt: Receipt) -> None:
            self._receipt, self.error = receipt, receipt.error

        def done(self) -> bool:
            done = self._receipt.done()
            if done:
                passing.by("committed")
            return done

    class Plain(KafkaSink):
        def send(self, message: Message) -> Receipt:
            passing.by("sending")
            receipt = super().send(message)
            passing.by("sent")
            return receipt

    class Transactional(KafkaTransactions):
        def send(self, message: Message) -> Receipt:
            passing.by("sending")
            return super().send(message)

        def _end(self, producer: Any, pledge: Pledge, left: Any) -> None:
            passing.by("committing")
            super()._end(producer, pledge, left)

        def _commit(self, producer: Any, left: Any) -> None:
            passing.by("offsets sent")
            super()._commit(producer, left)
            passing.by("committed")

    class Store(KafkaStateStore):
        def load(self, partition: int) -> Loaded:
            loaded = super().load(partition)
            passing.by("state loaded")
            return loaded

        def publish(self, partition: int, rows: Sequence[Row]) -> Sequence[Receipt]:
            receipts = super().publish(partition, rows)
            passing.by("rows sent")
            return receipts

    def sink(settings: Settings) -> Sink:
        return Plain(settings.kafka, settings.output, settings.input.max_record_bytes)

    def store(settings: Settings, rows: Sends, heartbeat: Heartbeat) -> Store:
        return Store(settings.kafka, settings.input, rows, heartbeat)

    return Parts(
        source=lambda settings: Source(settings.kafka, settings.input),
        sink=sink,
        transactions=lambda settings: open_transactions(settings, Transactional),
        store=store,
    )


def at_random(points: Sequence[str], chance: random.Random) -> Callable[[], Hook]:
    return lambda: Hook(chance.choice(points), nth=chance.randint(1, 6))
