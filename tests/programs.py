"""The worker as the process that it is in production: started, read, signalled."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]


class Program:
    """`python -m MODULE ARGS…` with its stderr kept. A context manager: nothing stays behind."""

    def __init__(self, module: str, *args: str, **environment: str) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("ZMU_")}
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *args],
            cwd=ROOT,
            env={**inherited, "ZMU_LOG__FORMAT": "json", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join()
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()

    @property
    def stderr(self) -> str:
        return "".join(self.lines)

    def wait(self, timeout: float = 60) -> int:
        """The exit code. Raises TimeoutExpired."""
        code = self.process.wait(timeout)
        self._reader.join()
        return code

    def stop(self, how: signal.Signals = signal.SIGTERM, timeout: float = 30) -> int:
        self.process.send_signal(how)
        return self.wait(timeout)

    def says(self, text: str, timeout: float = 60) -> None:
        until(lambda: text in self.stderr or self.process.poll() is not None, timeout, lambda: self.stderr)
        assert text in self.stderr, self.stderr

    @property
    def port(self) -> int:
        """Of /metrics, from the line that says where it is."""
        self.says('"event": "listening"')
        found = re.search(r'"port": (\d+)', self.stderr)
        assert found
        return int(found[1])

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def metric(self, series: str) -> float:
        """One sample of /metrics by its exact name and labels; 0 where absent."""
        for line in self.get("/metrics")[1].splitlines():
            if line.startswith(series + " "):
                return float(line.rsplit(" ", 1)[1])
        return 0.0

    def ready(self, timeout: float = 60) -> None:
        until(lambda: self.get("/readyz")[0] == 200, timeout, lambda: self.stderr)

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)


def until(holds: Callable[[], bool], timeout: float, otherwise: Callable[[], str] = lambda: "") -> None:
    """Waits for something that another process does."""
    deadline = time.monotonic() + timeout
    while not holds():
        assert time.monotonic() < deadline, otherwise()
        time.sleep(0.05)


def worker_environment(broker: str, registry: Path, topics: Mapping[str, str]) -> dict[str, str]:
    return {
        "ZMU_KAFKA__BOOTSTRAP_SERVERS": broker,
        "ZMU_MODEL__REGISTRY": str(registry),
        "ZMU_MODEL__RELOAD_SECONDS": "0.2",
        "ZMU_INPUT__TOPIC": topics["input"],
        "ZMU_INPUT__GROUP_ID": f"g-{topics['input']}",
        "ZMU_INPUT__START": "earliest",
        "ZMU_OUTPUT__TOPIC": topics["output"],
        "ZMU_DEAD_LETTERS__TOPIC": topics["dead"],
        "ZMU_HTTP__HOST": "127.0.0.1",
        "ZMU_HTTP__PORT": "0",
    }


def parsed(value: bytes | None) -> dict[str, object]:
    document: dict[str, object] = json.loads(value or b"null")
    return document
