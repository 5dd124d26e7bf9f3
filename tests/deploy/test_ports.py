"""Ports for servers: whoever asks while others have not started theirs is given another one."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys

import pytest

from deploy.demo import ports
from deploy.demo.ports import free_port
from tests.programs import ROOT
from worker.errors import BrokerError


def drawn(monkeypatch: pytest.MonkeyPatch, *ports: int) -> None:
    """The chances to come; the last one comes for ever."""
    left = list(ports)
    monkeypatch.setattr(random, "randint", lambda *_: left.pop(0) if len(left) > 1 else left[0])


def test_no_port_is_given_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn(monkeypatch, free_port(), free_port())
    with pytest.raises(BrokerError, match="no free port from 20000 to 32000"):
        free_port()


def test_what_another_process_was_given_is_free_again_when_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    script = "from deploy.demo.ports import free_port; print(free_port(), flush=True); input()"
    other = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True
    )
    with other:
        assert other.stdout is not None
        port = int(other.stdout.readline())
        drawn(monkeypatch, port)
        with pytest.raises(BrokerError):
            free_port()
        other.communicate("\n")
    assert free_port() == port


def test_a_port_with_a_server_is_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = free_port(), free_port()
    for _ in range(2):
        os.close(ports._claims.pop())           # nobody asked for them
    with socket.create_server(("127.0.0.1", first)):
        drawn(monkeypatch, first, second)
        assert free_port() == second
