"""A transaction that is known to have been given up, given up once more, in every place that it wrote to.

A broker may tell all that a transaction is over and have ended it nowhere: one that has just started, and has no leader
for its partitions yet, takes them for deleted and passes them over (KAFKA-20734: Kafka 4.3.0 at least). What was
written stays open then: readers of committed records wait there for ever, and the next commit under the same name shows
it. The markers of an aborted transaction that names the same places end it there.
"""

from __future__ import annotations

import time
from collections.abc import Collection

from kafka import KafkaProducer, TopicPartition
from kafka.errors import KafkaTimeoutError
from kafka.structs import ConsumerGroupMetadata

TICK_SECONDS = 0.01


def sweep(
    producer: KafkaProducer, partitions: Collection[TopicPartition], group_id: str | None, timeout_seconds: float
) -> None:
    """By a producer that has just been initialised. group_id: of offsets that were in it, too. Raises KafkaError."""
    manager = producer._transaction_manager
    producer.begin_transaction()
    for tp in partitions:
        manager.maybe_add_partition_to_transaction(tp)
    producer._sender.wakeup()
    deadline = time.monotonic() + timeout_seconds
    while not all(manager.is_partition_added(tp) for tp in partitions):
        if manager.last_error is not None:
            raise manager.last_error
        if time.monotonic() > deadline:
            raise KafkaTimeoutError(f"partitions were not added to a transaction for {timeout_seconds:g} s")
        time.sleep(TICK_SECONDS)
    if group_id is not None:
        producer.send_offsets_to_transaction({}, ConsumerGroupMetadata(group_id=group_id))
    producer.abort_transaction()
