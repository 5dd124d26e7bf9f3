"""Traces: the port, and who does nothing in its place. OpenTelemetry is behind it (worker/otel.py), an extra."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Protocol

from worker.errors import SettingsError

if TYPE_CHECKING:
    from worker.hand import Hand
    from worker.kafka.sink import Message
    from worker.settings import Settings

_NOTHING: AbstractContextManager[None] = nullcontext()


class Tracing(Protocol):
    def batch(self, hand: Hand) -> AbstractContextManager[None]:
        """Around all that is done with a batch."""

    def stage(self, name: str) -> AbstractContextManager[None]:
        """Around a part of it; messages are handed over, or acknowledged, when `publish` ends."""

    def sent(self, messages: Sequence[Message]) -> Sequence[Message]:
        """What is to be published next, with the context of its trace in the headers."""

    def close(self) -> None:
        """What is told and not yet exported goes out, for a few seconds."""


class Untraced:
    def batch(self, hand: Hand) -> AbstractContextManager[None]:
        return _NOTHING

    def stage(self, name: str) -> AbstractContextManager[None]:
        return _NOTHING

    def sent(self, messages: Sequence[Message]) -> Sequence[Message]:
        return messages

    def close(self) -> None:
        return None


def opened(settings: Settings) -> Tracing:
    """Raises SettingsError where OpenTelemetry is wanted, and is not installed or cannot use its environment."""
    if not settings.traces.enabled:
        return Untraced()
    try:
        from worker import otel

        return otel.opened(settings)
    except ImportError as error:
        raise SettingsError(
            f"ZMU_TRACES__ENABLED needs OpenTelemetry, which is not installed ({error}); pip install 'zmu[otel]'"
        ) from None
    except ValueError as error:
        raise SettingsError(
            f"ZMU_TRACES__ENABLED: OpenTelemetry cannot use its own variables, OTEL_…: {error}; mend or unset them"
        ) from None
