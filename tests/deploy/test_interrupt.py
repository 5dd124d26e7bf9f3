"""Ctrl-C that comes at a bad moment."""

from __future__ import annotations

import subprocess
import sys

from tests.programs import ROOT

SCRIPT = """
import os, signal
from deploy.demo.interrupt import Interrupt

class Last:
    def __del__(self):
        {freed}

with Interrupt() as interrupt:
    interrupt.raising()
    try:
        Last()
        interrupt.check()
    except KeyboardInterrupt:
        print("asked to end")
"""


def said(freed: str) -> tuple[str, str]:
    script = SCRIPT.format(freed=freed)
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout, done.stderr


def test_while_an_object_is_freed_it_is_heard_and_nothing_is_printed() -> None:
    assert said("os.kill(os.getpid(), signal.SIGINT); [None for _ in range(9)]") == ("asked to end\n", "")


def test_what_else_goes_wrong_there_is_printed() -> None:
    out, err = said("'no number' + 1")
    assert out == ""
    assert "TypeError" in err
