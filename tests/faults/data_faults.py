"""Faults of what is read: records that are no readings, clocks that are off, models that cannot be served."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from deploy.demo.broker import EmbeddedBroker
from tests import factory
from tests.faults.site import Site
from tests.faults.table import Tried
from tests.programs import ROOT, until
from worker.models import artifact
from worker.models.registry import Registry

DAY_MS = 86_400_000
RUN = "runpy.run_module('worker', run_name='__main__')"
CODECS = {"zstd": ("zstandard", "zstandard"), "snappy": ("snappy", "python-snappy"), "lz4": ("lz4", "lz4")}


def timestamps_off(broker: EmbeddedBroker, delivery: str, times: int) -> Iterator[Tried]:
    """By a day, forth and back, and the age of what is read never below zero."""
    with Site(broker, delivery) as site, site.worker() as worker:
        worker.ready()
        for i in range(times):
            site.send(150, off_ms=DAY_MS if i % 2 == 0 else -DAY_MS)
        seconds = site.done(otherwise=lambda: worker.log)
        ages = re.findall(r"zmu_consumer_time_lag_seconds\{.*\} (\S+)", worker.get("/metrics")[1])
        assert all(float(age) >= 0 for age in ages), ages
        assert worker.stop() == 0, worker.log
        yield Tried.judged("timestamps a day off", delivery, times, site.verdict(), seconds)


def codec_missing(broker: EmbeddedBroker, delivery: str, times: int) -> Iterator[Tried]:
    """Records that nothing here can decompress: the worker ends and names the package; with it, nothing is lost."""
    for codec, (module, package) in list(CODECS.items())[: times + 1]:
        with Site(broker, delivery) as site:
            site.send(60)
            site.send(60, compression=codec)
            site.environment["ZMU_OUTPUT__COMPRESSION"] = "none"
            without = f"import sys, runpy; sys.modules[{module!r}] = None; "
            said = subprocess.run(
                [sys.executable, "-c", without + RUN, "run", "--until-drained"], cwd=ROOT,
                env={**os.environ, **site.environment}, capture_output=True, text=True, timeout=120,
            )
            assert said.returncode == 1, said
            assert f"pip install {package}" in said.stderr, said
            assert site.topics["input"] in said.stderr
            assert site.committed() <= 60
            drained = site.drain()
            yield Tried.judged(f"codec not installed: {codec}", delivery, 1, site.verdict(), drained.seconds)


def _torn(folder: Path) -> None:
    weights = folder / "default" / "v2" / "model.safetensors"
    factory.publish(folder, "v2", champion=False, **factory.remembering())      # type: ignore[arg-type]
    weights.write_bytes(weights.read_bytes()[:-20])


def _killed_in_publishing(folder: Path) -> None:
    factory.publish(folder, "v2", champion=False, **factory.remembering())      # type: ignore[arg-type]
    (folder / "default" / "v2" / "manifest.json").unlink()


def _not_finite(folder: Path) -> None:
    registry = factory.publish(folder, "v3", champion=False, **factory.remembering())   # type: ignore[arg-type]
    loaded = artifact.load(registry, "v3", torch.device("cpu"))
    with torch.no_grad():
        next(loaded.model.parameters()).fill_(float("nan"))
    weights = artifact.weights_of(loaded.model)
    manifest = loaded.manifest.model_copy(update={"version": "v2", "sha256": artifact.sha256_of(weights)})
    artifact.save(registry, manifest, weights, "<html></html>")


def _other_features(folder: Path) -> None:
    factory.publish(folder, "v2", features=("pressure", "temperature", "flow"), champion=False)


MODELS: dict[str, Callable[[Path], None]] = {
    "champion is torn": _torn,
    "champion has no manifest": _killed_in_publishing,
    "champion has weights that are NaN": _not_finite,
    "champion has other features": _other_features,
}


def models(broker: EmbeddedBroker, delivery: str, times: int) -> Iterator[Tried]:
    """The one before goes on serving, and a metric tells."""
    for what, publish in list(MODELS.items())[: 2 * times]:
        with Site(broker, delivery) as site, site.worker() as worker:
            worker.ready()
            site.send(150)
            publish(site.registry)
            (site.registry / "default" / "aliases" / "champion").write_text("v2")   # our own tool would refuse to
            until(lambda: worker.metric(r'zmu_model_reloads_total\{result="refused"\}') > 0, 30, lambda: worker.log)
            site.send(150)
            seconds = site.done(otherwise=lambda: worker.log)
            assert worker.stop() == 0, worker.log
            Registry(str(site.registry), "default").point("champion", "v1")     # for the oracle
            yield Tried.judged(what, delivery, 1, site.verdict(), seconds)
