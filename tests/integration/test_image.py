"""The container image, built for real: training and the worker run from it as an operator would run them.

Needs a Docker engine and a base image that is there already: python:3.12-slim, or the one that ZMU_TEST_BASE_IMAGE
names (.ci/base-image makes one). ZMU_TEST_TORCH_INDEX replaces PyTorch's index of CPU wheels; empty: the ordinary one.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
import tomllib
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from deploy.demo.ports import free_port
from tests import kafka
from tests.training import machine

ROOT = Path(__file__).parents[2]
TAG = "zmu:test"
# As deploy/compose.yaml has it, but for the network.
LOCKED_DOWN = (
    "--network=host", "--read-only", "--tmpfs=/tmp:size=256m,mode=1777", "--cap-drop=ALL",
    "--security-opt=no-new-privileges", "--memory=2g", "--pids-limit=256",
)

pytestmark = [pytest.mark.docker, pytest.mark.timeout(2400)]      # the first build downloads torch


def docker(*args: str, check: bool = True) -> str:
    done = subprocess.run(["docker", *args], capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, f"docker {' '.join(args)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout.strip()


def answers(*args: str) -> bool:
    try:
        return subprocess.run(["docker", *args], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.fixture(scope="module")
def image() -> str:
    if not answers("info"):
        pytest.skip("no Docker engine answers")
    base = os.environ.get("ZMU_TEST_BASE_IMAGE", "python:3.12-slim")
    if not answers("image", "inspect", base):
        pytest.skip(f"no base image {base}: pull it, or name another in ZMU_TEST_BASE_IMAGE (.ci/base-image makes one)")
    arguments = [f"--build-arg=BASE_IMAGE={base}"]
    if "ZMU_TEST_TORCH_INDEX" in os.environ:
        arguments.append(f"--build-arg=TORCH_INDEX={os.environ['ZMU_TEST_TORCH_INDEX']}")
    docker("build", "--network=host", *arguments, "--tag", TAG, str(ROOT))
    return TAG


@pytest.fixture
def volume(image: str) -> Iterator[str]:
    """A registry: a new named volume."""
    name = f"zmu-test-{uuid.uuid4().hex[:10]}"
    docker("volume", "create", name)
    yield name
    docker("volume", "rm", name)


def run(image: str, *command: str, options: tuple[str, ...] = ()) -> str:
    return docker("run", "--rm", *LOCKED_DOWN, *options, image, *command)


def test_training_publishes_what_the_worker_serves(
    image: str, volume: str, broker: str, topic: Callable[..., str]
) -> None:
    readings, anomalies = topic(partitions=2, name="readings"), topic(name="anomalies")
    normal = [json.dumps(row).encode() for row in machine.rows(4000)]
    kafka.fill(broker, readings, normal, [b"pump-1"] * len(normal))
    environment = {
        "ZMU_KAFKA__BOOTSTRAP_SERVERS": broker,
        "ZMU_INPUT__TOPIC": readings,
        "ZMU_INPUT__GROUP_ID": f"image-{uuid.uuid4().hex[:10]}",
        "ZMU_INPUT__START": "earliest",
        "ZMU_OUTPUT__TOPIC": anomalies,
        "ZMU_DEAD_LETTERS__TOPIC": topic(name="dlq"),
        "ZMU_HTTP__PORT": str(free_port()),
    }
    settings = tuple(f"--env={name}={value}" for name, value in environment.items())

    run(image, "zmu-training", "run", options=(*settings, f"--volume={volume}:/models"))
    assert "champion" in run(image, "zmu-training", "models", "list", options=(f"--volume={volume}:/models:ro",))

    worker = docker(
        "run", "--detach", *LOCKED_DOWN, *settings, f"--volume={volume}:/models:ro", "--health-interval=2s", image
    )
    try:
        url = f"http://127.0.0.1:{environment['ZMU_HTTP__PORT']}"
        wait_for(lambda: status(f"{url}/readyz") == 200, worker)
        last = machine.rows(4001)[-1]
        at_ms = last["timestamp"]
        kafka.fill(broker, readings, [json.dumps(last | {"pressure": 9.0}).encode()], [b"pump-1"])
        wait_for(lambda: at_ms in events(broker, anomalies), worker)
        event = events(broker, anomalies)[at_ms]
        assert event["entity"] == "pump-1"
        assert event["anomaly_score"] > 1
        assert event["contributions"][0]["feature"] == "pressure"
        wait_for(lambda: docker("inspect", "--format={{.State.Health.Status}}", worker) == "healthy", worker)
        docker("stop", "--time=30", worker)
        assert docker("inspect", "--format={{.State.ExitCode}}", worker) == "0", logs(worker)
    finally:
        docker("rm", "--force", worker)


def test_the_image_runs_as_a_user_that_can_write_nowhere_but_the_registry_and_tmp(image: str, volume: str) -> None:
    script = "id -u; for place in / /opt/zmu /models /tmp; do touch $place/x 2>/dev/null && echo $place; done; true"
    found = run(image, "sh", "-c", script, options=(f"--volume={volume}:/models",))
    assert found.split() == ["10001", "/models", "/tmp"]


def test_the_environment_has_both_programs_and_no_pip(image: str) -> None:
    script = "command -v zmu-worker zmu-training; python -m pip --version 2>&1; python -m worker --help"
    programs, no_pip, usage = run(image, "bash", "-c", script).partition("/opt/zmu/bin/python: No module named pip")
    assert programs.split() == ["/opt/zmu/bin/zmu-worker", "/opt/zmu/bin/zmu-training"]
    assert no_pip
    assert "usage: zmu-worker" in usage


def test_the_image_says_what_it_holds(image: str) -> None:
    sbom = json.loads(run(image, "cat", "/usr/share/zmu/sbom.cdx.json"))
    assert (sbom["bomFormat"], sbom["metadata"]["component"]["name"]) == ("CycloneDX", "zmu")
    purls = [component.get("purl", "") for component in sbom["components"]]
    for kind in ("pkg:pypi/torch@", "pkg:pypi/kafka-python@", "pkg:cargo/pyo3@", "pkg:deb/debian/libc6@"):
        assert [purl for purl in purls if purl.startswith(kind)], kind
    assert sorted(purls) == sorted(set(purls))


def test_labels_name_the_version(image: str) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    labels = json.loads(docker("image", "inspect", "--format={{json .Config.Labels}}", image))
    assert labels["org.opencontainers.image.title"] == "zmu"
    assert labels["org.opencontainers.image.version"] == version


def status(url: str) -> int | None:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    except OSError:
        return None


def events(broker: str, topic: str) -> dict[int, dict[str, Any]]:
    """By the reading's time, epoch ms."""
    found = [json.loads(record.value) for record in kafka.contents(broker, topic)]
    return {round(datetime.fromisoformat(event["timestamp"]).timestamp() * 1000): event for event in found}


def wait_for(reached: Callable[[], bool], container: str, timeout_seconds: float = 60) -> None:
    deadline = time.monotonic() + timeout_seconds
    while not reached():
        running = docker("inspect", "--format={{.State.Running}}", container) == "true"
        assert running, f"the container ended:\n{logs(container)}"
        assert time.monotonic() < deadline, f"not reached in {timeout_seconds} s:\n{logs(container)}"
        time.sleep(0.25)


def logs(container: str) -> str:
    done = subprocess.run(["docker", "logs", container], capture_output=True, text=True, check=False)
    return done.stdout[-3000:] + done.stderr[-3000:]
