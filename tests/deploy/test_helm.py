"""The Helm chart renders what Kubernetes accepts, with the programs' own settings and no more rights than it needs."""

from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.deploy.chart import CHART, KUBERNETES, VALUES, Manifest, helm, kinds, manifests, named, template
from tests.deploy.promql import DASHBOARDS, DEPLOY
from training.__main__ import Run as TrainingRun
from worker import cli
from worker.__main__ import Run as WorkerRun

OF_OPERATORS = {"PodMonitor", "PrometheusRule", "ScaledObject"}     # no schema of Kubernetes'

each_values = pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem.removesuffix("-values"))
pytestmark = pytest.mark.skipif(shutil.which("helm") is None, reason="helm is not installed")

def pods(values: Path) -> dict[str, Manifest]:
    """Pod specs by component."""
    found = {}
    for manifest in manifests(values):
        if manifest["kind"] in ("Deployment", "StatefulSet"):
            found["worker"] = manifest["spec"]["template"]["spec"]
        elif manifest["kind"] == "CronJob":
            found["training"] = manifest["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    return found


def settings(values: Path) -> dict[str, str]:
    (found,) = [m for m in manifests(values) if m["kind"] == "ConfigMap" and "ZMU_INPUT__TOPIC" in m["data"]]
    return dict(found["data"])


@each_values
def test_helm_lints_it(values: Path) -> None:
    linted = helm("lint", str(CHART), "--strict", "--kube-version", KUBERNETES, "-f", str(values))
    assert linted.returncode == 0, linted.stdout + linted.stderr


@each_values
def test_kubernetes_accepts_it(values: Path) -> None:
    """By Kubernetes' own schemas, where unknown fields are errors."""
    schemas = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    for manifest in manifests(values):
        if manifest["kind"] not in OF_OPERATORS:
            schemas.validate(manifest, KUBERNETES.rpartition(".")[0], strict=True)


@each_values
def test_the_programs_take_their_settings(values: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = settings(values)
    secret = {f"ZMU_{part}__PASSWORD": "hunter2" for part in ("KAFKA", "HTTP") if f"ZMU_{part}__USERNAME" in given}
    (tmp_path / "ca.crt").touch()
    for name, value in (given | secret).items():
        monkeypatch.setenv(name, value)
    for program, command in ("zmu-worker", WorkerRun), ("zmu-training", TrainingRun):
        read = cli.read(command, f"{program} run", [])
        assert read.kafka.bootstrap_servers == given["ZMU_KAFKA__BOOTSTRAP_SERVERS"]
        assert read.model.registry == given["ZMU_MODEL__REGISTRY"]


def test_settings_are_told_apart_by_their_kind() -> None:
    given = settings(named("production"))
    assert given["ZMU_STATE__ENTITY_TTL_SECONDS"] == "2592000"          # and not 2.592e+06
    assert json.loads(given["ZMU_INPUT__IGNORE"]) == ["label", "operator"]
    assert json.loads(given["ZMU_QUALITY__LIMITS"]) == {"pressure": [0, 16]}


@each_values
def test_pods_are_locked_down(values: Path) -> None:
    for component, pod in pods(values).items():
        assert pod["securityContext"]["runAsNonRoot"] is True, component
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
        }  # fmt: skip
        assert container["resources"]["limits"]["memory"]
        assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"]


@each_values
def test_mounts_have_volumes(values: Path) -> None:
    for pod in pods(values).values():
        (container,) = pod["containers"]
        assert {m["name"] for m in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


def test_the_worker_only_reads_the_registry() -> None:
    models = {
        component: next(m for m in pod["containers"][0]["volumeMounts"] if m["name"] == "models")
        for component, pod in pods(named("minimal")).items()
    }
    assert (models["worker"]["readOnly"], models["training"]["readOnly"]) == (True, False)
    assert settings(named("minimal"))["ZMU_MODEL__REGISTRY"] == models["worker"]["mountPath"]
    claim = kinds(named("minimal"))["PersistentVolumeClaim"]["metadata"]["name"]
    assert {"claimName": claim} in [v.get("persistentVolumeClaim") for v in pods(named("minimal"))["worker"]["volumes"]]
    assert "PersistentVolumeClaim" not in kinds(named("production"))        # its models are in an object store


@each_values
def test_selectors_find_the_workers_and_no_training(values: Path) -> None:
    found = kinds(values)
    workload = found.get("Deployment") or found["StatefulSet"]
    labels = workload["spec"]["template"]["metadata"]["labels"]
    for kind in ("PodDisruptionBudget", "PodMonitor"):
        if kind in found:
            assert found[kind]["spec"]["selector"]["matchLabels"].items() <= labels.items()
            assert found[kind]["spec"]["selector"]["matchLabels"]["app.kubernetes.io/component"] == "worker"
    assert workload["spec"]["selector"]["matchLabels"].items() <= labels.items()
    if workload["kind"] == "StatefulSet":
        service = found["Service"]
        assert workload["spec"]["serviceName"] == service["metadata"]["name"]
        assert service["spec"]["selector"].items() <= labels.items()


def test_probes_ask_where_the_worker_answers() -> None:
    (container,) = pods(named("minimal"))["worker"]["containers"]
    assert {"name": "metrics", "containerPort": int(settings(named("minimal"))["ZMU_HTTP__PORT"])} in container["ports"]
    paths = {name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "liveness", "readiness")}
    assert paths == {"startup": "/healthz", "liveness": "/healthz", "readiness": "/readyz"}


@pytest.mark.parametrize(("values", "scheme"), [("minimal", "HTTP"), ("production", "HTTPS")])
def test_probes_and_scrapes_speak_what_the_worker_serves(values: str, scheme: str) -> None:
    (container,) = pods(named(values))["worker"]["containers"]
    assert {container[f"{name}Probe"]["httpGet"]["scheme"] for name in ("startup", "liveness", "readiness")} == {scheme}
    if scheme == "HTTPS":
        (endpoint,) = kinds(named(values))["PodMonitor"]["spec"]["podMetricsEndpoints"]
        assert endpoint["scheme"] == "https"
        assert set(endpoint) >= {"tlsConfig", "basicAuth"}


def test_trainings_do_not_overlap() -> None:
    job = kinds(named("production"))["CronJob"]["spec"]
    assert job["concurrencyPolicy"] == "Forbid"
    assert job["startingDeadlineSeconds"] > 0
    assert job["jobTemplate"]["spec"]["activeDeadlineSeconds"] > 0
    assert job["jobTemplate"]["spec"]["template"]["spec"]["restartPolicy"] == "Never"


@pytest.mark.parametrize(("values", "kind"), [("gpu", "HorizontalPodAutoscaler"), ("production", "ScaledObject")])
def test_what_scales_owns_the_number_of_replicas(values: str, kind: str) -> None:
    found = kinds(named(values))
    assert "replicas" not in found["Deployment"]["spec"]
    assert found[kind]["spec"]["scaleTargetRef"]["name"] == found["Deployment"]["metadata"]["name"]


def test_keda_scales_on_the_workers_own_group() -> None:
    (trigger,) = kinds(named("production"))["ScaledObject"]["spec"]["triggers"]
    given = settings(named("production"))
    assert trigger["metadata"]["consumerGroup"] == given["ZMU_INPUT__GROUP_ID"]
    assert trigger["metadata"]["topic"] == given["ZMU_INPUT__TOPIC"]
    assert trigger["metadata"]["bootstrapServers"] == given["ZMU_KAFKA__BOOTSTRAP_SERVERS"]
    assert trigger["metadata"]["limitToPartitionsWithLag"] == "true"


def test_traces_leave_where_they_are_made_and_nowhere_else() -> None:
    """OpenTelemetry's own variable says where they go: the policy opens that port."""
    policy = kinds(named("production"))["NetworkPolicy"]["spec"]
    (container,) = pods(named("production"))["worker"]["containers"]
    (endpoint,) = [v["value"] for v in container["env"] if v["name"] == "OTEL_EXPORTER_OTLP_ENDPOINT"]
    collector = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "tracing"}}}]
    port = int(endpoint.rpartition(":")[2])
    opened = {"ports": [{"port": port, "protocol": "TCP"}], "to": collector}
    assert settings(named("production"))["ZMU_TRACES__ENABLED"] == "true"
    assert policy["egress"].count(opened) == 1

    untraced = kinds(named("minimal"), "--set", "networkPolicy.enabled=true")["NetworkPolicy"]["spec"]["egress"]
    assert [rule["port"] for peers in untraced for rule in peers["ports"]] == [53, 53, 9092]


def test_a_gpu_is_a_limit_and_the_device() -> None:
    (container,) = pods(named("gpu"))["worker"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert {"name": "ZMU_DEVICE", "value": "cuda"} in container["env"]


def test_the_dashboards_are_those_of_this_project() -> None:
    there = {
        name: json.loads(text)
        for m in manifests(named("production"))
        if m["kind"] == "ConfigMap" and m["metadata"]["labels"].get("grafana_dashboard")
        for name, text in m["data"].items()
    }
    assert there == {path.name: json.loads(path.read_text()) for path in DASHBOARDS.glob("*.json")}


def test_the_scraped_labels_are_those_that_dashboards_choose_by() -> None:
    (endpoint,) = kinds(named("production"))["PodMonitor"]["spec"]["podMetricsEndpoints"]
    fixed = {r["targetLabel"]: r.get("replacement") for r in endpoint["relabelings"]}
    assert fixed == {"job": "zmu-worker", "group": "plant-a", "instance": None}


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("settings.kafka.bootstrap_servers=", "/settings/kafka/bootstrap_servers"),
        ("settings.kafka.password=hunter2", "/settings/kafka"),
        ("settings.http.password=hunter2", "/settings/http"),
        ("worker.replica=3", "replica"),
        ("autoscaling.type=vpa", "/autoscaling/type"),
        ("training.schedule=daily", "/training/schedule"),
        ("training.overdueSeconds=12h", "/training/overdueSeconds"),
        ("networkPolicy.traces.ports={otlp}", "/networkPolicy/traces/ports/0"),
    ],
)
def test_the_schema_says_what_is_wrong(argument: str, said: str) -> None:
    refused = template(named("minimal"), "--set", argument)
    assert refused.returncode != 0
    assert said in refused.stderr


def test_versions_are_the_projects() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    version = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())["project"]["version"]
    assert chart["version"] == chart["appVersion"] == version
