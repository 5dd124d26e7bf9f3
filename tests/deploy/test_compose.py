"""deploy/compose.yaml and what it mounts agree with each other and with the programs' own settings."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from training.__main__ import Schedule
from training.settings import TrainingSettings
from worker import cli
from worker.__main__ import Run

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "deploy" / "compose.yaml"
OURS = ("worker", "training", "plant")


def interpolated(text: str) -> str:
    """As compose does where no variable is set: ${NAME:-default} and ${NAME-default} are the default, $$ is $."""
    return re.sub(r"\$\{\w+:?-([^}]*)\}", r"\1", text).replace("$$", "$")


def services() -> dict[str, Any]:
    return dict(yaml.safe_load(interpolated(COMPOSE.read_text()))["services"])


def environment(service: str) -> dict[str, str]:
    return {name: str(value) for name, value in services()[service]["environment"].items()}


def prometheus() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text()))


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The settings that a service's command and environment come to, by the program's own reader."""

    def read(service: str, command: type[cli.Command]) -> cli.Command:
        monkeypatch.chdir(tmp_path)
        for name, value in environment(service).items():
            monkeypatch.setenv(name, value)
        program, name, *args = services()[service]["command"]
        assert (program, name) == (f"zmu-{service}", command.__name__.lower())
        return cli.read(command, f"{program} {name}", args)

    return read


def test_the_worker_takes_its_settings(settings: Any) -> None:
    read = settings("worker", Run)
    assert read.kafka.bootstrap_servers == "kafka:19092"
    assert read.input.start == "earliest"       # readings from before the first model was there count too


def test_training_takes_its_settings(settings: Any) -> None:
    read = settings("training", Schedule)
    assert read.every == "6h"
    assert read.model.registry == "/models"


def test_worker_and_training_meet_in_topic_and_registry(settings: Any) -> None:
    worker, training = settings("worker", Run), settings("training", Schedule)
    assert worker.model.registry == training.model.registry
    assert worker.model.name == training.model.name
    assert worker.input.topic == training.input.topic
    assert services()["worker"]["volumes"] == ["registry:/models:ro"]
    assert services()["training"]["volumes"] == ["registry:/models"]


def test_the_plant_is_a_module_of_the_demo_image() -> None:
    plant = services()["plant"]
    assert plant["build"]["target"] == "demo"
    assert plant["profiles"] == ["demo"]
    assert plant["command"][:2] == ["python", "-m"]
    assert importlib.util.find_spec(plant["command"][2]) is not None


def test_every_topic_is_created() -> None:
    created = set(re.findall(r"--topic (\S+)", "".join(services()["topics"]["command"])))
    used = {value for service in OURS for name, value in environment(service).items() if name.endswith("TOPIC")}
    assert created == used | {TrainingSettings().feedback.topic, TrainingSettings().maintenance_topic}


@pytest.mark.parametrize("service", list(services()))
def test_every_image_is_pinned_and_limited(service: str) -> None:
    fields = services()[service]
    if "image" in fields:
        assert re.search(r":v?\d+\.\d+\.\d+$", fields["image"]), fields["image"]
    assert fields["mem_limit"]
    assert fields["restart"] in ("unless-stopped", "on-failure")


@pytest.mark.parametrize("service", OURS)
def test_our_containers_are_locked_down(service: str) -> None:
    fields = services()[service]
    assert fields["read_only"] is True
    assert fields["user"] == "10001:10001"
    assert fields["cap_drop"] == ["ALL"]
    assert fields["security_opt"] == ["no-new-privileges:true"]
    assert fields["tmpfs"][0].startswith("/tmp:")


@pytest.mark.parametrize("service", [name for name, fields in services().items() if "ports" in fields])
def test_ports_are_published_on_this_machine_only(service: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in services()[service]["ports"])


def test_prometheus_scrapes_both_programs_where_they_serve() -> None:
    scraped = {
        config["job_name"]: (config["dns_sd_configs"][0]["names"], str(config["dns_sd_configs"][0]["port"]))
        for config in prometheus()["scrape_configs"]
        if "dns_sd_configs" in config
    }
    assert scraped == {
        f"zmu-{service}": ([service], environment(service)["ZMU_HTTP__PORT"]) for service in ("worker", "training")
    }


def test_the_group_label_is_the_workers_group() -> None:
    [worker] = [config for config in prometheus()["scrape_configs"] if config["job_name"] == "zmu-worker"]
    [group] = [rule["replacement"] for rule in worker["relabel_configs"] if rule["target_label"] == "group"]
    assert group == environment("worker")["ZMU_INPUT__GROUP_ID"]


def test_grafana_finds_prometheus_and_the_dashboards() -> None:
    provisioning = ROOT / "deploy/grafana/provisioning"
    [source] = yaml.safe_load((provisioning / "datasources/prometheus.yaml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    assert source["jsonData"]["timeInterval"] == prometheus()["global"]["scrape_interval"]
    [provider] = yaml.safe_load((provisioning / "dashboards/zmu.yaml").read_text())["providers"]
    folder = provider["options"]["path"]
    assert f"./grafana/dashboards:{folder}:ro" in services()["grafana"]["volumes"]
    home = services()["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (ROOT / "deploy/grafana/dashboards" / Path(home).relative_to(folder)).is_file()


def test_prometheus_tells_alertmanager() -> None:
    [told] = prometheus()["alerting"]["alertmanagers"]
    [address] = told["static_configs"][0]["targets"]
    name, port = address.split(":")
    assert f"127.0.0.1:{port}:{port}" in services()[name]["ports"]
    for volume in services()[name]["volumes"] + services()["prometheus"]["volumes"]:
        if volume.startswith("./"):
            assert (ROOT / "deploy" / volume.split(":")[0]).exists(), volume
    assert prometheus()["rule_files"] == ["/etc/prometheus/rules/*.yml"]
    assert "./prometheus:/etc/prometheus:ro" in services()["prometheus"]["volumes"]


def test_versions_are_the_projects() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert {services()[service]["image"].rpartition(":")[2] for service in OURS} == {version}
    assert f"\nARG VERSION={version}\n" in (ROOT / "Dockerfile").read_text()


def test_compose_accepts_the_file() -> None:
    compose = next((c for c in (["docker", "compose"], ["docker-compose"]) if _answers(c)), None)
    if compose is None:
        pytest.skip("neither `docker compose` nor `docker-compose` is installed")
    checked = subprocess.run(
        [*compose, "-f", str(COMPOSE), "config", "-q"], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr


def test_promtool_accepts_the_scrape_configuration() -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool (Debian's package prometheus) is not installed")
    checked = subprocess.run(
        ["promtool", "check", "config", str(ROOT / "deploy/prometheus/prometheus.yml")],
        capture_output=True, text=True, check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def _answers(command: list[str]) -> bool:
    if shutil.which(command[0]) is None:
        return False
    return subprocess.run([*command, "version"], capture_output=True, check=False).returncode == 0
