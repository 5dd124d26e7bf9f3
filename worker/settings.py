"""What an operator can set. Every field's description is its help text; docs/settings.md is made from it.

Both programs read this one tree. It is validated once, at start, and handed down as frozen objects:
nothing else reads the environment.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

MOST_READINGS = 32                      # that incidents look back at: a bit of each is kept


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _topic(name: str) -> str:
    allowed = name.isascii() and name.replace(".", "").replace("_", "").replace("-", "").isalnum()
    if not allowed or len(name) > 249:
        raise ValueError("a topic name has 1 to 249 of the characters a-z A-Z 0-9 . _ -")
    return name


TopicName = Annotated[str, AfterValidator(_topic)]


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
    ssl_cafile: Path | None = Field(None, description="PEM file of the authority behind the brokers' certificates.")
    ssl_certfile: Path | None = Field(None, description="PEM file of the client's certificate (mutual TLS).")
    ssl_keyfile: Path | None = Field(None, description="PEM file of the client's key (mutual TLS).")
    ssl_password: SecretStr | None = Field(None, description="Password of the client's key.")
    ssl_check_hostname: bool = Field(True, description="Whether a broker's certificate must name its host.")
    client_id: str = Field("zmu", description="Name under which the brokers' logs and quotas know this client.")
    request_timeout_ms: PositiveInt = Field(30_000, description="Milliseconds after which a request is given up.")
    session_timeout_ms: PositiveInt = Field(
        45_000,
        description="Milliseconds without a heartbeat after which the group gives a worker's partitions to others.",
    )
    max_poll_interval_ms: PositiveInt = Field(
        300_000, description="Milliseconds between polls after which a stuck worker loses its partitions."
    )

    @model_validator(mode="after")
    def login_is_complete(self) -> Self:
        if self.security_protocol.startswith("SASL"):
            needed = ("sasl_mechanism", "username", "password")
            lacking = [f"ZMU_KAFKA__{name.upper()}" for name in needed if getattr(self, name) is None]
            if lacking:
                raise ValueError(f"{self.security_protocol} needs {', '.join(lacking)} as well")
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
        "latest", description="Where a group without committed offsets starts; also where offsets have expired."
    )
    max_record_bytes: PositiveInt = Field(
        1_048_576, description="Readings larger than this, in bytes, are dead letters, unread."
    )
    isolation_level: Literal["read_uncommitted", "read_committed"] = Field(
        "read_committed", description="Whether readings of aborted transactions are left out."
    )


class OutputSettings(Section):
    topic: TopicName = Field("sensor-anomalies", description="Topic of anomaly events.")
    delivery: Literal["at-least-once"] = Field(
        "at-least-once",
        description="at-least-once: an idempotent producer and a deterministic event_id; nothing is lost, and what "
        "a crash repeats carries the same id.",
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


class ModelSettings(Section):
    registry: str = Field("models", description="Folder, or fsspec URL (s3://, gs://, abfs://), of model versions.")
    name: str = Field("default", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$", description="Model to serve or train.")
    alias: str = Field(
        "champion", pattern=r"^[a-z][a-z0-9_-]{0,63}$", description="Alias that says which version is served."
    )
    reload_seconds: PositiveFloat = Field(30.0, description="Seconds between looks for a newer version of the alias.")
    target_rate: Annotated[float, Field(gt=0, lt=0.5)] | None = Field(
        None,
        description="Share of normal readings that may be in alarm: 0.01 is one in a hundred. Default: what training "
        "was asked for.",
    )
    alerts_per_day: PositiveFloat | None = Field(
        None, description="Alarms that normal readings may raise in a day, instead of target_rate."
    )
    alerts_per: Literal["entity", "all"] = Field(
        "entity", description="Whether alerts_per_day is meant for each entity, or for all that training saw together."
    )
    warm_up: Literal["score", "withhold"] = Field(
        "score",
        description="Until an entity's window is full. score: what is missing is taken for normal, and the event has "
        "the flag `warming_up`. withhold: no event; fewer false alarms of new entities.",
    )
    wait_seconds: Annotated[float, Field(ge=0)] = Field(
        0.0,
        description="Seconds that `run` waits for a first model. 0: a registry without one ends the worker at once; "
        "set it where worker and first training start together.",
    )

    @model_validator(mode="after")
    def one_budget(self) -> Self:
        if self.target_rate is not None and self.alerts_per_day is not None:
            raise ValueError("target_rate and alerts_per_day both set a budget of alarms; give one")
        return self


class QualitySettings(Section):
    kinds: tuple[Literal["stuck", "missing", "out_of_range", "silent"], ...] = Field(
        ("stuck", "missing", "out_of_range", "silent"),
        description="Faults of sensors that are events of their own, as a JSON list. What counts as stuck, missing "
        "and silent is learnt in training.",
    )
    limits: dict[str, tuple[float | None, float | None]] = Field(
        {},
        description="Physical range of features, as JSON: `{\"pressure\": [0, 16], \"flow\": [0, null]}`. A reading "
        "outside is `out_of_range`. Unlimited where it is not given: nothing here is guessed.",
    )
    silent_after_seconds: PositiveFloat | None = Field(
        None, description="Seconds without a reading after which an entity is silent. Default: learnt in training."
    )


class IncidentSettings(Section):
    enabled: bool = Field(True, description="Whether consecutive anomalies of an entity are told as incidents too.")
    topic: TopicName = Field(
        "sensor-incidents",
        description="Topic of incidents; compacted (cleanup.policy=compact), it tells the last state of each entity.",
    )
    open_after: Annotated[int, Field(ge=1, le=MOST_READINGS)] = Field(
        3, description="Anomalous readings among the last `open_within` that open an incident. 1: every anomaly does."
    )
    open_within: Annotated[int, Field(ge=1, le=MOST_READINGS)] = Field(
        5,
        description="Readings that are looked back at, at most 32. Larger beside `open_after`: intermittent faults "
        "open one sooner, and so does noise.",
    )
    close_after_seconds: PositiveFloat = Field(
        300.0,
        description="Seconds of reading time without an anomaly after which an incident closes. At least several "
        "times the interval between readings; shorter: an intermittent fault closes and re-opens.",
    )
    cool_down_seconds: NonNegativeFloat = Field(
        900.0,
        description="Seconds after closing in which an opening is the same incident again. 0: always a new one.",
    )
    update_seconds: NonNegativeFloat = Field(
        60.0,
        description="Seconds of reading time between two records of an open incident, at least; a rise in severity "
        "is told at once.",
    )
    critical_after_seconds: PositiveFloat = Field(
        3600.0,
        description="Seconds from opening to the last anomaly from which an incident is critical, whatever its peak.",
    )
    group_window_seconds: NonNegativeFloat = Field(
        60.0,
        description="Seconds from the opening of a group's first incident within which others, of any entity that the "
        "same worker serves, join the group. 0: no groups.",
    )

    @model_validator(mode="after")
    def can_open(self) -> Self:
        if self.open_after > self.open_within:
            raise ValueError(
                f"open_after is {self.open_after}, open_within {self.open_within}: no incident could open; "
                f"lower open_after or raise open_within"
            )
        return self


class StateSettings(Section):
    snapshot_seconds: Annotated[float, Field(ge=0)] = Field(
        10.0,
        description="Seconds between two snapshots of a partition's state in the topic `<group>-state`. A restart "
        "reads so much of the input again, silently. Longer: less to write where there are many entities. 0: none; "
        "then windows, baselines and incidents begin afresh at every restart and rebalance.",
    )
    entity_ttl_seconds: PositiveFloat = Field(
        604_800.0, description="Seconds without a reading after which an entity is forgotten. Bounds memory."
    )


class BatchSettings(Section):
    max_records: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        2048, description="Readings scored at once, at most. Larger: more throughput, more memory."
    )
    max_wait_ms: Annotated[int, Field(ge=0, le=60_000)] = Field(
        5, description="Milliseconds that the first reading of a batch waits for others. 0: never wait."
    )


class HttpSettings(Section):
    host: str = Field("0.0.0.0", description="Address of /metrics, /healthz and /readyz.")
    port: Annotated[int, Field(ge=0, le=65_535)] = Field(9108, description="Port of the same; 0 takes a free one.")


class LogSettings(Section):
    level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is written.")
    format: Literal["console", "json"] | None = Field(
        None, description="console or json. Default: console on a terminal, json elsewhere."
    )


class Settings(BaseSettings):
    """The whole tree. worker/cli.py reads it from flags, environment, .env, secrets directory and TOML file."""

    model_config = SettingsConfigDict(
        env_prefix="ZMU_",
        env_nested_delimiter="__",
        env_file=".env",
        env_ignore_empty=True,
        frozen=True,
        extra="forbid",
        validate_default=False,
    )

    config: Path | None = Field(None, description="TOML file of settings, weakest of all sources.")
    kafka: KafkaSettings = Field(default_factory=KafkaSettings, description="The brokers.")
    input: InputSettings = Field(default_factory=InputSettings, description="Readings.")
    output: OutputSettings = Field(default_factory=OutputSettings, description="Anomaly events.")
    dead_letters: DeadLetterSettings = Field(default_factory=DeadLetterSettings, description="Refused records.")
    model: ModelSettings = Field(default_factory=ModelSettings, description="The registry and the version served.")
    quality: QualitySettings = Field(default_factory=QualitySettings, description="Faults of sensors.")
    incidents: IncidentSettings = Field(default_factory=IncidentSettings, description="Incidents.")
    state: StateSettings = Field(default_factory=StateSettings, description="What is remembered of entities.")
    batch: BatchSettings = Field(default_factory=BatchSettings, description="Batching.")
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda|cuda:\d+)$")] = Field(
        "auto", description="auto, cpu, cuda or cuda:N. auto takes CUDA where there is a device."
    )
    http: HttpSettings = Field(default_factory=HttpSettings, description="Metrics and health.")
    log: LogSettings = Field(default_factory=LogSettings, description="Logs, to stderr.")
    training: dict[str, Any] = Field({}, description="Settings of zmu-training, which checks them; unused here.")
