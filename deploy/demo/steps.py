"""What the demo says while it is made ready."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from rich.console import Console
from rich.markup import escape
from rich.status import Status

from deploy.demo.interrupt import Interrupt


class Step:
    """One step of the preparation: what goes on, then what came of it."""

    def __init__(self, console: Console, interrupt: Interrupt, status: Status | None) -> None:
        self._console = console
        self._interrupt = interrupt
        self._status = status
        self._begin = time.monotonic()

    def progress(self, text: str) -> None:
        self._interrupt.check()
        if self._status is not None and text.strip():
            self._status.update(escape(text[: self._console.width - 4]))

    def done(self, text: str) -> None:
        self._interrupt.check()
        seconds = time.monotonic() - self._begin
        self._console.print(f"[green]✓[/] {escape(text)} [dim]({seconds:.1f} s)[/]", soft_wrap=True)


class Steps:
    """A spinner on a terminal, plain lines elsewhere."""

    def __init__(self, console: Console, interrupt: Interrupt) -> None:
        self._console, self._interrupt = console, interrupt

    @contextlib.contextmanager
    def __call__(self, text: str) -> Iterator[Step]:
        if self._console.is_terminal:
            with self._console.status(escape(text)) as status:
                yield Step(self._console, self._interrupt, status)
        else:
            self._console.print(f"… {text}")
            yield Step(self._console, self._interrupt, None)
