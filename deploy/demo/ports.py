"""Free ports for servers that tests and the demo start."""

from __future__ import annotations

import random
import socket

from worker.errors import BrokerError

_claims: list[int] = []                 # open files: the UDP ports, held until this process ends


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port that nobody listens on, and that no caller here or in another process was given and may still use.

    It lies below those that the kernel lends to outgoing connections: one of the kernel's own (bind to port 0) could be
    lent again while a server is down between two starts. Between the asking and the server's start others ask, too; so
    who is given a port holds the UDP port of that number, which no server here needs.
    Raises BrokerError where none is free.
    """
    for _ in range(1000):
        port = random.randint(20_000, 32_000)
        claim = socket.socket(type=socket.SOCK_DGRAM)
        try:
            claim.bind(("127.0.0.1", port))
            bind(host, port)
        except OSError:
            claim.close()
            continue
        _claims.append(claim.detach())
        return port
    raise BrokerError(f"no free port from 20000 to 32000 on {host}; end some of the servers that listen there")


def bind(host: str, port: int) -> None:
    """Nothing, where a server may listen. Raises OSError where not."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
