"""What the image is made of: the lock has all that zmu needs, hashed; the SBOM says what is installed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "deploy/requirements.lock").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXPRESSION = re.compile(r"^([a-z0-9-]+)==(\S+)((?: \\\n {4}--hash=sha256:[0-9a-f]{64})+)$", re.MULTILINE)


def locked() -> dict[str, str]:
    return {name: version for name, version, _ in EXPRESSION.findall(LOCK)}


def needed() -> list[Requirement]:
    return [Requirement(need) for need in (*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["training"])]


def test_every_line_of_the_lock_is_one_version_with_its_hashes() -> None:
    rest = EXPRESSION.sub("", LOCK)
    assert [line for line in rest.splitlines() if line and not line.startswith("#")] == []
    assert len(locked()) == len(EXPRESSION.findall(LOCK))


def test_the_lock_satisfies_the_project() -> None:
    """Where it does not: the lock's first lines hold the command that makes it anew."""
    torch = re.search(r"^ARG TORCH_VERSION=(\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert torch
    versions = locked() | {"torch": torch[1]}
    wrong = [str(need) for need in needed() if versions.get(need.name) not in need.specifier]
    assert wrong == []


def test_the_sbom_names_what_is_installed() -> None:
    site = sysconfig.get_path("purelib")
    command = [sys.executable, "-I", "deploy/sbom.py", "--site", site, "--crates", "worker/_core/Cargo.lock"]
    told = [subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout for _ in range(2)]
    assert told[0] == told[1]
    sbom = json.loads(told[0])
    assert (sbom["bomFormat"], sbom["specVersion"]) == ("CycloneDX", "1.6")
    refs = [component["bom-ref"] for component in sbom["components"]]
    assert len(refs) == len(set(refs))
    for kind in ("pkg:pypi/kafka-python@", "pkg:cargo/pyo3@"):
        assert [ref for ref in refs if ref.startswith(kind)], kind
    graph = {one["ref"]: one["dependsOn"] for one in sbom["dependencies"]}
    own = graph[sbom["metadata"]["component"]["bom-ref"]]
    names = {re.sub("^pkg:pypi/|@.*", "", ref) for ref in own}
    assert {need.name for need in needed()} <= names | {"matplotlib", "croniter"}


def test_a_place_without_zmu_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, "-I", "deploy/sbom.py", "--site", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "zmu is not installed" in done.stderr
