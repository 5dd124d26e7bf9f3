"""What can be set of a training, beside what both programs share. docs/settings.md is made from it."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt, model_validator

from training import durations
from training.objective import ObjectiveSettings
from worker.cli import Command
from worker.model import Family
from worker.settings import Section

Duration = Annotated[str, AfterValidator(durations.valid)]
Place = dict[int, int] | str


class TrainingSettings(Section):
    max_age: Duration | None = Field(
        None, description="Learn from the newest readings only: 7d, 12h, 90m, or seconds. Default: of any age."
    )
    max_records: PositiveInt = Field(
        200_000,
        description="Learn from that many records at most, the newest of all partitions. Bounds memory and time.",
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
    exclude_anomalous: bool = Field(
        False,
        description="Leave out readings that the current champion calls anomalous. Guards against learning a fault; "
        "also keeps a new kind of normal from being learnt.",
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
    batch_size: PositiveInt = Field(32, description="Readings in one step of Adam.")
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
