"""A program of Prometheus' makers, started and stopped: what its kinds have in common."""

from __future__ import annotations

import shutil
import subprocess
import urllib.request
from pathlib import Path
from typing import Self

from deploy.demo.ports import free_port
from tests.programs import until


class Serving:
    """A context manager: inside it the program is ready, at its address."""

    PROGRAM: str

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.address = f"127.0.0.1:{free_port('127.0.0.1')}"

    @classmethod
    def there(cls) -> bool:
        return shutil.which(cls.PROGRAM) is not None

    def _arguments(self) -> list[str]:
        """Besides the address."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        command = [self.PROGRAM, f"--web.listen-address={self.address}", *self._arguments()]
        self._log = (self._folder / f"{self.PROGRAM}.log").open("w")
        self._process = subprocess.Popen(command, stdout=self._log, stderr=subprocess.STDOUT)
        try:
            until(self._answers, 30, lambda: Path(self._log.name).read_text())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(20)
        self._log.close()

    def _answers(self) -> bool:
        assert self._process.poll() is None, Path(self._log.name).read_text()
        try:
            with urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=2):
                return True
        except OSError:
            return False
