"""A registry on a real S3 server (moto's), reached as any other: by the environment of AWS's own tools."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from deploy.demo.ports import free_port
from tests.integration.conftest import Plant
from tests.integration.test_training import fill, values
from tests.programs import Program, until
from worker.errors import ModelError, RegistryError
from worker.models.registry import Registry

pytest.importorskip("s3fs", reason="needs the extra s3")
pytest.importorskip("moto", reason="needs moto's server")

BUCKET = "models"


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    log = (tmp_path_factory.mktemp("s3") / "moto.log").open("wb")
    with log, subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], stdout=log, stderr=log
    ) as server:
        try:
            url = f"http://127.0.0.1:{port}"
            until(lambda: _answers(url), 60, lambda: Path(log.name).read_text())
            yield url
        finally:
            server.terminate()


def _answers(url: str) -> bool:
    with contextlib.suppress(URLError, OSError), urlopen(url, timeout=2):
        return True
    return False


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty one's URL."""
    import s3fs

    for name, value in {"AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret",
                        "AWS_DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    name = f"{BUCKET}-{time.time_ns()}"
    s3fs.S3FileSystem().mkdir(name)
    return f"s3://{name}/zmu"


def test_versions_and_aliases_are_objects(bucket: str) -> None:
    registry = Registry(bucket, "default")
    registry.writable()
    assert registry.versions() == []
    assert registry.aliases() == {}
    assert registry.resolve("champion") is None
    files = {"manifest.json": b"{}", "model.safetensors": b"weights", "report.html": b"<p>"}
    registry.publish("v1", files)
    registry.publish("v2", files)
    assert registry.versions() == ["v1", "v2"]
    assert registry.read("v2", "model.safetensors") == b"weights"
    registry.point("champion", "v1")
    other = Registry(bucket, "default")                 # another process's: nothing of the first is in its memory
    assert other.resolve("champion") == "v1"
    registry.point("champion", "v2")
    assert other.resolve("champion") == "v2"
    assert other.aliases() == {"champion": "v2"}
    with pytest.raises(RegistryError, match="versions never change"):
        other.publish("v1", files)
    with pytest.raises(ModelError, match="no version 'v3'"):
        registry.point("champion", "v3")
    with pytest.raises(ModelError, match=r"has no model\.safetensors"):
        Registry(bucket, "other").read("v1", "model.safetensors")


def test_a_version_whose_publisher_died_is_none(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    registry, put = Registry(bucket, "default"), Registry._write

    def dies(self: Registry, path: str, content: bytes) -> None:
        if path.endswith("manifest.json"):
            raise KeyboardInterrupt
        put(self, path, content)

    monkeypatch.setattr(Registry, "_write", dies)
    with pytest.raises(KeyboardInterrupt):
        registry.publish("v1", {"manifest.json": b"{}", "model.safetensors": b"weights"})
    assert registry.versions() == []
    monkeypatch.setattr(Registry, "_write", put)
    registry.publish("v1", {"manifest.json": b"{}", "model.safetensors": b"weights"})   # the same name is free
    assert registry.versions() == ["v1"]


def test_a_bucket_that_is_not_there_is_named(bucket: str) -> None:
    registry = Registry("s3://nowhere/zmu", "default")
    with pytest.raises(RegistryError, match=r"registry s3://nowhere/zmu/default: cannot write .*ZMU_MODEL__REGISTRY"):
        registry.writable()


def test_training_publishes_and_the_worker_takes_it(
    bucket: str, broker: str, topic: Callable[..., str], plant: Plant
) -> None:
    name = plant.topics["input"]
    fill(broker, name, values(1200), partitions=4)
    environment = plant.environment | {"ZMU_MODEL__REGISTRY": bucket, "ZMU_MODEL__RELOAD_SECONDS": "0.5"}
    environment.pop("ZMU_INPUT__FEATURES", None)
    quick = {"ZMU_TRAINING__KIND": "pca", "ZMU_TRAINING__PROFILE": "pointwise", "ZMU_TRAINING__RIVALS": "false"}

    def train() -> str:
        with Program("training", "run", **environment, **quick) as program:
            assert program.wait() == 0, program.stderr
        champion = Registry(bucket, "default").resolve("champion")
        assert champion is not None
        return champion

    first = train()
    with Program("worker", "run", **environment) as program:
        program.ready()
        scored = f'zmu_records_scored_total{{model_version="{first}"}}'
        until(lambda: program.metric(scored) >= 1200, 60, lambda: program.stderr)
        fill(broker, name, values(300, seed=1), partitions=4)
        second = train()
        assert second != first
        program.says(second)                            # taken between two batches
        assert program.get("/readyz")[0] == 200
        assert program.stop() == 0, program.stderr
    versions = [json.loads(line).get("version") for line in program.lines if '"model' in line]
    assert [v for v in dict.fromkeys(versions) if v] == [first, second]
