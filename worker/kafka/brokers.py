"""What every Kafka client here shares: how it connects, and what its errors mean to a user."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from kafka.errors import (
    AuthorizationError,
    KafkaError,
    KafkaTimeoutError,
    RetriableError,
    SaslAuthenticationFailedError,
    TopicAuthorizationFailedError,
)
from kafka.net.compat import KafkaNetClient

from worker.errors import BrokerError, BrokerUnreachable
from worker.kafka import knock, receiving, rights
from worker.kafka_settings import secret
from worker.settings import KafkaSettings

BOOTSTRAP_MS = 10_000
RECONNECT_MS = 2_000                    # 30 s by default: so long a broker that is back would not be looked for

Client = TypeVar("Client")


def client_options(settings: KafkaSettings) -> dict[str, Any]:
    """Arguments that consumer, producer and admin client have in common. Raises BrokerError for unusable files."""
    options: dict[str, Any] = {
        "bootstrap_servers": [server.strip() for server in settings.bootstrap_servers.split(",")],
        "client_id": settings.client_id,
        "security_protocol": settings.security_protocol,
        "request_timeout_ms": settings.request_timeout_ms,
        "bootstrap_timeout_ms": BOOTSTRAP_MS,
        "reconnect_backoff_max_ms": RECONNECT_MS,
    }
    if settings.security_protocol.startswith("SASL"):
        options |= {
            "sasl_mechanism": settings.sasl_mechanism,
            "sasl_plain_username": settings.username,
            "sasl_plain_password": secret("ZMU_KAFKA__PASSWORD", settings.password, settings.password_file),
        }
    if settings.security_protocol.endswith("SSL"):
        options |= {
            "ssl_check_hostname": settings.ssl_check_hostname,
            "ssl_cafile": _path(settings.ssl_cafile),
            "ssl_certfile": _path(settings.ssl_certfile),
            "ssl_keyfile": _path(settings.ssl_keyfile),
            # Without a password, OpenSSL would ask for that of a sealed key on the terminal.
            "ssl_password": secret("ZMU_KAFKA__SSL_PASSWORD", settings.ssl_password, settings.ssl_password_file) or "",
        }
        knock.tls_context(options)          # kafka-python would try bad files again and again
    return options


def opened(kind: Callable[..., Client], **options: Any) -> Client:
    """A client of kafka-python, which itself leaves a thread and its sockets behind where no broker lets it in.

    Raises KafkaError and OSError.
    """
    left: list[KafkaNetClient] = []

    def remembered(**given: Any) -> KafkaNetClient:
        left.append(KafkaNetClient(**given))
        receiving.widen(left[-1])
        return left[-1]

    try:
        return kind(**options, kafka_client=remembered)
    except BaseException:
        for net in left:
            net.close()
        raise


@contextlib.contextmanager
def explained(settings: KafkaSettings) -> Iterator[None]:
    """Turns what kafka-python raises into one message that names the broker and the setting."""
    try:
        yield
    except KafkaError as error:
        refusal = _refusal(settings) if isinstance(error, KafkaTimeoutError) else None
        if refusal is not None:
            raise BrokerError(refusal) from error
        kind = BrokerUnreachable if isinstance(error, RetriableError) else BrokerError
        raise kind(explain(error, settings)) from error
    except (OSError, ValueError) as error:          # certificate files, malformed addresses
        raise BrokerError(f"Kafka client: {error}; see the ZMU_KAFKA__… settings") from error


def _refusal(settings: KafkaSettings) -> str | None:
    """Why no broker answers, where one says so at the door; or why none can be asked: a secret is being renewed."""
    try:
        return knock.refusal(client_options(settings))
    except (OSError, ValueError) as error:
        return f"Kafka client: {error}; see the ZMU_KAFKA__… settings"


def explain(error: KafkaError, settings: KafkaSettings) -> str:
    where = settings.bootstrap_servers
    if isinstance(error, KafkaTimeoutError):
        return (
            f"no answer from Kafka at {where} ({error}); set ZMU_KAFKA__BOOTSTRAP_SERVERS to a reachable broker, "
            "and ZMU_KAFKA__SECURITY_PROTOCOL to what it speaks"
        )
    if isinstance(error, SaslAuthenticationFailedError):
        return f"Kafka at {where} refused the login; see ZMU_KAFKA__USERNAME, …__PASSWORD and …__SASL_MECHANISM"
    if isinstance(error, TopicAuthorizationFailedError) and error.args:
        topics = [error.args[0]] if isinstance(error.args[0], str) else sorted(error.args[0])
        return rights.denied(settings, [rights.Right("Read", "topic", topic) for topic in topics])
    if isinstance(error, AuthorizationError):
        return f"Kafka at {where} denies a right: {error}; docs/security.md lists the rights that are needed"
    return f"Kafka at {where}: {error or type(error).__name__}"


def absent(settings: KafkaSettings, topics: Sequence[str]) -> str:
    """What a user is told whose topics are not there."""
    return (
        f"Kafka at {settings.bootstrap_servers} has no topic {', '.join(map(repr, topics))}; create it "
        f"(python -m kafka.admin -b {settings.bootstrap_servers} topics create -t {topics[0]} "
        "--num-partitions 4) or name another in ZMU_INPUT__TOPIC, ZMU_OUTPUT__TOPIC, ZMU_DEAD_LETTERS__TOPIC"
    )


def _path(path: object) -> str | None:
    return None if path is None else str(path)
