"""What this user may do with topics, group and transactional id, asked of the brokers before a record is read.

Brokers say of a topic which operations they allow (KIP-430). Of a group and a transactional id they are asked by
requests that need the right and change nothing: a heartbeat of no member, and offsets in the name of no producer.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from kafka import KafkaAdminClient
from kafka.errors import (
    AuthorizationError,
    GroupAuthorizationFailedError,
    IncompatibleBrokerVersion,
    KafkaError,
    RetriableError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailedError,
    for_code,
)
from kafka.protocol.consumer import HeartbeatRequest
from kafka.protocol.metadata import CoordinatorType
from kafka.protocol.producer.transaction import AddOffsetsToTxnRequest

from worker.settings import KafkaSettings

Kind = Literal["topic", "group", "transactional-id"]
NOBODY = 2**62                          # no producer has that id
PATIENCE_SECONDS = 10.0


class Right(NamedTuple):
    """prefixed: what is granted holds for all names that begin so."""

    operation: Literal["Read", "Write", "Create"]
    kind: Kind
    name: str
    prefixed: bool = False

    def __str__(self) -> str:
        return f"{self.operation} on {self.kind} {self.name!r}"


def grant(kafka: KafkaSettings, right: Right) -> str:
    """The command that gives a right to this user."""
    who = f"User:{kafka.username}" if kafka.security_protocol.startswith("SASL") else "User:NAME"
    return (
        f"kafka-acls.sh --bootstrap-server {kafka.bootstrap_servers} --add --allow-principal '{who}' "
        f"--operation {right.operation} --{right.kind} '{right.name}'"
        f"{' --resource-pattern-type prefixed' if right.prefixed else ''}"
    )


def denied(kafka: KafkaSettings, rights: Sequence[Right]) -> str:
    """What a user is told who lacks these."""
    named = ", ".join(map(str, rights))
    commands = "\n".join(f"  {grant(kafka, right)}" for right in rights)
    if "User:NAME" in commands:
        commands += "\n  (NAME is what the brokers make of the client's certificate: its subject, if no rule says else)"
    return f"Kafka at {kafka.bootstrap_servers} denies this user {named}. Grant it:\n{commands}"


def lacking_on_topics(described: Mapping[str, Mapping[str, Any]], wanted: Sequence[Right]) -> list[Right]:
    """Of the wanted ones, those that the brokers deny. described: by topic, as describe_topics says it."""
    lacking = []
    for right in wanted:
        topic = described[right.name]
        if for_code(topic["error_code"]) is TopicAuthorizationFailedError:
            lacking.append(right)
            continue
        allowed = topic.get("authorized_operations")
        # One that was described may be described: where even that is not said, the broker does not say such things.
        if allowed and "DESCRIBE" in allowed and right.operation.upper() not in allowed:
            lacking.append(right)
    return lacking


def may_join(admin: KafkaAdminClient, group_id: str) -> bool:
    """Whether this user may Read the group: be a member, and commit. Raises KafkaError."""
    request = HeartbeatRequest(group_id=group_id, generation_id=0, member_id="nobody", group_instance_id=None)
    return not _refused(admin, group_id, CoordinatorType.GROUP, request, GroupAuthorizationFailedError)


def may_write_transactions(admin: KafkaAdminClient, transactional_id: str, group_id: str) -> bool:
    """Whether this user may Write under the id. Raises KafkaError."""
    request = AddOffsetsToTxnRequest(
        transactional_id=transactional_id, producer_id=NOBODY, producer_epoch=0, group_id=group_id
    )
    kind = CoordinatorType.TRANSACTION
    return not _refused(admin, transactional_id, kind, request, TransactionalIdAuthorizationFailedError)


def may_create(admin: KafkaAdminClient, topic: str) -> bool:
    """Whether this user may make that topic; nothing is made. Raises KafkaError."""
    try:
        admin.create_topics({topic: {"num_partitions": 1}}, validate_only=True)
    except AuthorizationError:
        return False
    except RetriableError:
        raise
    except KafkaError:
        return True                         # refused for another reason, which making it in earnest will tell
    return True


def _refused(admin: KafkaAdminClient, key: str, kind: Any, request: Any, refusal: type[KafkaError]) -> bool:
    async def ask() -> Any:
        coordinator = await admin._find_coordinator_id(key, kind)
        return await admin._manager.send(request, node_id=coordinator)

    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            answer = admin._manager.run(ask)
        except refusal:                     # by the search for the coordinator already, which wants Describe
            return True
        except IncompatibleBrokerVersion:
            return False
        except RetriableError:              # a new cluster makes the coordinators' topics at the first question
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return for_code(answer.error_code) is refusal
