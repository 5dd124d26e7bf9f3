"""The plant running in the background: one thread that lets the pumps run and writes what they read."""

from __future__ import annotations

import threading
import time
from typing import Self

from deploy.demo.feed import Feed, Pace, readings
from deploy.demo.pumps import Pumps


class LivePlant:
    """From start() until close() a reading of every pump, each interval, at the speed of the clock."""

    def __init__(self, pumps: Pumps, feed: Feed) -> None:
        self._pumps = pumps
        self._feed = feed
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="plant", daemon=True)

    def start(self) -> Self:
        self._thread.start()
        return self

    def check(self) -> None:
        """Raises what ended the plant, if something did."""
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        self._stop.set()
        self._thread.join(timeout=15)

    def _run(self) -> None:
        pace = Pace(1.0, sleep=self._stop.wait)
        # From the clock and not from the first reading: writing the history took a while, which is caught up at once.
        pace.wait_for(round(time.time() * 1000))
        try:
            while not self._stop.is_set():
                tick = self._pumps.step()
                pace.wait_for(tick.timestamp_ms)
                for reading in readings(self._pumps.entities, tick):
                    self._feed.send(reading, reading.timestamp_ms)
        except BaseException as error:
            self._error = error
