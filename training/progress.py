"""What a person sees of a training: a bar on a terminal, plain lines elsewhere. And how it is told to stop."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol, TextIO

if TYPE_CHECKING:
    import rich.progress


class Stopped(Exception):
    """Somebody asked the training to end; nothing was published."""


class Bar(Protocol):
    """One stretch of work whose length is known."""

    def advance(self, amount: int) -> None: ...

    def note(self, text: str) -> None:
        """A figure worth a line of its own."""


class Progress:
    """Lines on `out`, and a bar where that is a terminal. `stopping` is asked now and then while work goes on."""

    def __init__(self, out: TextIO | None = None, stopping: Callable[[], bool] = lambda: False) -> None:
        self._out, self._stopping = out, stopping

    def say(self, text: str) -> None:
        print(text, file=self._out or sys.stderr, flush=True)

    def go_on(self) -> None:
        """Raises Stopped where told to stop."""
        if self._stopping():
            raise Stopped

    @contextlib.contextmanager
    def bar(self, what: str, total: int) -> Iterator[Bar]:
        out = self._out or sys.stderr
        if not out.isatty():
            yield _Lines(self)
            return
        import rich.console
        import rich.progress as r

        columns = (
            r.TextColumn("{task.description}"), r.BarColumn(), r.MofNCompleteColumn(), r.TimeRemainingColumn(),
            r.TextColumn("{task.fields[said]}"),
        )
        with r.Progress(*columns, console=rich.console.Console(file=out), transient=True) as shown:
            yield _Drawn(self, shown, shown.add_task(what, total=total, said=""))


class _Lines:
    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def advance(self, amount: int) -> None:  # noqa: ARG002
        self._progress.go_on()

    def note(self, text: str) -> None:
        self._progress.say(text)


class _Drawn:
    def __init__(self, progress: Progress, shown: rich.progress.Progress, task: rich.progress.TaskID) -> None:
        self._progress, self._shown, self._task = progress, shown, task

    def advance(self, amount: int) -> None:
        self._progress.go_on()
        self._shown.advance(self._task, amount)

    def note(self, text: str) -> None:
        self._shown.update(self._task, said=text)
