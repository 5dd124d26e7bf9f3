"""Training again and again, for where no CronJob is: one at a time, the first at once, until told to stop."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Literal

from training import durations
from training.metrics import Metrics
from training.outcome import Outcome
from training.progress import Stopped
from worker.errors import SettingsError, UserError

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


def cron(expression: str) -> NextRun:
    """Five fields, UTC. What fell due while a run was on is not made up for. Raises SettingsError."""
    from croniter import croniter

    if not croniter.is_valid(expression):
        raise SettingsError(
            f"--cron {expression!r}: not a cron expression; it has five fields, such as '0 */6 * * *' for every 6 hours"
        )
    return lambda _, now: float(croniter(expression, now).get_next(float))


class Schedule:
    """`train` is one run; it looks at `stopping` now and then."""

    def __init__(
        self,
        train: Callable[[], Outcome],
        next_run: NextRun,
        metrics: Metrics,
        stop: threading.Event,
        clock: Callable[[], float] = time.time,
        wait: Callable[[float], object] | None = None,
    ) -> None:
        self._train, self._next_run, self._metrics, self._stop = train, next_run, metrics, stop
        self._clock, self._wait = clock, wait or stop.wait
        self._failures = 0
        self._last: Literal["none", "success", "refused", "failed"] = "none"
        self._training = False

    def run(self) -> None:
        """Returns when told to stop."""
        while not self._stop.is_set():
            started = self._clock()
            self._once(started)
            if self._stop.is_set():
                return
            now = self._clock()
            pause = max(self._next_run(started, now) - now, 0.0)
            if self._failures:          # nothing to learn from yet, a broker away: six hours are a long time
                pause = min(pause, RETRY_FIRST_SECONDS * 2.0 ** min(self._failures - 1, 20))
            self._metrics.waits(pause)
            self._wait(pause)

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
            outcome.manifest.version, self._clock() - started, outcome.loss, outcome.promotion
        )


@contextlib.contextmanager
def stopped_by_signals(stop: threading.Event) -> Iterator[None]:
    """SIGTERM and SIGINT set a flag, no more."""
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
