"""When anomalies of one entity are an incident: opens at M of the last N readings, closes after a quiet gap.

Between two thresholds of evidence nothing changes: that is the hysteresis. After closing, the incident cools down;
what opens in that time is the same incident again.

Time is that of the entity's own readings, so that its course depends on nothing else, and a replay finds the same. An
incident ends at its last anomaly plus the quiet gap, whichever later reading shows it. Of an entity that stopped
sending no reading will: that its incident is over is then presumed, and told, but its course waits. If anomalies go on
by the entity's own time after all (it sent late), the incident was open all the while, and that is told again.

Legend: M anomalies that open an incident, K features named of a reading.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

from worker.incidents.course import UNKNOWN, Course, Opening
from worker.records import LATEST_MS, Severity
from worker.settings import IncidentSettings

Join = Callable[[int, Opening], Opening]        # the group that an entity's opening belongs to
State = Literal["open", "update", "close"]
CLOCK_STEP_MS = 86_400_000              # back by more than this: a clock was set right; by less: a late reading
NOTABLE_RISE = 2.0                      # of the peak over what was last told of it


class Reading(NamedTuple):
    """What counts of a reading here. Features and shares are of an anomaly's largest contributors, K of them."""

    entity: int                         # its code
    partition: int
    offset: int                         # its place, with the row where there is one: worker/places.py
    timestamp_ms: int
    score: float
    anomalous: bool
    features: list[int]
    shares: list[float]


class Hysteresis:
    """The rules. All memory is in the courses."""

    def __init__(self, settings: IncidentSettings, critical_score: float) -> None:
        self._open_after = settings.open_after
        self._within = (1 << settings.open_within) - 1
        self._critical_score = critical_score
        self._critical_after_ms = _ms(settings.critical_after_seconds)
        self._close_after_ms = _ms(settings.close_after_seconds)
        self._cool_down_ms = _ms(settings.cool_down_seconds)
        self._update_ms = _ms(settings.update_seconds)

    def step(self, course: Course, reading: Reading, join: Join) -> Iterator[State]:
        """Takes one reading in, and yields what there is to tell at the very moment when the course shows it."""
        if course.open and self._over(course, reading):
            told = course.presumed_closed
            self.close(course)
            if not told:
                yield "close"
        if course.open:
            if reading.anomalous:
                state: State = "open" if course.presumed_closed else "update"
                self._extend(course, reading)
                if state == "open" or self._is_news(course):
                    _told(course)
                    yield state
            return
        course.recent = (course.recent << 1 | reading.anomalous) & self._within
        if reading.anomalous:
            course.remember(reading.offset, reading.score, reading.features, reading.shares)
            if course.recent.bit_count() >= self._open_after:
                self._open(course, reading, join)
                _told(course)
                yield "open"

    def close(self, course: Course) -> None:
        """At the end of the quiet gap. What came before it is no evidence for another opening."""
        course.open = course.presumed_closed = False
        course.recent = 0

    def closed_ms(self, course: Course) -> int:
        return min(course.last_ms + self._close_after_ms, LATEST_MS)

    def severity(self, course: Course) -> Severity:
        return self._severity(course, course.peak_score, course.last_ms)

    def _severity(self, course: Course, peak_score: float, until_ms: int) -> Severity:
        long = until_ms - course.opened_ms >= self._critical_after_ms
        return "critical" if long or peak_score >= self._critical_score else "warning"

    def _over(self, course: Course, reading: Reading) -> bool:
        since_ms = reading.timestamp_ms - course.last_ms
        return since_ms >= self._close_after_ms or since_ms <= -CLOCK_STEP_MS

    def _open(self, course: Course, reading: Reading, join: Join) -> None:
        """With the anomalies that led to it: they are the last M that the course remembers."""
        cooled_ms = reading.timestamp_ms - self.closed_ms(course)
        if course.known and -CLOCK_STEP_MS < cooled_ms < self._cool_down_ms:
            course.reopened += 1
            course.readings += self._open_after
        else:
            course.opened_ms, course.opened_offset = reading.timestamp_ms, reading.offset
            course.first_offset = course.anomaly_offset[0]
            course.readings, course.reopened, course.peak_score = self._open_after, 0, 0.0
            opening = Opening(reading.timestamp_ms, reading.partition, reading.offset)
            course.group_ms, course.group_partition, course.group_offset = join(reading.entity, opening)
        for score, features, shares in zip(
            course.anomaly_score, course.anomaly_feature, course.anomaly_share, strict=True
        ):
            course.raise_peak(score, features, shares)
        course.open = True
        course.last_ms, course.last_offset, course.silent_since_ms = reading.timestamp_ms, reading.offset, UNKNOWN

    def _extend(self, course: Course, reading: Reading) -> None:
        course.readings += 1
        course.raise_peak(reading.score, reading.features, reading.shares)
        course.last_ms = max(course.last_ms, reading.timestamp_ms)      # a late reading does not turn time back
        course.last_offset, course.silent_since_ms, course.presumed_closed = reading.offset, UNKNOWN, False

    def _is_news(self, course: Course) -> bool:
        """Worse is news at once; a peak far above the last told, or led by another feature, is news every so often."""
        if self.severity(course) != self._severity(course, course.told_peak, course.told_ms):
            return True
        higher = course.peak_score >= NOTABLE_RISE * course.told_peak
        other = course.peak_feature[0] != course.told_feature
        return (higher or other) and course.last_ms - course.told_ms >= self._update_ms


def _told(course: Course) -> None:
    course.told_ms, course.told_peak, course.told_feature = course.last_ms, course.peak_score, course.peak_feature[0]


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
