"""The settings of brokers and topics: a part of worker/settings.py, which is where others take them from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    model_validator,
)


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _topic(name: str) -> str:
    allowed = name.isascii() and name.replace(".", "").replace("_", "").replace("-", "").isalnum()
    if not allowed or len(name) > 249:
        raise ValueError("a topic name has 1 to 249 of the characters a-z A-Z 0-9 . _ -")
    return name


TopicName = Annotated[str, AfterValidator(_topic)]


def secret(setting: str, given: SecretStr | None, file: Path | None) -> str | None:
    """A secret, from its setting or from the file that SETTING_FILE names, without the newline at its end.

    Raises ValueError where both are given, or the file holds none or cannot be read.
    """
    if file is None:
        return None if given is None else given.get_secret_value()
    if given is not None:
        raise ValueError(f"{setting} and {setting}_FILE are both given; give one")
    try:
        found = file.read_text().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        said = getattr(error, "strerror", None) or "not UTF-8"
        raise ValueError(f"{setting}_FILE={file} cannot be read ({said}); name a file that holds the secret") from None
    if not found:
        raise ValueError(f"{setting}_FILE={file} is empty; it must hold the secret")
    return found


class KafkaSettings(Section):
    bootstrap_servers: str = Field(
        "localhost:9092", description="Brokers to start from, `host:port`, several with commas."
    )
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="How to talk to the brokers. SASL needs a mechanism, username and password."
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = Field(
        None, description="How to log in, where the protocol is SASL_*."
    )
    username: str | None = Field(None, description="SASL user name.")
    password: SecretStr | None = Field(None, description="SASL password; best from a file in the secrets directory.")
    password_file: Path | None = Field(
        None, description="File that holds the SASL password instead; read whenever a client is built."
    )
    ssl_cafile: Path | None = Field(None, description="PEM file of the authority behind the brokers' certificates.")
    ssl_certfile: Path | None = Field(None, description="PEM file of the client's certificate (mutual TLS).")
    ssl_keyfile: Path | None = Field(None, description="PEM file of the client's key (mutual TLS).")
    ssl_password: SecretStr | None = Field(None, description="Password of the client's key.")
    ssl_password_file: Path | None = Field(None, description="File that holds the password of the key instead.")
    ssl_check_hostname: bool = Field(True, description="Whether a broker's certificate must name its host.")
    client_id: str = Field("zmu", description="Name under which the brokers' logs and quotas know this client.")
    request_timeout_ms: PositiveInt = Field(30_000, description="Milliseconds after which a request is given up.")
    session_timeout_ms: PositiveInt = Field(
        45_000,
        description="Milliseconds without a heartbeat after which the group gives a worker's partitions to others.",
    )
    max_poll_interval_ms: PositiveInt = Field(
        300_000,
        description="Milliseconds between polls after which a stuck worker loses its partitions; and for which one "
        "waits to be taken into its group before the watchdog counts.",
    )
    metadata_max_age_ms: PositiveInt = Field(
        60_000, description="Milliseconds after which partitions that were added to the input are seen."
    )

    @model_validator(mode="after")
    def login_is_complete(self) -> Self:
        if self.security_protocol.startswith("SASL"):
            needed = {
                "SASL_MECHANISM": self.sasl_mechanism,
                "USERNAME": self.username,
                "PASSWORD": self.password if self.password_file is None else self.password_file,
            }
            lacking = [f"ZMU_KAFKA__{name}" for name, value in needed.items() if value is None]
            if lacking:
                raise ValueError(f"{self.security_protocol} needs {', '.join(lacking)} as well")
        return self

    @model_validator(mode="after")
    def secrets_can_be_read(self) -> Self:
        secret("ZMU_KAFKA__PASSWORD", self.password, self.password_file)
        secret("ZMU_KAFKA__SSL_PASSWORD", self.ssl_password, self.ssl_password_file)
        return self


class InputSettings(Section):
    topic: TopicName = Field("sensor-readings", description="Topic of readings.")
    group_id: str = Field("zmu-worker", min_length=1, description="Consumer group; replicas of one worker share it.")
    features: tuple[str, ...] | None = Field(
        None,
        description="Names of the numbers in a reading, in order, as a JSON list. The worker takes them from the "
        "model and refuses a model with others; training infers the numeric columns where it is not given.",
    )
    ignore: tuple[str, ...] = Field((), description="Columns never used as features, such as labels; a JSON list.")
    entity_field: str | None = Field(
        None, description="Field that names the sensor or machine. Default: the message key."
    )
    timestamp_field: Annotated[str | None, BeforeValidator(lambda v: None if v == "null" else v)] = Field(
        "timestamp",
        description="Field with the reading's time: epoch ms, epoch s or RFC 3339. Where a reading lacks it, or "
        "with the word `null` here, Kafka's timestamp counts.",
    )
    values_field: str = Field("values", description="Field with all features as one array, in the model's order.")
    start: Literal["earliest", "latest"] = Field(
        "latest",
        description="Where a group without committed offsets starts; also where offsets have expired. A partition that "
        "is added later is read from its beginning.",
    )
    max_record_bytes: PositiveInt = Field(
        1_048_576, description="Readings larger than this, in bytes, are dead letters, unread."
    )
    max_depth: Annotated[int, Field(ge=1, le=512)] = Field(
        32, description="Readings with brackets nested deeper than this are dead letters, unread; 1 is a flat object."
    )
    max_fields: PositiveInt = Field(
        10_000,
        description="Readings with more fields and elements than this, at any depth, are dead letters, unread.",
    )
    fetch: Literal["batches", "records"] = Field(
        "batches",
        description="How records are taken from kafka-python. batches: whole, several times as fast; the worker goes "
        "back to records by itself where this kafka-python is not as known. records: one by one.",
    )
    assignor: Literal["range", "cooperative-sticky"] = Field(
        "range",
        description="How the group shares out partitions; the same in all its members. range: all are given back and "
        "shared out anew at each change. cooperative-sticky: only those that move are given back; the others are read "
        "on meanwhile. Stop all workers of a group to change it.",
    )
    isolation_level: Literal["read_uncommitted", "read_committed"] = Field(
        "read_committed", description="Whether readings of aborted transactions are left out."
    )


class OutputSettings(Section):
    topic: TopicName = Field("sensor-anomalies", description="Topic of anomaly events.")
    delivery: Literal["at-least-once", "exactly-once"] = Field(
        "at-least-once",
        description="at-least-once: an idempotent producer and a deterministic event_id; nothing is lost, and what "
        "a crash repeats carries the same id. exactly-once: transactions; a reader with "
        "isolation.level=read_committed gets each event once, later by up to the commit interval.",
    )
    commit_interval_ms: Annotated[int, Field(ge=1, le=5_000)] = Field(
        100,
        description="Milliseconds between two commits of offsets. With at-least-once events do not wait for it; "
        "shorter: a crash repeats less. With exactly-once it is how long a transaction stays open; shorter: events "
        "show sooner; each commit costs the brokers tens of requests.",
    )
    transactional_id: str | None = Field(
        None,
        min_length=1,
        description="Name of this replica's transactions, where delivery is exactly-once; no other may bear it. "
        "Default: the group's name and, in a StatefulSet, the pod's; elsewhere something unique.",
    )
    transaction_timeout_ms: Annotated[int, Field(ge=1_000)] = Field(
        15_000,
        description="Milliseconds after which the brokers give up the transaction of a worker that has died, and for "
        "which readers may have to wait then; no more than their transaction.max.timeout.ms.",
    )
    critical_score: PositiveFloat = Field(
        2.0, description="anomaly_score from which an event's severity is `critical`; below it, `warning`."
    )
    contributions: PositiveInt = Field(
        5, description="How many of the most contributing features an event names; the shares are of all."
    )
    compression: Literal["none", "gzip", "lz4", "zstd", "snappy"] = Field(
        "lz4", description="Codec of the produced batches."
    )
    delivery_timeout_ms: PositiveInt = Field(
        120_000, description="Milliseconds after which an unacknowledged event fails its batch, which is then retried."
    )


class DeadLetterSettings(Section):
    topic: TopicName = Field("sensor-readings.dlq", description="Topic of records that cannot be read, as received.")
