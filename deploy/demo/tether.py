"""Child processes that cannot outlive their parent, however it ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

# Runs in the child and becomes the command. The second look at the parent closes the gap in which it may have died
# before the tether held. prctl(PR_SET_PDEATHSIG, SIGKILL); where there is none (not Linux) the command runs free.
_LAUNCHER = """\
import ctypes, os, sys
prctl = getattr(ctypes.CDLL(None), "prctl", None)
if prctl is not None:
    prctl(1, 9, 0, 0, 0)
    if os.getppid() != int(sys.argv[1]):
        sys.exit(1)
os.execvp(sys.argv[2], sys.argv[2:])
"""


def tethered(command: Sequence[str]) -> list[str]:
    """The command such that, on Linux, the kernel kills it when this process dies, even by SIGKILL.

    The kernel watches the *thread* that starts it: start it from one that lives as long as the process.
    A launcher and not Popen(preexec_fn=…), which may deadlock in a process with threads.
    """
    return [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *command]
