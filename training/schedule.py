"""Training again and again, for where no CronJob is: one at a time, until told to stop.

The registry is all the memory: the newest version says when the last training was, so that a restart neither trains at
once again nor forgets what is due. A ring of `stop`, by SIGUSR1, asks for a training now.
"""

from __future__ import annotations

import contextlib
import datetime
import math
import random
import time
from collections.abc import Callable
from typing import Literal

from training import durations
from training.history.drift import Drifted
from training.history.freshness import TooLittleNew
from training.metrics import Metrics
from training.progress import Stopped
from training.reporting.outcome import Outcome
from worker.errors import ModelError, SettingsError, UserError
from worker.models.artifact import read_manifest
from worker.models.registry import Registry
from worker.signals import Stop

RETRY_FIRST_SECONDS = 30.0              # after a failed run; then twice as long each time, up to the regular pause

NextRun = Callable[[float, float], float]
"""Start of the last run, now (both epoch seconds) → start of the next."""


def every(period: str) -> NextRun:
    """Raises SettingsError."""
    try:
        seconds = durations.seconds(period)
    except ValueError as error:
        raise SettingsError(f"--every {period!r}: {error}") from None
    return lambda started, now: max(started + seconds, now)


def jitter(longest: str | None) -> float:
    """Seconds. Raises SettingsError."""
    try:
        return durations.seconds(longest) if longest else 0.0
    except ValueError as error:
        raise SettingsError(f"--jitter {longest!r}: {error}") from None


def cron(expression: str) -> NextRun:
    """Five fields, UTC. What fell due while a run was on is not made up for. Raises SettingsError."""
    from croniter import croniter

    if not croniter.is_valid(expression):
        raise SettingsError(
            f"--cron {expression!r}: not a cron expression; it has five fields, such as '0 */6 * * *' for every 6 hours"
        )
    return lambda _, now: float(croniter(expression, now).get_next(float))


class Schedule:
    """`train` is one run; it looks at `stopping` now and then. last_start: of another process, epoch seconds."""

    def __init__(
        self,
        train: Callable[[], Outcome],
        next_run: NextRun,
        metrics: Metrics,
        stop: Stop,
        clock: Callable[[], float] = time.time,
        wait: Callable[[float], object] | None = None,
        *,
        last_start: Callable[[], float | None] = lambda: None,
        jitter_seconds: float = 0.0,
        drifted: Callable[[], bool] = lambda: False,
        look_seconds: float = math.inf,
    ) -> None:
        """drifted: whether not to wait any longer; asked every look_seconds. wait: whether somebody ended it."""
        self._train, self._next_run, self._metrics, self._stop = train, next_run, metrics, stop
        self._clock, self._wait = clock, wait or stop.wait
        self._last_start, self._jitter_seconds = last_start, jitter_seconds
        self._drifted, self._look_seconds = drifted, look_seconds
        self._failures = 0
        self._last: Literal["none", "success", "skipped", "refused", "failed"] = "none"
        self._training = False

    def run(self) -> None:
        """Returns when told to stop."""
        before = self._last_start()
        if before is not None:
            self._pause(max(self._next_run(before, before) - self._clock(), 0.0))
        while not self._stop.is_set():
            started = self._clock()
            self._once(started)
            if self._stop.is_set():
                return
            now = self._clock()
            pause = max(self._next_run(started, now) - now, 0.0)
            if self._failures:          # nothing to learn from yet, a broker away: six hours are a long time
                pause = min(pause, RETRY_FIRST_SECONDS * 2.0 ** min(self._failures - 1, 20))
            self._pause(pause)

    def _pause(self, seconds: float) -> None:
        seconds += random.uniform(0.0, self._jitter_seconds)
        if seconds > 0:
            self._metrics.waits(seconds)
        until = self._clock() + seconds
        while not self._wait(min(seconds, self._look_seconds)):
            seconds = until - self._clock()
            if seconds <= 0 or self._drifted():
                return

    def facts(self) -> dict[str, object]:
        """For /healthz and /readyz."""
        return {"training": self._training, "last_run": self._last}

    def _once(self, started: float) -> None:
        self._training = True
        try:
            outcome = self._train()
        except Stopped:
            self._metrics.stopped()
            return
        except TooLittleNew as why:
            self._failures, self._last = 0, "skipped"
            self._metrics.skipped(str(why))
            return
        except Exception as error:      # whatever one run meets, the next one comes
            self._failures += 1
            self._last = "failed"
            self._metrics.failed(self._clock() - started, error, traceback=not isinstance(error, UserError))
            return
        finally:
            self._training = False
        self._failures = 0
        self._last = "refused" if outcome.promotion == "refused" else "success"
        self._metrics.trained(
            outcome.manifest.version, self._clock() - started, outcome.loss, outcome.promotion, outcome.feedback
        )


class DriftTrigger:
    """Whether to train before it is due, once for each champion: what its gates refuse would be refused again."""

    def __init__(self, look: Callable[[], Drifted | None], bound: float | None, metrics: Metrics) -> None:
        """bound: None where only the clock triggers."""
        self._look, self._bound, self._metrics = look, bound, metrics
        self._answered: str | None = None           # the champion whose drift was

    def __call__(self) -> bool:
        if self._bound is None:
            return False
        try:
            found = self._look()
        except Exception as error:                  # whatever it meets, the next look comes
            self._metrics.looked_in_vain(error, traceback=not isinstance(error, UserError))
            return False
        if found is None:
            return False
        triggers = found.psi > self._bound and found.version != self._answered
        self._metrics.looked(found, triggers)
        if triggers:
            self._answered = found.version
        return triggers


def last_start(registry: Registry) -> float | None:
    """When the newest version was made, epoch seconds; None where there is none that can be read."""
    for version in reversed(registry.versions()):
        with contextlib.suppress(ModelError, ValueError):
            made = datetime.datetime.fromisoformat(read_manifest(registry, version).created_at)
            return made.timestamp()
    return None
