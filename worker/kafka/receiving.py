"""kafka-python made to take from a socket what is there, and not 4 KiB at a time; and to read it where it lies.

Python's lock changes hands around each such piece, and is held while what has come is copied: the thread that scores
stops for the one that receives.

This is private ground of kafka-python 3.0: where it is not as known, it receives in its own way.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from kafka.net.compat import KafkaNetClient
from kafka.protocol import parser
from kafka.protocol.frame import KafkaBytes

AT_ONCE_BYTES = 262_144
COPIED_BYTES = 65_536                   # of a response, at most: it costs nothing


class Response(KafkaBytes):  # type: ignore[misc]
    """A response whose body is read without a copy. kafka-python makes two, and has no more use for this then."""

    def read(self, nbytes: int | None = None) -> bytes | memoryview:
        at = self.tell()
        if nbytes is None and len(self) - at > COPIED_BYTES:
            self.seek(len(self))
            return memoryview(self)[at:]
        read: bytes = super().read(nbytes)
        return read


def widen(client: KafkaNetClient) -> None:
    """All connections that the client will make."""
    if getattr(parser, "KafkaBytes", None) is KafkaBytes:       # for the whole process
        parser.KafkaBytes = Response
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
