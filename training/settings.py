"""What can be set of a training, beside what both programs share. docs/settings.md is made from it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt

from training import durations
from training.objective import ObjectiveSettings
from worker.cli import Command
from worker.settings import Section

Duration = Annotated[str, AfterValidator(durations.valid)]
Place = dict[int, int] | str


class Objective(ObjectiveSettings):
    """The objective, weighed for inputs scaled to [0, 1]: without it the KL wins and the latents collapse."""

    feature_weights: Literal["equal", "inverse-variance"] = Field(
        "inverse-variance",
        description="inverse-variance: squared errors in units of each feature's own variance; for inputs scaled to "
        "[0, 1]. equal: for inputs that are standardised already.",
    )


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
        0.2, description="Share of the readings, the newest of each entity, that is held out to stop and calibrate by."
    )
    exclude_anomalous: bool = Field(
        False,
        description="Leave out readings that the current champion calls anomalous. Guards against learning a fault; "
        "also keeps a new kind of normal from being learnt.",
    )
    kind: Literal["vae", "pca", "zchart"] = Field(
        "vae", description="The model. pca and zchart are baselines behind the same interface."
    )
    hidden: tuple[PositiveInt, ...] = Field(
        (64,), min_length=0, max_length=8, description="Widths of the encoder's hidden layers, as a JSON list."
    )
    latent: Annotated[int, Field(ge=1, le=4096)] = Field(10, description="Latents of the VAE.")
    output: Literal["sigmoid", "linear"] = Field(
        "sigmoid", description="Last layer of the decoder: sigmoid for scaling unit, linear for standard."
    )
    scaling: Literal["unit", "standard"] = Field(
        "unit",
        description="unit: normal readings within [0, 1], by quantiles. standard: by median and spread. Neither clips.",
    )
    explained: Annotated[float, Field(gt=0, le=1)] = Field(
        0.95, description="Share of the variance that PCA's components explain; kind pca only."
    )
    objective: Objective = Field(default_factory=Objective, description="What the VAE is trained to make small.")
    learning_rate: PositiveFloat = Field(1e-3, description="Of Adam. Lower it where the loss becomes NaN or jumps.")
    batch_size: PositiveInt = Field(32, description="Readings in one step of Adam.")
    epochs: PositiveInt = Field(10, description="Passes over the training readings.")
    min_steps: Annotated[int, Field(ge=0)] = Field(
        2000,
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
    min_spread: PositiveFloat = Field(
        0.01,
        description="Smallest residual scale of a feature, in scaled units (the feature's normal range is about 1): "
        "a feature that never moved must not blow up scores. Raise it where tiny changes alarm.",
    )
    target_rate: Annotated[float, Field(gt=0, lt=0.5)] = Field(
        0.001, description="Share of normal readings that may exceed the threshold: 0.001 is one in a thousand."
    )
    promote: Literal["auto", "manual"] = Field(
        "auto",
        description="auto: a version that passes its gates becomes champion. manual: it stays `challenger` until "
        "`zmu-training models promote`.",
    )


class Settings(Command):
    """The tree of both programs with the training's part checked."""

    training: TrainingSettings = Field(  # type: ignore[assignment]
        default_factory=TrainingSettings, description="Training."
    )
