"""A registry on a real MLflow server: what its pages show, what a worker takes from it, and what is refused."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
import torch

from deploy.demo.ports import free_port
from tests import factory
from tests.integration.conftest import Plant
from tests.integration.test_training import fill, values
from tests.programs import Program, until
from training import publish
from worker.errors import ModelError, RegistryError
from worker.models import artifact, mlflow_client
from worker.models.artifact import GateResult, Losses
from worker.models.mlflow_registry import TAG, MlflowRegistry
from worker.models.registry import opened

mlflow = pytest.importorskip("mlflow", reason="needs the extra mlflow")

FILES = {"manifest.json": b"{}", "model.safetensors": b"weights", "report.html": b"<p>"}


def executable() -> str | None:
    """The server's. The client alone (mlflow-skinny) installs a command of that name too, which cannot serve."""
    given = os.environ.get("ZMU_TEST_MLFLOW")
    if given:
        return given
    beside = Path(sys.executable).parent
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        importlib.metadata.distribution("mlflow")
        beside = Path()
    found = (shutil.which("mlflow", path=f) for f in os.get_exec_path() if Path(f) != beside)
    return next((command for command in found if command), None)


class Server:
    """`mlflow server` on SQLite and a folder. One that was stopped starts again with all that it had."""

    def __init__(self, command: str, folder: Path) -> None:
        self.port = free_port()
        self.url, self._log = f"http://127.0.0.1:{self.port}", folder / "server.log"
        self._command = [
            command, "server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1",
            "--backend-store-uri", f"sqlite:///{folder}/mlflow.db",
            "--artifacts-destination", str(folder / "artifacts"),
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if self._process is not None:
            return
        quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, env=os.environ | quiet, start_new_session=True
            )
        until(self._answers, 120, self._log.read_text)

    def stop(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)        # it has children that serve
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        with contextlib.suppress(URLError, OSError), urlopen(f"{self.url}/health", timeout=2):
            return True
        return False


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    command = executable()
    if command is None:
        pytest.skip(
            "needs MLflow's server: `pip install mlflow` in an environment of its own, with its `mlflow` on PATH or in "
            "ZMU_TEST_MLFLOW"
        )
    server = Server(command, tmp_path_factory.mktemp("mlflow"))
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def server(kept: Server) -> Server:
    kept.start()
    return kept


@pytest.fixture
def registry(server: Server) -> MlflowRegistry:
    """Of a model that is not there yet."""
    made = opened(f"mlflow+{server.url}/", f"pumps-{time.time_ns()}")
    assert isinstance(made, MlflowRegistry)
    return made


def client(server: Server) -> mlflow.MlflowClient:
    """MLflow's own, as any other tool would use it."""
    return mlflow.MlflowClient(server.url)


def test_versions_and_aliases_are_mlflows(registry: MlflowRegistry, server: Server) -> None:
    assert registry.versions() == []
    assert registry.aliases() == {}
    assert registry.resolve("champion") is None
    registry.writable()
    assert registry.versions() == []
    assert registry.resolve("champion") is None
    registry.publish("v1", FILES)
    registry.publish("v2", {name: FILES[name] for name in ("manifest.json", "model.safetensors")})
    assert registry.versions() == ["v1", "v2"]
    assert registry.read("v1", "report.html") == b"<p>"
    registry.point("champion", "v1")
    other = opened(registry.url, registry.name)
    assert other.resolve("champion") == "v1"
    registry.point("champion", "v2")
    assert other.resolve("champion") == "v2"
    assert other.aliases() == {"champion": "v2"}
    assert client(server).get_model_version_by_alias(registry.name, "champion").tags[TAG] == "v2"
    assert other.folder is None

    with pytest.raises(RegistryError, match="versions never change"):
        other.publish("v1", FILES)
    with pytest.raises(ModelError, match="no version 'v3'"):
        registry.point("champion", "v3")
    with pytest.raises(ModelError, match=r"v2 has no report\.html"):
        registry.read("v2", "report.html")
    with pytest.raises(ModelError, match=r"v3 has no manifest\.json"):
        registry.read("v3", "manifest.json")
    with pytest.raises(ModelError, match="no name of a version"):
        registry.read("' or name='x", "manifest.json")
    with pytest.raises(ModelError, match="no file of a version"):
        registry.read("v1", "../../mlflow.db")


def test_notes_are_tags_of_a_version(registry: MlflowRegistry) -> None:
    registry.publish("v1", FILES)
    registry.note("v1", "host-1", b'{"readings": 1}')
    registry.note("v1", "host-2", b'{"readings": 2}')
    registry.note("v1", "host-1", b'{"readings": 3}')
    assert registry.notes("v1") == [b'{"readings": 3}', b'{"readings": 2}']
    assert registry.notes("v2") == []
    with pytest.raises(RegistryError, match="no version 'v2'"):
        registry.note("v2", "host-1", b"{}")


def test_a_run_says_where_a_version_comes_from(registry: MlflowRegistry, server: Server) -> None:
    looks = tuple(
        Losses(epoch=at, train_reconstruction=9, train_kl=1, held_reconstruction=10, held_kl=1, held_total=11 / at)
        for at in (1.0, 2.0, 2.6)
    )
    many = {f"error.°C {i}/min": i / 7 for i in range(1200)}           # more than MLflow takes at once
    factory.publish(
        registry.url, name=registry.name, losses=looks, figures=many,  # type: ignore[arg-type]
        gates=(GateResult(name="alert_rate", value=0.01, bound="≤ 0.02", passed=True),),
    )
    found = client(server).get_model_version_by_alias(registry.name, "champion")
    run = client(server).get_run(found.run_id)
    assert (run.info.status, run.info.run_name, run.data.tags[TAG]) == ("FINISHED", "v1", "v1")
    assert client(server).get_experiment(run.info.experiment_id).name == registry.name
    assert run.data.params["kind"] == "vae"
    assert run.data.params["features"] == "temperature, pressure, flow"
    assert run.data.params["shape.hidden"] == "8"
    assert run.data.metrics["gate.alert_rate"] == 0.01
    assert run.data.metrics["gate.alert_rate.passed"] == 1
    assert run.data.metrics["error._C 700_min"] == 100
    told = client(server).get_metric_history(found.run_id, "loss.held_total")
    assert [(m.step, m.value) for m in told] == [(1, 11), (2, 5.5), (3, 11 / 2.6)]


def test_a_version_whose_publisher_died_is_none(
    registry: MlflowRegistry, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(self: MlflowRegistry, version: str, run_id: str, source: str) -> None:
        raise KeyboardInterrupt

    register = MlflowRegistry._register
    monkeypatch.setattr(MlflowRegistry, "_register", dies)
    with pytest.raises(KeyboardInterrupt):
        registry.publish("v1", FILES)
    monkeypatch.setattr(MlflowRegistry, "_register", register)
    assert registry.versions() == []
    experiment = client(server).get_experiment_by_name(registry.name)
    (run,) = client(server).search_runs([experiment.experiment_id])
    assert run.info.status == "FAILED"
    registry.publish("v1", FILES)                       # the name is free
    assert registry.versions() == ["v1"]


def test_what_others_did_to_a_version_is_refused(registry: MlflowRegistry, server: Server, tmp_path: Path) -> None:
    factory.publish(registry.url, name=registry.name)   # type: ignore[arg-type]
    assert artifact.load(registry, "v1", torch.device("cpu")).manifest.version == "v1"
    number = client(server).get_model_version_by_alias(registry.name, "champion").version
    with pytest.raises(ModelError, match=r"manifest\.json has \d+ bytes; at most 3 are read"):
        mlflow_client.fetched(server.url, registry.name, number, "manifest.json", 3)

    run_id = client(server).get_model_version(registry.name, number).run_id
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"\x80\x04other")
    client(server).log_artifact(run_id, str(weights))
    with pytest.raises(ModelError, match="SHA-256"):
        artifact.load(registry, "v1", torch.device("cpu"))

    source = client(server).get_run(run_id).info.artifact_uri
    foreign = client(server).create_model_version(registry.name, source, run_id)
    client(server).set_registered_model_alias(registry.name, "champion", foreign.version)
    with pytest.raises(ModelError, match=r"did not publish: it has no tag zmu\.version"):
        registry.resolve("champion")
    assert registry.versions() == ["v1"]
    assert registry.aliases() == {}


def test_a_server_whose_clients_keep_the_files_is_refused(
    registry: MlflowRegistry, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"local-{registry.name}"
    client(server).create_experiment(name, artifact_location=tmp_path.as_uri())
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", name)
    with pytest.raises(RegistryError, match=r"--serve-artifacts .*MLFLOW_EXPERIMENT_NAME"):
        registry.writable()


def test_training_publishes_and_the_worker_outlives_the_server(
    registry: MlflowRegistry, server: Server, broker: str, topic: Callable[..., str], plant: Plant
) -> None:
    name = plant.topics["input"]
    fill(broker, name, values(1200), partitions=4)
    environment = plant.environment | {"ZMU_MODEL__REGISTRY": registry.url, "ZMU_MODEL__NAME": registry.name}
    environment.pop("ZMU_INPUT__FEATURES", None)
    quick = {"ZMU_TRAINING__KIND": "pca", "ZMU_TRAINING__PROFILE": "pointwise", "ZMU_TRAINING__RIVALS": "false"}

    with Program("training", "run", **environment, **quick) as program:
        assert program.wait(120) == 0, program.stderr
    first = registry.resolve("champion")
    assert first is not None
    found = client(server).get_model_version_by_alias(registry.name, "champion")
    run = client(server).get_run(found.run_id)
    assert run.data.params["settings.kind"] == "pca"
    assert run.data.metrics["gate.finite.passed"] == 1
    files = {file.path for file in client(server).list_artifacts(run.info.run_id, "plots")}
    assert {"plots/error-by-feature.svg", "plots/a-reading.svg", "plots/a-reading-2.svg"} <= files
    drawn = mlflow_client.fetched(server.url, registry.name, found.version, "plots/error-by-feature.svg", 2**20)
    assert drawn is not None
    assert b"<svg" in drawn
    assert b"vibration" in drawn
    with Program("worker", "run", **environment) as program:
        program.ready()
        scored = 'zmu_records_scored_total{{model_version="{}"}}'.format
        until(lambda: program.metric(scored(first)) >= 1200, 60, lambda: program.stderr)
        second = "z-by-hand"
        again = artifact.read_manifest(registry, first).model_copy(update={"version": second})
        artifact.save(registry, again, registry.read(first, "model.safetensors"), "")
        publish.promote(registry, "champion", second)
        assert registry.aliases() == {"champion": second, "previous": first}
        program.says(second)                            # taken between two batches
        server.stop()
        program.says("Connection refused")
        fill(broker, name, values(300, seed=1), partitions=4)
        until(lambda: program.metric(scored(second)) >= 300, 60, lambda: program.stderr)
        assert program.get("/readyz")[0] == 200
        assert program.stop() == 0, program.stderr
    said = [json.loads(line) for line in program.lines if "Connection refused" in line]
    assert {line["stage"] for line in said} == {"reload"}
