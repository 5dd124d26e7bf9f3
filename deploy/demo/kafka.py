"""The demo's Kafka: an embedded one, or the one that ZMU_KAFKA__BOOTSTRAP_SERVERS names; and its topics there."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.admin import NewTopic

from deploy.demo.broker import EmbeddedBroker
from deploy.demo.jars import KAFKA_VERSION
from worker import cli
from worker.kafka.brokers import client_options, explained
from worker.settings import KafkaSettings

PARTITIONS = 4
_GIVEN = "ZMU_KAFKA__BOOTSTRAP_SERVERS"


@dataclass(frozen=True)
class DemoKafka:
    settings: KafkaSettings
    what: str                   # for people
    input: str
    output: str
    dead_letters: str

    def environment(self) -> dict[str, str]:
        """What points zmu's programs to it. How to log in they read from the same environment as we did."""
        return {
            _GIVEN: self.settings.bootstrap_servers,
            "ZMU_INPUT__TOPIC": self.input,
            "ZMU_OUTPUT__TOPIC": self.output,
            "ZMU_DEAD_LETTERS__TOPIC": self.dead_letters,
            # It leaves nothing behind on a Kafka that is not its own, and is not started again.
            "ZMU_INCIDENTS__ENABLED": "false",
            "ZMU_STATE__SNAPSHOT_SECONDS": "0",
        }

    def anomalies(self) -> KafkaConsumer:
        """A consumer of the whole output topic, from its beginning, outside any group."""
        with explained(self.settings):
            consumer = KafkaConsumer(
                **client_options(self.settings),
                isolation_level="read_committed",
                auto_offset_reset="earliest",
                enable_auto_commit=False,
                allow_auto_create_topics=False,
            )
            consumer.assign([TopicPartition(self.output, partition) for partition in range(PARTITIONS)])
        return consumer


@contextlib.contextmanager
def running() -> Iterator[DemoKafka]:
    """With topics made. In a given Kafka they have names of their own, so that none of its topics is touched, and
    go at the end.

    Raises BrokerError where Kafka cannot be started, reached or lacks the right to make topics.
    """
    settings = cli.read(cli.Command, "python -m deploy.demo", []).kafka
    if _GIVEN in os.environ:
        own = f"zmu-demo-{uuid.uuid4().hex[:6]}."
        given = DemoKafka(
            settings, f"Kafka at {settings.bootstrap_servers}", f"{own}sensor-readings", f"{own}sensor-anomalies",
            f"{own}sensor-readings.dlq",
        )
        with _topics(given):
            yield given
    else:
        with EmbeddedBroker() as broker:
            embedded = DemoKafka(
                KafkaSettings(bootstrap_servers=broker.bootstrap_servers),
                f"Apache Kafka {KAFKA_VERSION} at {broker.bootstrap_servers}",
                "sensor-readings", "sensor-anomalies", "sensor-readings.dlq",
            )
            with _topics(embedded):
                yield embedded


@contextlib.contextmanager
def _topics(kafka: DemoKafka) -> Iterator[None]:
    names = [kafka.input, kafka.output, kafka.dead_letters]
    with explained(kafka.settings):
        admin = KafkaAdminClient(**client_options(kafka.settings))
    try:
        with explained(kafka.settings):
            admin.create_topics([NewTopic(name, PARTITIONS, -1) for name in names])
            admin.wait_for_topics(names)
        try:
            yield
        finally:
            with explained(kafka.settings):
                admin.delete_topics(names)
    finally:
        admin.close()
