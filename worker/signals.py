"""How SIGTERM and SIGINT reach a program: a flag and a bell, which a signal's handler may set at any moment."""

from __future__ import annotations

import contextlib
import queue
import signal
from collections.abc import Iterator


class Stop:
    """Like a threading.Event, for one thread that waits, and safe to set from that thread's signal handler.

    Event.set takes a lock; the handler runs between any two steps of the main thread, which may hold that very lock on
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
        """Until told to stop, rung, or so many seconds; whether told to stop."""
        if not self._stopped:
            with contextlib.suppress(queue.Empty):
                self._bell.get(timeout=max(seconds, 0.0))
                while True:             # however often it rang, it is one ring
                    self._bell.get_nowait()
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
