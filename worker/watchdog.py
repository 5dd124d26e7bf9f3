"""Ends a process whose loop is stuck, so that whoever started it starts it again: no other thread can free the loop."""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path

from worker import log
from worker.heartbeat import Heartbeat

FRAMES = 8
EXIT_CODE = 1
SAYING_SECONDS = 2.0


def _end() -> None:
    os._exit(EXIT_CODE)                 # no atexit, no destructor: they would wait for what is stuck


class Watchdog:
    """Looks at the heartbeat from a thread of its own. The last line of the log says why, and where the loop stands."""

    def __init__(
        self, heartbeat: Heartbeat, look_seconds: float = 1.0, end: Callable[[], None] = _end
    ) -> None:
        self._heartbeat, self._look_seconds, self._end = heartbeat, look_seconds, end
        self._watched = threading.get_ident()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._closing.wait(self._look_seconds):
            fault = self._heartbeat.fault
            if fault:
                said = threading.Thread(target=self._say, args=(fault,), daemon=True)
                said.start()
                said.join(SAYING_SECONDS)   # whoever reads the log may be what is stuck
                self._end()
                return

    def _say(self, fault: str) -> None:
        log.get("watchdog").error("stuck: the worker ends, to be started again", why=fault, at=self._place())

    def _place(self) -> str:
        """Innermost calls of the loop's thread, the innermost first."""
        frame = sys._current_frames().get(self._watched)
        if frame is None:
            return ""
        stack = traceback.extract_stack(frame)[-FRAMES:]
        return " < ".join(f"{Path(call.filename).name}:{call.lineno} {call.name}" for call in reversed(stack))
