"""What an operator can set. Every field's description is its help text; docs/settings.md is made from it.

Both programs read this one tree. It is validated once, at start, and handed down as frozen objects:
nothing else reads the environment.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from worker.kafka_settings import DeadLetterSettings as DeadLetterSettings
from worker.kafka_settings import InputSettings as InputSettings
from worker.kafka_settings import KafkaSettings as KafkaSettings
from worker.kafka_settings import OutputSettings as OutputSettings
from worker.kafka_settings import Section as Section
from worker.kafka_settings import TopicName, secret

MOST_READINGS = 32                      # that incidents look back at: a bit of each is kept


class ModelSettings(Section):
    registry: str = Field(
        "models",
        description="Where model versions are: a folder, an fsspec URL (s3://, gs://, abfs://), or an MLflow server "
        "(mlflow+https://host:5000).",
    )
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
    drift_readings: Annotated[int, Field(ge=0)] = Field(
        20_000,
        description="Newest readings in which drift is looked for, beside those that the version learnt from. Long "
        "enough to hold what a plant does in a day; at most 256 of a batch count. 0: none.",
    )
    shadow: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")] | None = Field(
        None,
        description="Alias of a second version that scores all readings as well and tells nothing, such as "
        "`challenger`; its figures are metrics. Costs about as much as scoring does. Default: none.",
    )
    guard_factor: Annotated[float, Field(ge=0)] = Field(
        10.0,
        description="Times the target rate that a new version may be in alarm, and three times as often as the one "
        "before: beyond both, the one before serves again, and the alias goes back where this user may move it. 0: "
        "off.",
    )
    guard_readings: PositiveInt = Field(
        20_000, description="Readings for which a new version is watched so, a thousand at a time."
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
        8192, description="Readings scored at once, at most. Larger: more throughput, more memory."
    )
    max_wait_ms: Annotated[int, Field(ge=0, le=60_000)] = Field(
        5,
        description="Milliseconds that the first reading of a batch waits for others, where more are known to be on "
        "the topic. 0: never wait.",
    )


class HttpSettings(Section):
    host: str = Field(
        "0.0.0.0", description="Address of /metrics, /healthz and /readyz; `::` is every address, IPv6 ones too."
    )
    port: Annotated[int, Field(ge=0, le=65_535)] = Field(9108, description="Port of the same; 0 takes a free one.")
    ssl_certfile: Path | None = Field(
        None,
        description="PEM file of the certificate, and of those between it and its authority. With it all three are "
        "served by HTTPS alone. A renewed file is taken at the next connection.",
    )
    ssl_keyfile: Path | None = Field(None, description="PEM file of its key, without a password.")
    username: str | None = Field(
        None,
        min_length=1,
        description="Who may read /metrics (basic authentication); everyone where it is not given. /healthz and "
        "/readyz stay open, for probes.",
    )
    password: SecretStr | None = Field(None, description="The user's password.")
    password_file: Path | None = Field(None, description="File that holds the user's password instead.")

    @model_validator(mode="after")
    def pairs_are_complete(self) -> Self:
        if (self.ssl_certfile is None) != (self.ssl_keyfile is None):
            raise ValueError("ZMU_HTTP__SSL_CERTFILE and ZMU_HTTP__SSL_KEYFILE go together")
        if (self.username is None) != (self.secret is None):
            raise ValueError("ZMU_HTTP__USERNAME and ZMU_HTTP__PASSWORD (or ZMU_HTTP__PASSWORD_FILE) go together")
        return self

    @property
    def secret(self) -> str | None:
        return secret("ZMU_HTTP__PASSWORD", self.password, self.password_file)


class LogSettings(Section):
    level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is written.")
    format: Literal["console", "json"] | None = Field(
        None, description="console or json. Default: console on a terminal, json elsewhere."
    )


class TraceSettings(Section):
    enabled: bool = Field(
        False,
        description="Whether spans are made of batches and events, and exported by OTLP over HTTP; the trace of a "
        "reading, in its header `traceparent`, then goes on in its event. Needs the extra `otel`. All else is said by "
        "OpenTelemetry's own variables, such as OTEL_EXPORTER_OTLP_ENDPOINT.",
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
    core: Literal["auto", "compiled", "python"] = Field(
        "auto",
        description="Who does the heavy work: the compiled core, or its slower twin in Python, to the same bits. auto: "
        "compiled where it was built. compiled: refuse to start without it.",
    )
    threads: Annotated[int, Field(ge=0, le=64)] = Field(
        0,
        description="Threads of `run` that decode and, on the CPU, run the model, to the same bits. 0: one less than "
        "there are cores for this process, at least 1 and at most 4.",
    )
    watchdog_seconds: Annotated[float, Field(ge=1)] = Field(
        120.0,
        description="Seconds without a turn of the loop, or without progress while readings wait, after which the "
        "worker ends with 1, to be started again. More than Kafka's calls may take: three times the request timeout, "
        "and 10 more.",
    )
    http: HttpSettings = Field(default_factory=HttpSettings, description="Metrics and health.")
    log: LogSettings = Field(default_factory=LogSettings, description="Logs, to stderr.")
    traces: TraceSettings = Field(default_factory=TraceSettings, description="Traces, by OpenTelemetry.")
    training: dict[str, Any] = Field({}, description="Settings of zmu-training, which checks them; unused here.")

    @model_validator(mode="after")
    def watchdog_is_patient(self) -> Self:
        needed_seconds = 3 * self.kafka.request_timeout_ms / 1000 + 10
        if self.watchdog_seconds < needed_seconds:
            raise ValueError(
                f"ZMU_WATCHDOG_SECONDS={self.watchdog_seconds:g} would end a worker that waits for its broker; with "
                f"ZMU_KAFKA__REQUEST_TIMEOUT_MS={self.kafka.request_timeout_ms} set it to {needed_seconds:g} or more"
            )
        return self

    @model_validator(mode="after")
    def transactions_are_read(self) -> Self:
        if self.output.delivery == "exactly-once" and self.input.isolation_level != "read_committed":
            raise ValueError(
                "ZMU_OUTPUT__DELIVERY=exactly-once needs ZMU_INPUT__ISOLATION_LEVEL=read_committed: offsets in an open "
                "transaction are waited for only then"
            )
        return self
