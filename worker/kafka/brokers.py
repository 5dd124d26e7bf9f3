"""What every Kafka client here shares: how it connects, and what its errors mean to a user."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer
from kafka.errors import (
    AuthorizationError,
    KafkaError,
    KafkaTimeoutError,
    RetriableError,
    SaslAuthenticationFailedError,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
)

from worker.errors import BrokerError, BrokerUnreachable
from worker.settings import KafkaSettings, Settings

BOOTSTRAP_MS = 10_000


def client_options(settings: KafkaSettings) -> dict[str, Any]:
    """Arguments that consumer, producer and admin client have in common."""
    options: dict[str, Any] = {
        "bootstrap_servers": [server.strip() for server in settings.bootstrap_servers.split(",")],
        "client_id": settings.client_id,
        "security_protocol": settings.security_protocol,
        "request_timeout_ms": settings.request_timeout_ms,
        "bootstrap_timeout_ms": BOOTSTRAP_MS,
    }
    if settings.security_protocol.startswith("SASL"):
        options |= {
            "sasl_mechanism": settings.sasl_mechanism,
            "sasl_plain_username": settings.username,
            "sasl_plain_password": settings.password.get_secret_value() if settings.password else None,
        }
    if settings.security_protocol.endswith("SSL"):
        options |= {
            "ssl_check_hostname": settings.ssl_check_hostname,
            "ssl_cafile": _path(settings.ssl_cafile),
            "ssl_certfile": _path(settings.ssl_certfile),
            "ssl_keyfile": _path(settings.ssl_keyfile),
            "ssl_password": settings.ssl_password.get_secret_value() if settings.ssl_password else None,
        }
    return options


@contextlib.contextmanager
def explained(settings: KafkaSettings) -> Iterator[None]:
    """Turns what kafka-python raises into one message that names the broker and the setting."""
    try:
        yield
    except KafkaError as error:
        kind = BrokerUnreachable if isinstance(error, RetriableError) else BrokerError
        raise kind(explain(error, settings)) from error
    except (OSError, ValueError) as error:          # certificate files, malformed addresses
        raise BrokerError(f"Kafka client: {error}; see the ZMU_KAFKA__… settings") from error


def explain(error: KafkaError, settings: KafkaSettings) -> str:
    where = settings.bootstrap_servers
    if isinstance(error, KafkaTimeoutError):
        return (
            f"no answer from Kafka at {where} ({error}); set ZMU_KAFKA__BOOTSTRAP_SERVERS to a reachable broker, "
            "and ZMU_KAFKA__SECURITY_PROTOCOL to what it speaks"
        )
    if isinstance(error, SaslAuthenticationFailedError):
        return f"Kafka at {where} refused the login; see ZMU_KAFKA__USERNAME, …__PASSWORD and …__SASL_MECHANISM"
    if isinstance(error, AuthorizationError):
        return f"Kafka at {where} denies a right: {error}; docs/delivery.md lists the rights that are needed"
    return f"Kafka at {where}: {error or type(error).__name__}"


def require_topics(consumer: KafkaConsumer, settings: KafkaSettings, *topics: str) -> None:
    """Raises BrokerError where a topic is not there: none is created behind the operator's back."""
    with explained(settings):
        missing = []
        for topic in topics:
            try:
                if not consumer.partitions_for_topic(topic):
                    missing.append(topic)
            except UnknownTopicOrPartitionError:
                missing.append(topic)
    if missing:
        raise BrokerError(
            f"Kafka at {settings.bootstrap_servers} has no topic {', '.join(map(repr, missing))}; create it "
            f"(python -m kafka.admin -b {settings.bootstrap_servers} topics create -t {missing[0]} "
            "--num-partitions 4) or name another in ZMU_INPUT__TOPIC, ZMU_OUTPUT__TOPIC, ZMU_DEAD_LETTERS__TOPIC"
        )


def ensure_incidents(settings: Settings) -> bool:
    """Makes the compacted topic of incidents where it is wanted and not there. Returns True; raises BrokerError."""
    topic = settings.incidents.topic
    if not settings.incidents.enabled:
        return True
    with explained(settings.kafka):
        admin = KafkaAdminClient(**client_options(settings.kafka))
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
        finally:
            admin.close()


def _path(path: object) -> str | None:
    return None if path is None else str(path)


def require_topics_of(settings: Settings) -> bool:
    """The broker answers and the worker's three topics are there. Returns True; raises BrokerError."""
    with explained(settings.kafka):
        consumer = KafkaConsumer(
            **client_options(settings.kafka), enable_auto_commit=False, allow_auto_create_topics=False
        )
    try:
        topics = settings.input.topic, settings.output.topic, settings.dead_letters.topic
        require_topics(consumer, settings.kafka, *topics)
        return True
    finally:
        consumer.close()
