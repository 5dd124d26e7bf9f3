"""Many messages into kafka-python's producer at once: they go to the broker together, and cost less to take.

`KafkaProducer.send` works out anew for each message what is the same for all of a batch, hashes its key in Python, and
wakes its thread for the first: that goes alone then, after it those that came meanwhile, and so on, in many small
requests. Batches, sequence numbers, retries and futures stay the producer's.

This is private ground of kafka-python 3.0: where it is not as known, messages go by `send`.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from kafka import KafkaProducer, TopicPartition
from kafka.partitioner import DefaultPartitioner, murmur2

if TYPE_CHECKING:
    from worker.kafka.sink import Message

HELD_MS = 200                           # more than it takes to hand a batch's messages over
SMALL_BYTES = 60_000                    # so large a message may be whatever the settings; a larger one, `send` judges
KEY_BYTES = 512                         # of keys that are kept with their hashes
APPENDS = ("tp", "timestamp_ms", "key", "value", "headers")


class Handover:
    """Of one producer."""

    def __init__(self, producer: KafkaProducer) -> None:
        self._producer = producer
        self._accumulator: Any = getattr(producer, "_accumulator", None)
        self._known = _as_known(producer)
        self._together = False
        self._places: dict[str, list[TopicPartition]] = {}      # by topic, while messages go together

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """What is sent within goes out at the end of it."""
        live: dict[str, Any] = getattr(self._accumulator, "config", {})
        live["linger_ms"], self._together = HELD_MS, True
        try:
            yield
        finally:
            live["linger_ms"], self._together = 0, False
            self._places.clear()        # a topic may get more partitions
            self._producer._sender.wakeup()

    def send(self, message: Message) -> Any:
        """The message's future, as of `KafkaProducer.send`; raises what that raises. None: it is to go there."""
        mine = self._known and self._together and _size(message) <= SMALL_BYTES
        place = self._place(message) if mine else None
        if place is None:
            return None
        transaction = self._producer._transaction_manager
        if transaction is not None and transaction.is_transactional():
            transaction.maybe_add_partition_to_transaction(place)
        future, is_full, is_new, *_ = self._accumulator.append(
            tp=place, timestamp_ms=None, key=message.key, value=message.value, headers=message.headers
        )
        if is_full and is_new:          # the one before it is as large as it gets
            self._producer._sender.wakeup()
        return future

    def _place(self, message: Message) -> TopicPartition | None:
        """Where it belongs, as it says or by its key. None: that is not for us to say."""
        places = self._places.get(message.topic)
        if places is None:
            partitions = self._producer._metadata.partitions_for_topic(message.topic)
            if not partitions:              # `send` asks the broker for them
                return None
            places = [TopicPartition(message.topic, partition) for partition in sorted(partitions)]
            self._places[message.topic] = places
        asked, key = message.partition, message.key
        if asked is not None:
            return places[asked] if 0 <= asked < len(places) and places[asked].partition == asked else None
        return places[_hash(key) % len(places)] if key is not None and len(key) <= KEY_BYTES else None


def _as_known(producer: KafkaProducer) -> bool:
    try:
        inspect.signature(producer._accumulator.append).bind(**dict.fromkeys(APPENDS))
        return (
            type(producer.config["partitioner"]) is DefaultPartitioner
            and callable(producer._metadata.partitions_for_topic)
            and hasattr(producer, "_transaction_manager")
        )
    except Exception:                   # whatever it is: this kafka-python is not the one that was built for
        return False


def _size(message: Message) -> int:
    """In bytes, and no less than that."""
    of_headers = sum([4 * len(name) + len(value) + 10 for name, value in message.headers])
    return len(message.key or b"") + len(message.value or b"") + of_headers


@lru_cache(16_384)                      # entities, most of which come again
def _hash(key: bytes) -> int:
    """As Java's default partitioner and kafka-python's take it."""
    return int(murmur2(key)) & 0x7FFFFFFF
