"""kafka-python made to take from a socket what is there, and not 4 KiB at a time.

Python's lock changes hands around each such piece: the thread that scores stops for the one that receives.

This is private ground of kafka-python 3.0: where it is not as known, it receives in its own way.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from kafka.net.compat import KafkaNetClient

AT_ONCE_BYTES = 262_144


def widen(client: KafkaNetClient) -> None:
    """All connections that the client will make."""
    manager = client._manager
    build = getattr(manager, "_build_transport", None)
    if build is None:
        return

    async def built(*of: Any, **known: Any) -> Any:
        transport = await build(*of, **known)
        if hasattr(transport, "_sock_recv"):
            transport._sock_recv = Wide(transport).received
        return transport

    manager._build_transport = built


class Wide:
    """What a transport's own way of receiving is shown in the transport's place, and in its socket's.

    The transport holds it, and so it does not hold the transport: that goes as soon as nobody has it, as ever.
    """

    def __init__(self, transport: Any) -> None:
        self._transport: Callable[[], Any] = weakref.ref(transport)
        self._sock = self

    def received(self) -> Any:
        return type(self._transport())._sock_recv(self)

    def recv(self, _: int) -> bytes:
        found: bytes = self._transport()._sock.recv(AT_ONCE_BYTES)
        return found

    def __str__(self) -> str:
        return str(self._transport())
