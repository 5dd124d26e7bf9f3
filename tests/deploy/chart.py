"""The Helm chart, rendered with its several values files."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.promql import DEPLOY

CHART = DEPLOY / "helm" / "zmu"
VALUES = sorted((CHART / "ci").glob("*-values.yaml"))
KUBERNETES = "1.34.0"

Manifest = dict[str, Any]


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["helm", *arguments], capture_output=True, text=True, check=False)


def template(values: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return helm("template", "plant", str(CHART), "--kube-version", KUBERNETES, "-f", str(values), *arguments)


@functools.cache
def manifests(values: Path, *arguments: str) -> list[Manifest]:
    rendered = template(values, *arguments)
    assert rendered.returncode == 0, rendered.stderr
    return [manifest for manifest in yaml.safe_load_all(rendered.stdout) if manifest]


def kinds(values: Path, *arguments: str) -> dict[str, Manifest]:
    """The manifest of each kind of which there is one."""
    found = manifests(values, *arguments)
    return {m["kind"]: m for m in found if [other["kind"] for other in found].count(m["kind"]) == 1}


def named(name: str) -> Path:
    return CHART / "ci" / f"{name}-values.yaml"
