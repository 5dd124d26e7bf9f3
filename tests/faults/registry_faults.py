"""Faults of the registry: a full disk under it, a publisher that dies as it writes. The worker serves on meanwhile."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from deploy.demo.broker import EmbeddedBroker
from tests import factory
from tests.faults.site import Site
from tests.faults.table import Tried
from tests.faults.workers import processes
from tests.programs import ROOT
from worker.errors import RegistryError
from worker.models.registry import MANIFEST, REPORT, WEIGHTS, Registry

# Which write the publisher dies in (weights, report, manifest, alias), and whether half of the file is there by then.
DEATHS = [(write, torn) for write in range(4) for torn in (True, False)]
FULL_KB = 64                            # holds one version of the factory's and not two


class _Dying(Registry):
    """kill -9 in the middle of the nth write, or right after it."""

    def __init__(self, url: str, name: str, nth: int, torn: bool) -> None:
        super().__init__(url, name)
        self._left, self._torn = nth, torn

    def _write(self, path: str, content: bytes) -> None:
        if self._left == 0 and self._torn:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(f"{path}.torn.part").write_bytes(content[: len(content) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        super()._write(path, content)
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self._left -= 1


def _publish(url: str, files: Mapping[str, bytes], nth: int, torn: bool) -> None:
    registry = _Dying(url, "default", nth, torn)
    registry.publish("v2", files)
    registry.point("champion", "v2")


def _files() -> dict[str, bytes]:
    """Of a version v2, as a training would publish it."""
    with tempfile.TemporaryDirectory() as folder:
        made = factory.publish(Path(folder), "v2", **factory.remembering())     # type: ignore[arg-type]
        return {name: made.read("v2", name) for name in (MANIFEST, WEIGHTS, REPORT)}


def publisher_killed(broker: EmbeddedBroker, delivery: str, times: int) -> Iterator[Tried]:
    """Wherever it dies: a version is whole or none, the alias names a whole one, the next one gets through."""
    files = _files()
    with Site(broker, delivery) as site, site.worker() as worker:
        worker.ready()
        registry = Registry(str(site.registry), "default")
        for nth, torn in DEATHS:
            site.send(60)
            seconds = site.done(otherwise=lambda: worker.log)       # under v1: the last one dies with v2 in service
            publisher = processes.Process(target=_publish, args=(str(site.registry), files, nth, torn))
            publisher.start()
            publisher.join(60)
            assert publisher.exitcode == -signal.SIGKILL
            whole = nth == 3 or (nth == 2 and not torn)
            assert registry.versions() == ["v1", *["v2"] * whole], (nth, torn)
            assert registry.resolve("champion") == ("v2" if (nth, torn) == (3, False) else "v1")
            if whole and (nth, torn) != DEATHS[-1]:
                shutil.rmtree(site.registry / "default" / "v2")     # for the next one to die, too
        registry.point("champion", "v1")
        shutil.rmtree(site.registry / "default" / "v2")
        registry.publish("v2", files)                               # over all that was left lying there
        assert registry.versions() == ["v1", "v2"]
        assert worker.stop() == 0, worker.log
        yield Tried.judged("publisher killed -9 as it writes", delivery, len(DEATHS), site.verdict(), seconds)


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A file system of few bytes there. Needs the right to mount one."""
    size = f"size={FULL_KB}k"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder)], check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _readings(folder: Path) -> Path:
    file = folder / "readings.jsonl"
    file.write_bytes(b"\n".join(factory.random_readings(200, 50)))
    return file


def disk_full(broker: EmbeddedBroker, delivery: str, times: int) -> Iterator[Tried]:
    """Publishing fails and says why; nothing is torn, the champion stays, and scoring goes on."""
    if os.geteuid() != 0:
        return
    with Site(broker, delivery) as site, small_disk(site.registry), tempfile.TemporaryDirectory() as elsewhere:
        factory.publish(site.registry, **factory.remembering())     # type: ignore[arg-type]
        registry = Registry(str(site.registry), "default")
        with site.worker() as worker:
            worker.ready()
            for _ in range(times):
                site.send(150)
                site.done(otherwise=lambda: worker.log)
                fill = site.registry / "fill"
                with contextlib.suppress(OSError), fill.open("wb") as file:
                    while True:
                        file.write(b"\0" * 512)
                        file.flush()
                with pytest.raises(RegistryError, match="No space left on device"):
                    factory.publish(site.registry, "v2", champion=False, **factory.remembering())  # type: ignore[arg-type]
                said = subprocess.run(
                    [sys.executable, "-m", "training", "run", "--source", str(_readings(Path(elsewhere)))],
                    cwd=ROOT, capture_output=True, text=True, env={**os.environ, **site.environment},
                )
                assert said.returncode == 2, said
                assert "cannot write (No space left on device)" in said.stderr, said
                assert registry.versions() == ["v1"]
                assert registry.aliases()["champion"] == "v1"
                assert not list(site.registry.rglob("*.part"))
                fill.unlink()
            factory.publish(site.registry, "v2", champion=False, **factory.remembering())   # type: ignore[arg-type]
            site.send(150)
            seconds = site.done(otherwise=lambda: worker.log)
            assert worker.stop() == 0, worker.log
        yield Tried.judged("disk full under the registry", delivery, times, site.verdict(), seconds)
