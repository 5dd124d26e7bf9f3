"""Workers as processes, many and quickly: forked off one that has imported all they need."""

from __future__ import annotations

import multiprocessing
import os
import re
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from signal import SIGTERM, Signals
from typing import Self

from tests.faults.hooks import Hook, parts
from tests.programs import until

processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["tests.faults.workers", "worker.daemon", "worker.cli"])


def _run(log: str, environment: Mapping[str, str], hook: Hook | None, until_drained: bool) -> None:
    from worker import cli
    from worker import log as logs
    from worker.daemon import Daemon

    os.dup2(os.open(log, os.O_WRONLY | os.O_APPEND), 2)
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    for name in [name for name in os.environ if name.startswith("ZMU_")]:
        del os.environ[name]
    os.environ.update(environment)
    settings = cli.read(cli.Command, "zmu-worker run", [])
    logs.configure(settings.log)
    os._exit(Daemon(settings, parts(hook)).run(until_drained))


class Worker:
    """One worker. A context manager: nothing stays behind."""

    def __init__(
        self, environment: Mapping[str, str], hook: Hook | None = None, until_drained: bool = False
    ) -> None:
        handle, name = tempfile.mkstemp(prefix="zmu-worker-", suffix=".log")
        os.close(handle)
        self._log = Path(name)
        self._process = processes.Process(
            target=_run, args=(name, {"ZMU_LOG__FORMAT": "json", **environment}, hook, until_drained), daemon=True
        )
        self._process.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.exitcode is None:
            self._process.kill()
        self._process.join()
        self._log.unlink(missing_ok=True)

    @property
    def log(self) -> str:
        return self._log.read_text()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def code(self) -> int | None:
        """The exit code, -9 where it was killed; None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float = 120) -> int:
        self._process.join(timeout)
        assert self._process.exitcode is not None, self.log
        return self._process.exitcode

    def signal(self, how: Signals) -> None:
        os.kill(self.pid, how)

    def stop(self, how: Signals = SIGTERM) -> int:
        self.signal(how)
        return self.wait()

    def stopped(self) -> bool:
        """Whether it has been stopped by SIGSTOP."""
        return Path(f"/proc/{self._process.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T"

    def says(self, text: str, timeout: float = 60) -> None:
        until(lambda: text in self.log or self.code is not None, timeout, lambda: self.log)
        assert text in self.log, self.log

    def get(self, path: str) -> tuple[int, str]:
        """0 where nothing answers."""
        found = re.search(r'"port": (\d+)', self.log)
        if found is None:
            return 0, ""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{found[1]}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def metric(self, name: str) -> float:
        """Sum of a metric's series."""
        lines = [line for line in self.get("/metrics")[1].splitlines() if re.match(rf"{name}[{{ ]", line)]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    def ready(self, timeout: float = 60) -> float:
        """Seconds until it said so."""
        began = time.monotonic()
        until(lambda: self.get("/readyz")[0] == 200, timeout, lambda: self.log)
        return time.monotonic() - began
