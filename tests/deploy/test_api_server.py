"""The Helm chart in a real Kubernetes API server: installed, upgraded, uninstalled; its pods admitted as restricted.

Slow only where the server is not built yet: `python -m tests.deploy.kubernetes`.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.deploy import kubernetes
from tests.deploy.chart import CHART, VALUES, named
from tests.deploy.kubernetes import Cluster

RELEASE = "plant"
# Of operators that the chart speaks to where they are; what their objects must look like is theirs to say.
KINDS = (
    ("monitoring.coreos.com", "v1", "PodMonitor"), ("monitoring.coreos.com", "v1", "PrometheusRule"),
    ("keda.sh", "v1alpha1", "ScaledObject"),
)

pytestmark = [
    pytest.mark.skipif(shutil.which("helm") is None, reason="helm is not installed"),
    pytest.mark.skipif(not kubernetes.is_built(), reason="no API server: python -m tests.deploy.kubernetes builds it"),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with kubernetes.cluster(tmp_path_factory.mktemp("cluster")) as found:
        for group, version, kind in KINDS:
            found.make("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition(group, version, kind))
        yield found


def definition(group: str, version: str, kind: str) -> dict[str, Any]:
    plural = f"{kind.lower()}s"
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group, "scope": "Namespaced", "names": {"kind": kind, "plural": plural},
            "versions": [{"name": version, "served": True, "storage": True, "schema": schema}],
        },
    }


def namespace(cluster: Cluster, name: str) -> str:
    """One in which a pod must ask for no more than the restricted standard allows."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.make("/api/v1/namespaces", {"metadata": {"name": name, "labels": labels}})
    return name


def helm(cluster: Cluster, where: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["helm", *arguments, "--namespace", where, "--kubeconfig", str(cluster.kubeconfig)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def done(outcome: subprocess.CompletedProcess[str]) -> str:
    assert outcome.returncode == 0, outcome.stderr
    return outcome.stdout


def pods(cluster: Cluster, where: str) -> list[dict[str, Any]]:
    """What the server keeps of each pod to be, its defaults filled in."""
    apps = f"/apis/apps/v1/namespaces/{where}"
    kinds = ("deployments", "statefulsets")
    found = [item["spec"]["template"] for kind in kinds for item in cluster.items(f"{apps}/{kind}")]
    jobs = cluster.items(f"/apis/batch/v1/namespaces/{where}/cronjobs")
    return found + [item["spec"]["jobTemplate"]["spec"]["template"] for item in jobs]


@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem.removesuffix("-values"))
def test_it_is_installed_upgraded_and_leaves_nothing(cluster: Cluster, values: Path) -> None:
    where = namespace(cluster, f"of-{values.stem}")
    done(helm(cluster, where, "install", RELEASE, str(CHART), "-f", str(values)))
    kept = pods(cluster, where)
    assert kept
    accounts = f"/api/v1/namespaces/{where}/serviceaccounts"
    there = {account["metadata"]["name"] for account in cluster.items(accounts)}
    for name in {pod["spec"]["serviceAccountName"] for pod in kept} - there:
        cluster.make(accounts, {"metadata": {"name": name}})        # one that the values take for granted
    for number, pod in enumerate(kept):
        metadata = pod["metadata"] | {"name": f"pod-{number}"}
        cluster.make(f"/api/v1/namespaces/{where}/pods", {"metadata": metadata, "spec": pod["spec"]})
    done(helm(cluster, where, "upgrade", RELEASE, str(CHART), "-f", str(values), "--set", "image.tag=next"))
    images = {container["image"] for pod in pods(cluster, where) for container in pod["spec"]["containers"]}
    assert all(image.endswith(":next") for image in images)
    done(helm(cluster, where, "uninstall", RELEASE))
    assert pods(cluster, where) == []


def test_a_pod_that_asks_for_more_is_not_admitted(cluster: Cluster) -> None:
    """So that the one above says something."""
    where = namespace(cluster, "refusing")
    done(helm(cluster, where, "install", RELEASE, str(CHART), "-f", str(named("minimal"))))
    spec = pods(cluster, where)[0]["spec"]
    spec["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    status, answer = cluster.ask(
        "POST", f"/api/v1/namespaces/{where}/pods", {"metadata": {"name": "greedy"}, "spec": spec}
    )
    assert status == 403
    assert "allowPrivilegeEscalation" in answer["message"]


def test_what_only_the_server_knows_to_be_wrong_is_refused(cluster: Cluster) -> None:
    where = namespace(cluster, "wrong")
    given = ("-f", str(named("minimal")), "--set", "serviceAccount.name=Not_A_Name")
    wrong = helm(cluster, where, "install", RELEASE, str(CHART), *given)
    assert wrong.returncode != 0
    assert "Not_A_Name" in wrong.stderr
