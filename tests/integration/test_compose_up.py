"""deploy/compose.yaml brought up: Kafka, its topics, the plant, training, the worker, and Prometheus that scrapes them.

    python -m pytest -m slow tests/integration/test_compose_up.py

Needs a Docker engine, docker-compose and a base image, as test_image.py does. Images that are neither here nor to be
pulled are stood in for, under their own names, by what this machine has: Kafka by the embedded broker's parts,
Prometheus by Debian's package. Alertmanager and Grafana are left out.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import docker as docker_sdk
import jgo
import pytest
import yaml

from deploy.demo.jars import KAFKA_VERSION
from tests import kafka_image
from tests.integration.test_image import ROOT, answers, docker
from tests.integration.test_image import image as image
from tests.programs import until

FILE = ROOT / "deploy/compose.yaml"
DEMO = "zmu-demo:test"
TOOLS = f"org.apache.kafka:kafka-tools:{KAFKA_VERSION}@org.apache.kafka.tools.TopicCommand"
KAFKA = """\
FROM {kafka} AS kafka
FROM {base}
COPY --from=kafka /opt /opt
COPY --from=kafka /etc/kafka /etc/kafka
COPY --from=kafka /entry /entry
COPY tools /opt/kafka/tools
RUN mkdir -p /mnt/shared/config /opt/kafka/bin /opt/kafka/config && \\
    printf '#!/bin/sh\\nexec java -cp "/opt/kafka/tools/*" org.apache.kafka.tools.TopicCommand "$@"\\n' \\
    > /opt/kafka/bin/kafka-topics.sh && chmod +x /opt/kafka/bin/kafka-topics.sh
ENV PATH=/opt/java/bin:/usr/bin:/bin
ENTRYPOINT ["/bin/sh", "/entry"]
"""
PROMETHEUS = """\
FROM {base}
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends prometheus wget && mkdir -p /prometheus
ENTRYPOINT ["prometheus"]
"""

pytestmark = [pytest.mark.slow, pytest.mark.docker, pytest.mark.timeout(2400)]


class Compose:
    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = {**os.environ, **environment}

    def __call__(self, *args: str) -> str:
        command = ["docker-compose", "--project-name", "zmu-test", "--file", str(FILE), "--profile", "demo", *args]
        done = subprocess.run(command, capture_output=True, text=True, env=self._environment, check=False)
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    def get(self, service: str, port: int, path: str) -> str:
        """Over the port that the service publishes on this machine."""
        try:
            address = self("port", service, str(port)).strip()
            with urllib.request.urlopen(f"http://{address}{path}", timeout=5) as answer:
                return str(answer.read().decode())
        except OSError:
            return ""

    def sample(self, series: str) -> float:
        """Of the worker, summed over its labels."""
        lines = [line for line in self.get("worker", 9108, "/metrics").splitlines() if line.startswith(series)]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def base() -> str:
    return os.environ.get("ZMU_TEST_BASE_IMAGE", "python:3.12-slim")


def stand_in(service: str, dockerfile: str, folder: Path) -> str | None:
    """The image's name where it was made here; None where the real one is there."""
    name = str(yaml.safe_load(FILE.read_text())["services"][service]["image"])
    if answers("image", "inspect", name) or answers("pull", "--quiet", name):
        return None
    (folder / service).mkdir(exist_ok=True)
    (folder / service / "Dockerfile").write_text(dockerfile)
    docker("build", "--network=host", "--tag", name, str(folder / service))
    return name


@pytest.fixture
def compose(image: str, tmp_path: Path) -> Iterator[Compose]:
    if shutil.which("docker-compose") is None:
        pytest.skip("no docker-compose on the PATH")
    (tmp_path / "kafka/tools").mkdir(parents=True)
    for jar in jgo.build(TOOLS).all_jars:
        shutil.copy(jar, tmp_path / "kafka/tools")
    made = [
        stand_in("kafka", KAFKA.format(kafka=kafka_image.built(docker_sdk.from_env()), base=base()), tmp_path),
        stand_in("prometheus", PROMETHEUS.format(base=base()), tmp_path),
    ]
    index = os.environ.get("ZMU_TEST_TORCH_INDEX")
    docker("build", "--network=host", f"--build-arg=BASE_IMAGE={base()}", "--target=demo", "--tag", DEMO,
           *([] if index is None else [f"--build-arg=TORCH_INDEX={index}"]), str(ROOT))
    up = Compose({"ZMU_IMAGE": image, "ZMU_DEMO_IMAGE": DEMO})
    try:
        yield up
    finally:
        up("down", "--volumes", "--timeout", "30")
        for name in filter(None, made):
            docker("image", "rm", name, check=False)


def test_from_nothing_to_anomalies_that_prometheus_sees(compose: Compose) -> None:
    compose("up", "--detach", "--no-build", "kafka", "topics", "worker", "training", "plant", "prometheus")

    def said() -> str:
        return compose("ps") + compose("logs", "--tail", "20", "worker", "training", "plant", "topics")

    until(lambda: compose.sample("zmu_records_scored_total") > 1000, 400, said)
    until(lambda: compose.sample("zmu_anomalies_total") > 0, 400, said)     # a pump breaks every two minutes
    assert json.loads(compose.get("worker", 9108, "/readyz"))["output"] is True

    def up(job: str) -> bool:
        found = compose.get("prometheus", 9090, f"/api/v1/query?query=up%7Bjob%3D%22{job}%22%7D%20%3D%3D%201")
        return bool(found) and len(json.loads(found)["data"]["result"]) == 1

    for job in ("zmu-worker", "zmu-training"):                              # found by the names of the services
        until(lambda job=job: up(job), 90, said)                            # type: ignore[misc]
