"""zmu's own two programs, run as an operator would: processes of their own, set up by the environment.

They are made before there is a Kafka, and started with the settings that name it.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path

from deploy.demo.tether import tethered
from worker.errors import UserError

_LOG_TAIL_LINES = 12


class ProgramError(UserError):
    """A program of the demo ended badly; the message holds the end of its log."""

    exit_code = 1


class Training:
    """`zmu-training run`. Raises ProgramError where it ends without a model that may serve."""

    def __init__(self, log_path: Path) -> None:
        self._log_path = log_path
        self._process = _prepare(["training", "run"], log_path)

    def start(self, settings: Mapping[str, str]) -> None:
        _start(self._process, settings)

    @property
    def done(self) -> bool:
        return self._process.poll() == 0

    @property
    def last_line(self) -> str:
        with self._log_path.open(errors="replace") as log:
            return next(iter(deque(log, 1)), "").strip()

    def check(self) -> None:
        code = self._process.poll()
        if code:
            raise ProgramError(_failure(f"zmu-training run ended with code {code}", self._log_path))

    def stop(self) -> int | None:
        return end(self._process)


class Worker:
    """`zmu-worker run`. Raises ProgramError where it ends by itself."""

    def __init__(self, http_port: int, log_path: Path) -> None:
        self.metrics_url = f"http://127.0.0.1:{http_port}/metrics"
        self._ready_url = f"http://127.0.0.1:{http_port}/readyz"
        self._http_port = http_port
        self._log_path = log_path
        self._process = _prepare(["worker", "run"], log_path)

    def start(self, settings: Mapping[str, str]) -> None:
        _start(self._process, {**settings, "ZMU_HTTP__PORT": str(self._http_port)})

    def wait_ready(self, training: Training, said: Callable[[str], object], timeout_seconds: float = 90) -> None:
        """Returns when /readyz says yes: it has the model of that training, and its partitions.

        said: gets what the training said last, now and then.
        timeout_seconds: counted from the end of the training.
        """
        deadline = math.inf
        while not self._says_ready():
            self.check()
            training.check()
            said(training.last_line)
            if training.done:
                deadline = min(deadline, time.monotonic() + timeout_seconds)
            if time.monotonic() > deadline:
                late = f"zmu-worker run was not ready {timeout_seconds:.0f} s after the training"
                raise ProgramError(_failure(late, self._log_path))
            time.sleep(0.1)

    def check(self) -> None:
        code = self._process.poll()
        if code is not None:
            raise ProgramError(_failure(f"zmu-worker run ended with code {code}", self._log_path))

    def stop(self) -> int | None:
        """Drains and leaves, by SIGTERM; the exit code."""
        return end(self._process)

    def _says_ready(self) -> bool:
        try:
            with urllib.request.urlopen(self._ready_url, timeout=2):
                return True
        except (urllib.error.URLError, OSError):
            return False


def end(process: subprocess.Popen[bytes], grace_seconds: float = 20) -> int | None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(grace_seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    return process.returncode


def _prepare(command: list[str], log_path: Path) -> subprocess.Popen[bytes]:
    with log_path.open("wb") as log:
        return subprocess.Popen(
            tethered([sys.executable, "-m", "deploy.demo.prepared", *command]),
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,         # Ctrl-C is for us: we stop them in order
        )


def _start(process: subprocess.Popen[bytes], settings: Mapping[str, str]) -> None:
    """Where it has ended already, check() says how."""
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError), process.stdin:
        process.stdin.write(json.dumps(dict(settings)).encode() + b"\n")


def _failure(what: str, log_path: Path) -> str:
    with log_path.open(errors="replace") as log:
        tail = deque(log, _LOG_TAIL_LINES)
    return "\n".join([f"{what}; it said last:", *(f"    {line.rstrip()}" for line in tail), f"  All of it: {log_path}"])
