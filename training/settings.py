"""What can be set of a training, beside what both programs share. docs/settings.md is made from it."""

from __future__ import annotations

import datetime
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, PositiveFloat, PositiveInt, model_validator

from training import durations
from training.fitting.objective import ObjectiveSettings
from worker.cli import Command
from worker.detection.model import Family
from worker.kafka_settings import Section, TopicName

Duration = Annotated[str, AfterValidator(durations.valid)]
Place = dict[int, int] | str


def epoch_ms(moment: str) -> int:
    """RFC 3339, UTC where it names no zone → ms since the epoch. Raises ValueError."""
    try:
        found = datetime.datetime.fromisoformat(moment)
    except ValueError:
        raise ValueError(f"{moment!r} is no time such as 2026-01-31T08:00:00Z") from None
    return round((found if found.tzinfo else found.replace(tzinfo=datetime.UTC)).timestamp() * 1000)


def _moment(text: str) -> str:
    epoch_ms(text)
    return text


Moment = Annotated[str, AfterValidator(_moment)]
NamedTopic = Annotated[TopicName | None, BeforeValidator(lambda v: None if v == "null" else v)]


class GateSettings(Section):
    """What a version must show before it may serve."""

    alert_factor: PositiveFloat = Field(
        5.0,
        description="Times `target_rate` of the held-out readings that may be in alarm. Further off, the threshold is "
        "wrong and not just unlucky.",
    )
    loss_ratio: PositiveFloat = Field(
        1.2,
        description="Held-out error of a new version, as a multiple of the champion's on the same readings. Asked for "
        "where both are of one kind.",
    )
    feature_loss: PositiveFloat = Field(
        0.25,
        description="Share of a feature's variation that a new version may miss more than the champion, in whichever "
        "feature that is most. Asked for where both are of one kind.",
    )
    faults_ratio: Annotated[float, Field(ge=0)] = Field(
        0.85, description="Injected faults that a new version must notice, as a share of those the champion notices."
    )
    f1_drop: Annotated[float, Field(ge=0, le=1)] = Field(
        0.1,
        description="How much lower the F1 of a new version may be than the champion's, on readings that feedback or "
        "a column of labels speaks of. Asked for from 5 labels on, anomalies among them.",
    )
    agreement: Annotated[float, Field(ge=-1, le=1)] | None = Field(
        0.0,
        description="Least rank correlation of a new version's scores with the champion's. Asked for where the "
        "champion keeps within its own budget of alarms. -1: only told.",
    )


class Maintenance(Section):
    """A time in which readings are not normal."""

    start: Moment
    end: Moment
    entities: tuple[str, ...] = ()

    @property
    def span_ms(self) -> tuple[int, int]:
        """start ≤ time < end, ms since the epoch."""
        return epoch_ms(self.start), epoch_ms(self.end)

    @model_validator(mode="after")
    def has_a_length(self) -> Self:
        if self.span_ms[0] >= self.span_ms[1]:
            raise ValueError(f"maintenance from {self.start} to {self.end} has no length: exchange start and end")
        return self


class FeedbackSettings(Section):
    topic: NamedTopic = Field(
        "sensor-anomaly-feedback",
        description="Topic of feedback, `{event_id, label}`; where it does not exist, nothing was said. `null`: none.",
    )
    most_raise: Annotated[float, Field(ge=1)] = Field(
        1.5, description="Times the threshold that reported false alarms may raise it to. 1: they never do."
    )


class TrainingSettings(Section):
    max_age: Duration | None = Field(
        None, description="Learn from the newest readings only: 7d, 12h, 90m, or seconds. Default: of any age."
    )
    max_records: PositiveInt = Field(
        1_000_000,
        description="Read that many records at most, the newest of all partitions; they wait on disk (TMPDIR). Bounds "
        "time.",
    )
    max_readings: PositiveInt = Field(
        200_000,
        description="Learn from that many of them at most. Bounds memory and time. Where there are more, every entity "
        "gets the same share: its newest readings, and blocks drawn from the older ones.",
    )
    start: Place | None = Field(
        None,
        description="Where the range starts: a time (RFC 3339), or offsets by partition as JSON, "
        '`{"0": 1000, "1": 900}`; partitions that are not named are read from their beginning.',
    )
    end: Place | None = Field(
        None, description="Where the range ends, itself not included; as `start`. Default: what is there at the start."
    )
    min_records: Annotated[int, Field(ge=20)] = Field(
        200, description="Fewer readings than this are no basis for a model: the run ends with an error."
    )
    holdout: Annotated[float, Field(gt=0, lt=0.9)] = Field(
        0.25, description="Share of the readings, the newest of each entity, that is held out to stop and calibrate by."
    )
    min_new: Annotated[int, Field(ge=0)] | None = Field(
        None,
        description="Records newer than what the last version learnt from, without which a run is skipped. 0: never "
        "skipped. Default: 0 for `run`, 1 for `schedule`. A CronJob sets 1 or more, and may then be repeated at will.",
    )
    drift_bound: PositiveFloat | None = Field(
        None,
        description="For `schedule`: train before it is due where the newest readings have drifted further than this "
        "from what the champion learnt, by PSI of a feature or of the score; 0.25 is a large change. Once for each "
        "champion. Default: by the clock only.",
    )
    drift_look_seconds: PositiveFloat = Field(900.0, description="Seconds between two looks of `schedule` for drift.")
    exclude_anomalous: bool = Field(
        True,
        description="Leave out what the current champion is in alarm about, beyond the rate that it was asked for. "
        "What most entities show at once, or feedback calls normal, is learnt all the same. false: learn everything.",
    )
    maintenance: tuple[Maintenance, ...] = Field(
        (),
        description="Times not to learn from, as JSON: "
        '`[{"start": "2026-01-31T08:00:00Z", "end": "2026-01-31T12:00:00Z", "entities": ["pump-3"]}]`; without '
        "`entities`, of all.",
    )
    maintenance_topic: NamedTopic = Field(
        "sensor-maintenance",
        description="Topic of more of them, `{start, end, entities}`, by key; where it does not exist, nothing was "
        "said. `null`: none.",
    )
    label: str | None = Field(
        None,
        description="Column of the recordings given with `--source` that says what is anomalous: 0 is normal, above 0 "
        "anomalous. It is no feature; what it marks is not learnt, and F1 on it is a gate. Default: no labels.",
    )
    feedback: FeedbackSettings = Field(
        default_factory=FeedbackSettings, description="What people said of events."
    )
    profile: Literal["auto", "machinery", "servers", "pointwise"] = Field(
        "auto",
        description="machinery: noisy sensors around a working point, small lasting shifts count. servers: quiet and "
        "bursting metrics, the newest deviation counts. pointwise: each reading by itself, nothing is remembered. "
        "auto: machinery or servers, by the tails of the held-out readings. It sets what is not set below.",
    )
    window: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        None,
        description="Readings of an entity that the model sees together; 1 looks at each by itself. Default: the "
        "profile's (10, 20, 1).",
    )
    error_of: Literal["newest", "window"] = Field(
        "newest", description="Which readings of the window are judged: newest answers at once, window is smoother."
    )
    gap_seconds: Annotated[float, Field(ge=0)] | None = Field(
        None,
        description="Seconds: readings of an entity further apart than this do not share a window. 0: never mind. "
        "Default: ten times the usual interval.",
    )
    kind: Literal["vae", "pca", "zchart", "auto"] = Field(
        "vae",
        description="The model. pca and zchart are baselines behind the same interface. auto: of the three, the one "
        "that notices most faults injected into held-out readings; vae where none does so clearly.",
    )
    rivals: bool = Field(
        True,
        description="Fit the baselines too, and show in the report what each would have noticed. false saves their "
        "time, some seconds.",
    )
    hidden: tuple[PositiveInt, ...] = Field(
        (64,), min_length=0, max_length=8, description="Widths of the encoder's hidden layers, as a JSON list."
    )
    latent: Annotated[int, Field(ge=1, le=4096)] = Field(10, description="Latents of the VAE.")
    family: Family = Field(
        "normal",
        description="What the latents are: normal; mixture or flow, where the plant has several modes; categorical or "
        "bernoulli, where its states are discrete. docs/detection.md compares them.",
    )
    components: Annotated[int, Field(ge=1, le=1024)] = Field(10, description="Gaussians of family mixture.")
    flows: Annotated[int, Field(ge=1, le=16)] = Field(4, description="Coupling layers of family flow.")
    classes: Annotated[int, Field(ge=2, le=256)] = Field(4, description="Classes of each latent of family categorical.")
    output: Literal["sigmoid", "linear"] | None = Field(
        None, description="Last layer of the decoder. Default: sigmoid for scaling unit, linear for standard."
    )
    scaling: Literal["unit", "standard"] | None = Field(
        None,
        description="unit: normal readings within [0, 1], by quantiles. standard: by mean and standard deviation. "
        "Neither clips. Default: the profile's (standard, standard, unit).",
    )
    explained: Annotated[float, Field(gt=0, le=1)] = Field(
        0.95, description="Share of the variance that PCA's components explain; kind pca only."
    )
    objective: ObjectiveSettings = Field(
        default_factory=ObjectiveSettings, description="What the VAE is trained to make small."
    )
    learning_rate: PositiveFloat = Field(1e-3, description="Of Adam. Lower it where the loss becomes NaN or jumps.")
    batch_size: PositiveInt = Field(
        32,
        description="Readings in one step of Adam. Larger batches take fewer steps and less time, of a GPU above all: "
        "set `scale_rate` with it.",
    )
    scale_rate: bool = Field(
        False,
        description="Multiply `learning_rate` by the square root of `batch_size` / 32, which keeps the noise of Adam's "
        "steps as it is (Malladi et al. 2022).",
    )
    epochs: PositiveInt = Field(10, description="Passes over the training readings.")
    min_steps: Annotated[int, Field(ge=0)] = Field(
        1000,
        description="Least number of steps: a short history is passed over more often than `epochs` says. Early "
        "stopping still ends it. 0: never more than `epochs`.",
    )
    patience: PositiveInt = Field(
        3,
        description="Looks at the held-out loss without a better one after which training stops; the best weights are "
        "kept. It looks after every epoch, or every tenth of the steps where that is longer.",
    )
    noise: Annotated[float, Field(ge=0)] = Field(
        0.0,
        description="Standard deviation of noise added to the scaled input, with the clean reading as target "
        "(denoising). 0: off.",
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(
        1, description="Of weights, shuffling and sampling: the same seed, data and machine give the same model."
    )
    min_spread: PositiveFloat | None = Field(
        None,
        description="Smallest residual scale of a feature, in scaled units: a feature that never moved must not blow "
        "up scores. Raise it where tiny changes alarm. Default: the profile's (0.1, 0.05, 0.01).",
    )
    target_rate: Annotated[float, Field(gt=0, lt=0.5)] = Field(
        0.01, description="Share of normal readings that may be in alarm: 0.01 is one in a hundred."
    )
    gates: GateSettings = Field(default_factory=GateSettings, description="What a version must show.")
    promote: Literal["auto", "manual"] = Field(
        "auto",
        description="auto: a version that passes its gates becomes champion. manual: it stays `challenger` until "
        "`zmu-training models promote`.",
    )

    @model_validator(mode="after")
    def auto_needs_rivals(self) -> Self:
        if self.kind == "auto" and not self.rivals:
            raise ValueError("kind auto compares the model with its rivals: set rivals to true, or name a kind")
        return self


class Settings(Command):
    """The tree of both programs with the training's part checked."""

    training: TrainingSettings = Field(  # type: ignore[assignment]
        default_factory=TrainingSettings, description="Training."
    )
