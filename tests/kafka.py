"""The Kafka that tests talk to: a given one, one in a container, or one embedded; always a real one.

ZMU_KAFKA__BOOTSTRAP_SERVERS names a given one. ZMU_TEST_BROKER=embedded or docker asks for that kind and no other.
ZMU_TEST_KAFKA_IMAGE names the container's image (apache/kafka:4.3.0).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import docker
from docker.errors import DockerException
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer
from testcontainers.core.wait_strategies import LogMessageWaitStrategy

from deploy.demo.broker import EmbeddedBroker, single_node
from deploy.demo.jars import KAFKA_VERSION
from deploy.demo.ports import free_port
from tests import kafka_image

KINDS = ("embedded", "docker")


class Broker(Protocol):
    how: str                    # what the test report says

    def start(self) -> str:
        """Returns bootstrap servers."""

    def stop(self) -> None: ...


class Given:
    def __init__(self, address: str) -> None:
        self._address = address
        self.how = f"given by ZMU_KAFKA__BOOTSTRAP_SERVERS: {address}"

    def start(self) -> str:
        return self._address

    def stop(self) -> None:
        pass


class Embedded:
    def __init__(self, why: str = "") -> None:
        self._broker: EmbeddedBroker | None = None
        self.how = f"embedded Apache Kafka {KAFKA_VERSION}{why}"

    def start(self) -> str:
        self._broker = EmbeddedBroker()
        return self._broker.start().bootstrap_servers

    def stop(self) -> None:
        if self._broker is not None:
            self._broker.close()


class Container:
    """By testcontainers. The listener's port is the same inside and outside, as Kafka has to advertise it."""

    def __init__(self) -> None:
        self.how = f"testcontainers, image {_wanted_image()}"
        self._container: DockerContainer | None = None

    def start(self) -> str:
        client = docker.from_env()
        try:
            image = _available_image(client)
            bridged = bool(client.networks.list(names=["bridge"]))
        finally:
            client.close()
        port = free_port()
        container = DockerContainer(image)
        # An engine started without its own network rules has the host's network only.
        container = container.with_bind_ports(port, port) if bridged else container.with_kwargs(network_mode="host")
        address = f"{container.get_docker_client().host()}:{port}"
        for name, value in single_node(f"0.0.0.0:{port}", address, free_port(), "/tmp/kafka-data").items():
            container.with_env(f"KAFKA_{name.upper().replace('.', '_')}", value)
        container.waiting_for(LogMessageWaitStrategy("Kafka Server started").with_startup_timeout(120))
        self._container = container
        self.how = f"testcontainers, image {image}"
        try:
            container.start()
        except Exception:
            self.stop()
            raise
        return address

    def stop(self) -> None:
        if self._container is not None:
            self._container.stop()
            self._container = None


def chosen() -> Broker:
    """Not started yet."""
    kind = os.environ.get("ZMU_TEST_BROKER", "")
    if kind not in ("", *KINDS):
        raise ValueError(f"ZMU_TEST_BROKER={kind}: it must be one of {', '.join(KINDS)}")
    address = os.environ.get("ZMU_KAFKA__BOOTSTRAP_SERVERS")
    if kind == "embedded":
        return Embedded()
    if kind == "docker":
        return Container()
    if address:
        return Given(address)
    return Container() if engine_answers() else Embedded(" (no Docker engine answers)")


def started() -> tuple[Broker, str]:
    """The chosen broker and its bootstrap servers. An engine that cannot run Kafka is passed over, unless asked for."""
    broker = chosen()
    try:
        return broker, broker.start()
    except Exception as error:
        if not isinstance(broker, Container) or os.environ.get("ZMU_TEST_BROKER") == "docker":
            raise
        embedded = Embedded(f" (the Docker engine could not run it: {str(error).splitlines()[0][:200]})")
        return embedded, embedded.start()


def engine_answers() -> bool:
    try:
        client = docker.from_env(timeout=5)
    except DockerException:
        return False
    try:
        return bool(client.ping())
    except Exception:           # docker-py lets some of requests' errors through
        return False
    finally:
        client.close()


def fill(
    bootstrap_servers: str, topic: str, values: Sequence[bytes | None], keys: Sequence[bytes | None] | None = None
) -> None:
    """Sends the values in order and waits until all are acknowledged."""
    producer = KafkaProducer(bootstrap_servers=bootstrap_servers, linger_ms=5)
    try:
        sent = [
            producer.send(topic, value=value, key=key)
            for value, key in zip(values, keys or [None] * len(values), strict=True)
        ]
        for future in sent:
            future.get(timeout=30)
    finally:
        producer.close(timeout=10)


def contents(bootstrap_servers: str, topic: str, isolation_level: str = "read_uncommitted") -> list[ConsumerRecord]:
    """All that the topic holds now, by partition and offset."""
    return sorted(_read(bootstrap_servers, topic, isolation_level), key=lambda r: (r.partition, r.offset))


def _read(bootstrap_servers: str, topic: str, isolation_level: str) -> Iterator[ConsumerRecord]:
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap_servers,
        isolation_level=isolation_level,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        allow_auto_create_topics=False,
    )
    try:
        partitions = [TopicPartition(topic, p) for p in sorted(consumer.partitions_for_topic(topic) or ())]
        if not partitions:
            raise AssertionError(f"there is no topic {topic}")
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        ends: Mapping[TopicPartition, int] = consumer.end_offsets(partitions)
        while any(consumer.position(p) < ends[p] for p in partitions):
            for records in consumer.poll(timeout_ms=200).values():
                yield from records
    finally:
        consumer.close()


def _wanted_image() -> str:
    return os.environ.get("ZMU_TEST_KAFKA_IMAGE", f"apache/kafka:{KAFKA_VERSION}")


def _available_image(client: docker.DockerClient) -> str:
    wanted = _wanted_image()
    if client.images.list(name=wanted):
        return wanted
    try:
        client.images.pull(*wanted.rsplit(":", 1))
    except DockerException:
        if "ZMU_TEST_KAFKA_IMAGE" in os.environ:
            raise
        # Nor can the reaper's image be pulled then; the container goes with the test session.
        testcontainers_config.ryuk_disabled = True
        return kafka_image.built(client)
    return wanted
