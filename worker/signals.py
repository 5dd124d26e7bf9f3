"""How SIGTERM and SIGINT reach a program: a flag and a bell, which a signal's handler may set at any moment."""

from __future__ import annotations

import contextlib
import queue
import signal
import time
from collections.abc import Iterator

LOOK_UP_SECONDS = 0.5


class Stop:
    """Like a threading.Event, for the main thread to wait for, and safe to set from its own signal handlers.

    Event.set takes a lock; a handler runs between any two steps of the main thread, which may hold that very lock on
    its way into Event.wait, and would then wait for itself for ever. A SimpleQueue's put may be called so.
    """

    def __init__(self) -> None:
        self._stopped = False
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()

    def set(self) -> None:
        self._stopped = True
        self.ring()

    def ring(self) -> None:
        """Ends one wait, this or the next, without a stop."""
        self._bell.put(None)

    def is_set(self) -> bool:
        return self._stopped

    def wait(self, seconds: float) -> bool:
        """Until told to stop, rung, or so many seconds; whether it ended before its time.

        It looks up now and then: the kernel may hand a signal to another thread, and then nothing wakes this one,
        which alone runs the handlers.
        """
        deadline = time.monotonic() + seconds
        while not self._stopped:
            left = deadline - time.monotonic()
            with contextlib.suppress(queue.Empty):
                self._bell.get(timeout=min(max(left, 0.0), LOOK_UP_SECONDS))
                while not self._bell.empty():           # however often it rang, it is one ring
                    self._bell.get_nowait()
                return True
            if left <= 0:
                break
        return self._stopped


@contextlib.contextmanager
def handled(stop: Stop, *, ring: tuple[signal.Signals, ...] = ()) -> Iterator[None]:
    """SIGTERM and SIGINT set `stop`, no more: the work sees it at its next turn. Those of `ring` only ring it."""
    handlers = {number: lambda *_: stop.set() for number in (signal.SIGTERM, signal.SIGINT)}
    handlers |= {number: lambda *_: stop.ring() for number in ring}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
