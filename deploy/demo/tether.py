"""Child processes that cannot outlive their parent, however it ends."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

# Runs in the child and becomes the command. The second look at the parent closes the gap in which it may have
# died before the tether held. prctl(1) is PR_SET_PDEATHSIG; where there is none (not Linux) the command runs free.
_LAUNCHER = """\
import ctypes, os, sys
signal, parent = int(sys.argv[1]), int(sys.argv[2])
prctl = getattr(ctypes.CDLL(None), "prctl", None)
if prctl is not None:
    prctl(1, signal, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(1)
os.execvp(sys.argv[3], sys.argv[3:])
"""


def tethered(command: Sequence[str], end_with: signal.Signals = signal.SIGKILL) -> list[str]:
    """The command such that, on Linux, the kernel sends it `end_with` when this process dies, even by SIGKILL.

    The kernel watches the *thread* that starts it: start it from one that lives as long as the process.
    A launcher and not Popen(preexec_fn=…), which may deadlock in a process with threads.
    """
    return [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(int(end_with)), str(os.getpid()), *command]
