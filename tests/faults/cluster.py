"""Three brokers on this machine, each of them controller as well: one may die, and the others go on."""

from __future__ import annotations

import base64
import contextlib
import subprocess
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

from kafka import KafkaAdminClient

from deploy.demo.broker import EmbeddedBroker
from deploy.demo.ports import free_port
from deploy.demo.tether import tethered
from tests.programs import until

HEAP_MB = 256
NODES = 3


class Node(EmbeddedBroker):
    """One of them. It starts in a thread of its own: a broker ends with the thread that started it."""

    def __init__(self, cluster_id: str, properties: Mapping[str, str]) -> None:
        super().__init__(properties=properties, heap_mb=HEAP_MB)
        self._cluster_id = cluster_id
        self.thread = ThreadPoolExecutor(1)

    def _format(self, config: Path) -> None:
        command = self._java("kafka.tools.StorageTool", "format", "-t", self._cluster_id, "-c", str(config))
        with self.log_path.open("ab") as log:
            subprocess.run(tethered(command), stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=True)


class Cluster:
    """A context manager. Every topic has three replicas, of which two have to have what is acknowledged."""

    replicas = NODES

    def __init__(self, properties: Mapping[str, str] | None = None) -> None:
        cluster_id = base64.urlsafe_b64encode(b"\0" + uuid.uuid4().bytes[1:]).rstrip(b"=").decode()
        ports = [free_port() for _ in range(NODES)]
        self.nodes = {
            number: Node(cluster_id, _properties(number, ports) | dict(properties or {}))
            for number in range(1, NODES + 1)
        }
        for number, node in self.nodes.items():
            host = f"PLAINTEXT://{node.bootstrap_servers}"
            node._properties["listeners"] = f"{host},CONTROLLER://127.0.0.1:{ports[number - 1]}"
        self.bootstrap_servers = ",".join(node.bootstrap_servers for node in self.nodes.values())

    def __enter__(self) -> Self:
        for start in [node.thread.submit(node.start, 120) for node in self.nodes.values()]:
            start.result()
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.nodes.values():
            node.kill()                 # in order, each would wait for a quorum
            node.close()
            node.thread.shutdown()

    def start(self, number: int) -> None:
        self.nodes[number].thread.submit(self.nodes[number].start, 120).result()

    def leader(self, topic: str, partition: int) -> int:
        with contextlib.closing(KafkaAdminClient(bootstrap_servers=self.bootstrap_servers)) as admin:
            return int(_partition(admin, topic, partition)["leader_id"])

    def leader_for(self, topic: str, key: str) -> int:
        """Of the partition of an internal topic that a group or a transactional id belongs to."""
        with contextlib.closing(KafkaAdminClient(bootstrap_servers=self.bootstrap_servers)) as admin:
            count = len(admin.describe_topics([topic])[0]["partitions"])
        return self.leader(topic, _hash(key) % count)

    def whole(self, topics: list[str]) -> None:
        """Waits until every replica is in sync."""
        with contextlib.closing(KafkaAdminClient(bootstrap_servers=self.bootstrap_servers)) as admin:
            until(
                lambda: all(
                    len(each["isr_nodes"]) == NODES
                    for topic in admin.describe_topics([*topics, "__consumer_offsets", "__transaction_state"])
                    for each in topic["partitions"]
                ), 120,
            )


def _properties(number: int, ports: list[int]) -> dict[str, str]:
    return {
        "node.id": str(number),
        "controller.quorum.voters": ",".join(f"{n}@127.0.0.1:{port}" for n, port in enumerate(ports, 1)),
        "default.replication.factor": str(NODES),
        "min.insync.replicas": "2",
        "offsets.topic.replication.factor": str(NODES),
        "transaction.state.log.replication.factor": str(NODES),
        "transaction.state.log.min.isr": "2",
        "controller.quorum.election.timeout.ms": "1500",
        "controller.quorum.fetch.timeout.ms": "3000",
    }


def _partition(admin: KafkaAdminClient, topic: str, partition: int) -> dict[str, object]:
    found = admin.describe_topics([topic])[0]["partitions"]
    return next(each for each in found if each["partition_index"] == partition)     # type: ignore[no-any-return]


def _hash(text: str) -> int:
    """Java's String.hashCode without its sign, as Kafka's coordinators choose their partition."""
    value = 0
    for character in text:
        value = (31 * value + ord(character)) & 0xFFFFFFFF
    return value & 0x7FFFFFFF
