"""What the worker must find in Kafka before it reads a record: its topics, and the rights to use them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from kafka import KafkaAdminClient
from kafka.errors import AuthorizationError, TopicAlreadyExistsError, UnknownTopicOrPartitionError, for_code

from worker.errors import BrokerError
from worker.kafka import rights, statetopic
from worker.kafka.brokers import absent, client_options, explained, opened
from worker.kafka.replica import transactional_id_of
from worker.kafka.rights import Right
from worker.settings import KafkaSettings, Settings


def require_topics_of(settings: Settings) -> bool:
    """The broker answers, the worker's topics are there, and this user may do with them what the worker does.

    Returns True; raises BrokerError, with all that is missing at once.
    """
    own = _made(settings)
    wanted = [
        Right("Read", "topic", settings.input.topic),
        Right("Write", "topic", settings.output.topic),
        Right("Write", "topic", settings.dead_letters.topic),
        *own,
    ]
    with _admin(settings.kafka) as admin:
        lacking, missing = _topics(admin, wanted)
        made = {right.name for right in own}
        lacking += [
            Right("Create", "topic", name) for name in sorted(made & missing) if not rights.may_create(admin, name)
        ]
        lacking += _denied_names(admin, settings)
    if lacking:
        raise BrokerError(rights.denied(settings.kafka, lacking))
    if missing - made:
        raise BrokerError(absent(settings.kafka, [right.name for right in wanted if right.name in missing - made]))
    return True


def require_topic(kafka: KafkaSettings, right: Right) -> None:
    """Raises BrokerError where the topic is not there, or this user lacks the right to it."""
    with _admin(kafka) as admin:
        lacking, missing = _topics(admin, [right])
    if lacking:
        raise BrokerError(rights.denied(kafka, lacking))
    if missing:
        raise BrokerError(absent(kafka, [right.name]))


@contextlib.contextmanager
def _admin(kafka: KafkaSettings) -> Iterator[KafkaAdminClient]:
    with explained(kafka):
        admin = opened(KafkaAdminClient, **client_options(kafka))
        try:
            yield admin
        finally:
            admin.close()


def _topics(admin: KafkaAdminClient, wanted: Sequence[Right]) -> tuple[list[Right], set[str]]:
    """Of the wanted ones, those that are denied; and the names of topics that are not there."""
    described = {each["name"]: each for each in admin.describe_topics(sorted({right.name for right in wanted}))}
    missing = {name for name, each in described.items() if for_code(each["error_code"]) is UnknownTopicOrPartitionError}
    return rights.lacking_on_topics(described, wanted), missing


def _made(settings: Settings) -> list[Right]:
    """What it does with the topics that it makes itself where they are missing."""
    found = []
    if settings.incidents.enabled:
        found.append(Right("Write", "topic", settings.incidents.topic))
    if settings.state.snapshot_seconds:
        state = statetopic.name_for(settings.input.group_id)
        found += [Right("Read", "topic", state), Right("Write", "topic", state)]
    return found


def _denied_names(admin: KafkaAdminClient, settings: Settings) -> list[Right]:
    """Group and transactional id."""
    group_id, asked = settings.input.group_id, settings.output.transactional_id
    found = []
    if not rights.may_join(admin, group_id):
        found.append(Right("Read", "group", group_id))
    if settings.output.delivery == "exactly-once":
        own = transactional_id_of(settings)
        if not rights.may_write_transactions(admin, own, group_id):
            found.append(Right("Write", "transactional-id", asked or f"{group_id}-", prefixed=asked is None))
    return found


def ensure_incidents(settings: Settings) -> bool:
    """Makes the compacted topic of incidents where it is wanted and not there. Returns True; raises BrokerError."""
    topic = settings.incidents.topic
    if not settings.incidents.enabled:
        return True
    with _admin(settings.kafka) as admin:
        try:
            found = {each["name"]: each for each in admin.describe_topics([settings.input.topic, topic])}
            if not found[topic]["error_code"]:
                return True
            partitions = len(found[settings.input.topic]["partitions"])
            configs = {"cleanup.policy": "compact"}
            with contextlib.suppress(TopicAlreadyExistsError):
                admin.create_topics({topic: {"num_partitions": partitions, "configs": configs}})
            admin.wait_for_topics([topic])
            return True
        except AuthorizationError as error:
            raise BrokerError(
                f"there is no topic {topic!r}, and this user may not make it; create it with cleanup.policy=compact, "
                "or set ZMU_INCIDENTS__ENABLED=false"
            ) from error
