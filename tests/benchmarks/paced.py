"""Sender and subscriber of the latency benchmark, each a process of its own that loads nothing else.

    python -m tests.benchmarks.paced send BROKER TOPIC READINGS_A_SECOND SECONDS
    python -m tests.benchmarks.paced listen BROKER TOPIC

The subscriber says "ready" when it stands at the topic's end, and at the end of its stdin what came: a line of JSON of
timestamps and ages, both in milliseconds.
"""

from __future__ import annotations

import datetime
import json
import sys
import threading
import time

from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from tests.benchmarks.readings import ENTITIES, KINDS, payloads

TICK_SECONDS = 0.005


def send(broker: str, topic: str, pace: int, seconds: float) -> None:
    """Readings of now, every tick a handful."""
    producer = KafkaProducer(bootstrap_servers=broker, linger_ms=0, metrics_enabled=False)
    producer.partitions_for(topic)
    tails = [payload.split(b",", 1)[1] for payload in payloads("named")]
    start, sent = time.monotonic(), 0
    while (passed := time.monotonic() - start) < seconds:
        while sent < passed * pace:
            stamp = b'{"timestamp":%d,' % (time.time_ns() // 1_000_000)
            producer.send(topic, value=stamp + tails[sent % KINDS], key=b"pump-%d" % (sent % ENTITIES))
            sent += 1
        time.sleep(TICK_SECONDS)
    producer.flush()
    producer.close()


def listen(broker: str, topic: str) -> None:
    consumer = KafkaConsumer(
        bootstrap_servers=broker, fetch_max_wait_ms=100, isolation_level="read_committed", metrics_enabled=False
    )
    partitions = [TopicPartition(topic, partition) for partition in consumer.partitions_for_topic(topic)]
    consumer.assign(partitions)
    consumer.seek_to_end()
    for partition in partitions:
        consumer.position(partition)
    print("ready", flush=True)
    enough = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), enough.set()), daemon=True).start()
    came: list[tuple[float, bytes]] = []
    while not enough.is_set():
        for records in consumer.poll(timeout_ms=100).values():
            now_ms = time.time() * 1000
            came += [(now_ms, record.value) for record in records]
    stamps = [timestamp_ms(json.loads(value)["timestamp"]) for _, value in came]
    print(json.dumps([(stamp, now_ms - stamp) for stamp, (now_ms, _) in zip(stamps, came, strict=True)]))
    consumer.close()


def timestamp_ms(said: str | int) -> float:
    return said if isinstance(said, int) else datetime.datetime.fromisoformat(said).timestamp() * 1000


if __name__ == "__main__":
    if sys.argv[1] == "send":
        send(*sys.argv[2:4], int(sys.argv[4]), float(sys.argv[5]))
    else:
        listen(*sys.argv[2:4])
