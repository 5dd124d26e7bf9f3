"""Logs: structured lines on stderr, for people on a terminal and as JSON elsewhere."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextvars import ContextVar
from typing import Any

from worker.settings import LogSettings

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def configure(settings: LogSettings) -> None:
    """Sends our lines, and those of libraries from `warning` on, through one renderer."""
    import structlog  # here, so that --help need not wait for it

    console = settings.format == "console" or (settings.format is None and sys.stderr.isatty())
    shared: list[Any] = [
        _with_facts,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        if console
        else structlog.processors.JSONRenderer()
    )
    # ConsoleRenderer draws exceptions itself; JSON needs them as text.
    ending: list[Any] = [renderer] if console else [structlog.processors.format_exc_info, renderer]
    structlog.configure(
        processors=[*shared, *ending],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[settings.level]),
        logger_factory=lambda *_: structlog.WriteLogger(sys.stderr),
        cache_logger_on_first_use=False,    # stderr is looked up at each line: whoever captures it may change it
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *ending],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    # Warns of every task over 0.1 s on its event loop; ours are the rebalances, which we log ourselves.
    logging.getLogger("kafka.net.selector").setLevel(logging.ERROR)
    # A broker that turns us away is no fault in the program.
    logging.getLogger("kafka.net.transport").addFilter(_without_traceback)


def _without_traceback(record: logging.LogRecord) -> bool:
    if record.exc_info and record.exc_info[1] is not None:
        record.msg, record.args, record.exc_info = f"{record.getMessage()}: {record.exc_info[1]}", (), None
    return True


Facts = Callable[[], Mapping[str, object]]
_facts: ContextVar[tuple[Facts, ...]] = ContextVar("facts", default=())


@contextlib.contextmanager
def about(facts: Facts) -> Iterator[None]:
    """Every line of this thread says these too, meanwhile; asked for only where there is a line."""
    before = _facts.set((*_facts.get(), facts))
    try:
        yield
    finally:
        _facts.reset(before)


def _with_facts(_logger: object, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for facts in _facts.get():
        for name, value in facts().items():
            line.setdefault(name, value)
    return line


def get(name: str) -> Any:
    """A logger whose lines say which part speaks."""
    import structlog

    return structlog.get_logger(part=name)
