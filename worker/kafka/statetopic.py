"""The topic of state snapshots: one partition for each of the input's, compacted. The worker makes it and lets it grow.

Compaction keeps the last record of each entity for ever; nothing else may delete one.
"""

from __future__ import annotations

import time
from typing import Any

from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import (
    AuthorizationError,
    InvalidPartitionsError,
    KafkaError,
    RetriableError,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
    for_code,
)

from worker import log
from worker.errors import BrokerError

CONFIGS = {
    "cleanup.policy": "compact",
    # The newest segment is never compacted and the rest only when a third of it is outdated: together they are what
    # a load reads in vain.
    "segment.bytes": str(32 * 2**20),
    "segment.ms": str(600_000),
    "min.cleanable.dirty.ratio": "0.3",
}
WAIT_SECONDS = 15.0


def name_for(group_id: str) -> str:
    """Raises BrokerError where the group's name cannot be part of a topic's."""
    name = f"{group_id}-state"
    if not (name.isascii() and name.translate(str.maketrans("", "", "._-")).isalnum()) or len(name) > 249:
        raise BrokerError(
            f"the state topic is named after the group, and {name!r} is no topic name: ZMU_INPUT__GROUP_ID may have up "
            "to 243 of the characters a-z A-Z 0-9 . _ - where a model keeps state"
        )
    return name


def ensure(admin: KafkaAdminClient, topic: str, input_topic: str) -> str:
    """Makes the topic, or adds partitions, until it has as many as the input; returns the topic's id, in hex.

    Raises BrokerError for what the operator has to mend, and KafkaError.
    """
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        needed, _ = _described(admin, input_topic)
        if not needed:
            raise BrokerError(f"there is no topic {input_topic!r}; create it, or name another in ZMU_INPUT__TOPIC")
        found, topic_id = _described(admin, topic)
        if found >= needed:
            _require_compaction(admin, topic)
            return topic_id
        if time.monotonic() > deadline:
            raise BrokerError(f"topic {topic!r} still has {found} of {needed} partitions {WAIT_SECONDS:g} s later")
        try:
            if found:
                admin.create_partitions({topic: needed})
            else:
                admin.create_topics({topic: {"num_partitions": needed, "configs": CONFIGS}})
            log.get("state").info("state topic made ready", topic=topic, partitions=needed, before=found)
            admin.wait_for_topics([topic])
        except (TopicAlreadyExistsError, InvalidPartitionsError):
            time.sleep(0.2)             # another worker was faster, or this one does not see its own work yet
        except RetriableError:
            raise
        except KafkaError as error:
            raise BrokerError(
                f"topic {topic!r} has {found} partitions and needs {needed}, one for each of {input_topic!r}; the "
                f"broker refuses to make them ({type(error).__name__}: {error}). Give the worker the rights that "
                "docs/security.md lists, or make them by hand; cleanup.policy=compact"
            ) from error


def _described(admin: KafkaAdminClient, topic: str) -> tuple[int, str]:
    """Partitions (0: there is no such topic) and id."""
    (found,) = admin.describe_topics([topic])
    error = for_code(found["error_code"])
    if error is UnknownTopicOrPartitionError:
        return 0, ""
    if found["error_code"]:
        raise error(topic)
    return len(found["partitions"]), str(found.get("topic_id") or "").replace("-", "")


def _require_compaction(admin: KafkaAdminClient, topic: str) -> None:
    resource = ConfigResource(ConfigResourceType.TOPIC, topic, {"cleanup.policy": None})
    try:
        configs: Any = admin.describe_configs([resource], config_filter="all")
    except AuthorizationError:
        configs = {}
    found = configs.get("topic", {}).get(topic, {}).get("cleanup.policy")     # nothing at all where it may not be read
    if found is None:
        log.get("state").info("the state topic's settings may not be read; cleanup.policy=compact is taken for granted")
        return
    policy = found["value"]
    if policy != "compact":
        raise BrokerError(
            f"topic {topic!r} has cleanup.policy={policy}, which deletes the state of entities that are silent for "
            f"long; set it to compact (kafka-configs.sh --alter --topic {topic} --add-config cleanup.policy=compact)"
        )
