"""What an operator can set of incidents."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

from worker.settings import Section, TopicName

MOST_READINGS = 32                      # that are looked back at: a bit of each is kept


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
