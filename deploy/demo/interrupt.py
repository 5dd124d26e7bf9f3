"""Ctrl-C, and SIGTERM, which means the same here: what either does depends on how far the program has come."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Self

ENDED_EARLY = 130                   # as a shell says of a program that SIGINT ended
_NUMBERS = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """For the whole life of a program, in phases:

    at first       it leaves at once: nothing has begun, and an exception would break somebody's import in two
    raising()      raises KeyboardInterrupt out of whatever is waited for
    remembering()  sets `asked`, no more: nobody wants half a screen left behind, nor half an end

    An exception that comes while Python frees an object is lost, so whoever has it raised calls check() now and then.
    Python prints such a one; nobody is to read of it.
    """

    def __init__(self) -> None:
        self.asked = False
        self._act: Callable[[], object] = _leave

    def raising(self) -> None:
        self._act = _raise

    def remembering(self) -> None:
        self._act = _nothing

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Raises when it is over: a process that is being started would be nobody's, and live on."""
        act, self._act = self._act, _nothing
        try:
            yield
        finally:
            self._act = act
        self.check()

    def check(self) -> None:
        """Raises KeyboardInterrupt where it was asked for."""
        if self.asked:
            raise KeyboardInterrupt

    def __enter__(self) -> Self:
        for number in _NUMBERS:
            signal.signal(number, self._handle)
        sys.unraisablehook = _lost
        return self

    def __exit__(self, *_: object) -> None:
        for number in _NUMBERS:             # what is left is the interpreter's own end
            signal.signal(number, signal.SIG_IGN)

    def _handle(self, *_: object) -> None:
        self.asked = True
        self._act()


def _lost(what: sys.UnraisableHookArgs) -> None:
    if what.exc_type is not KeyboardInterrupt:
        sys.__unraisablehook__(what)


def _leave() -> None:
    os.write(2, b"ended before it began\n")
    os._exit(ENDED_EARLY)


def _raise() -> None:
    raise KeyboardInterrupt


def _nothing() -> None:
    pass
