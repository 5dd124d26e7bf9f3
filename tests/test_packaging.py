"""What `pip install .` gives somebody who has no checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


CARGO = shutil.which("cargo")


def without_cargo(path: str) -> str:
    return os.pathsep.join(folder for folder in path.split(os.pathsep) if not (Path(folder) / "cargo").exists())


@pytest.fixture(
    scope="module",
    params=["pure", pytest.param("compiled", marks=pytest.mark.skipif(CARGO is None, reason="no Rust toolchain"))],
)
def kind(request: pytest.FixtureRequest) -> str:
    """Whether the machine that builds has a Rust toolchain."""
    return str(request.param)


def crates_come() -> bool:
    fetch = ["cargo", "fetch", "--locked", "--manifest-path", str(ROOT / "worker/_core/Cargo.toml")]
    return subprocess.run(fetch, capture_output=True, check=False).returncode == 0


@pytest.fixture(scope="module")
def wheel(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as pip builds it, from a copy: setuptools leaves its traces in the folder that it builds from."""
    folder = tmp_path_factory.mktemp("wheel")
    unneeded = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "target", "*.so")
    shutil.copytree(ROOT, folder / "source", ignore=unneeded)
    environment = dict(os.environ)
    if kind == "pure":
        environment["PATH"] = without_cargo(environment["PATH"])
    elif not crates_come():
        pytest.skip("cargo is here, but the crates that the core needs cannot be fetched")
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(folder / "source")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel in it, and this one's packages behind it: torch need not come again."""
    venv = tmp_path_factory.mktemp("installed") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    pip = [sys.executable, "-m", "pip", "--python", str(venv / "bin/python"), "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", str(wheel)], check=True)
    (site,) = venv.glob("lib/python*/site-packages")
    behind = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site / "behind.pth").write_text("\n".join(sorted(behind)) + "\n")
    return venv / "bin"


def run(program: Path, *args: str, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ZMU_", "PYTHON"))}
    done = subprocess.run([program, *args], cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_holds_the_two_programs_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"worker", "training", "zmu-0.1.0.dist-info"}
    ours = [path for package in ("worker", "training") for path in (ROOT / package).rglob("*.py")]
    assert {name for name in names if name.endswith(".py")} == {str(path.relative_to(ROOT)) for path in ours}
    assert "zmu-0.1.0.dist-info/licenses/LICENSE" in names


def test_a_wheel_is_for_every_machine_unless_it_holds_compiled_code(wheel: Path, kind: str) -> None:
    compiled = [name for name in zipfile.ZipFile(wheel).namelist() if not name.endswith((".py", ".typed"))]
    compiled = [name for name in compiled if name.startswith(("worker", "training"))]
    if kind == "pure":
        assert (compiled, wheel.name) == ([], "zmu-0.1.0-py3-none-any.whl")
    else:
        assert [Path(name).name.split(".")[0] for name in compiled] == ["columns"]
        assert wheel.name.startswith("zmu-0.1.0-cp311-abi3-")


def test_the_core_is_used_where_it_was_built(installed: Path, tmp_path: Path, kind: str) -> None:
    code = "from worker import compiled; print(compiled.kind())"
    assert run(installed / "python", "-c", code, cwd=tmp_path).strip() == {"pure": "python"}.get(kind, kind)


def test_the_programs_are_the_installed_ones(installed: Path, tmp_path: Path) -> None:
    code = "import worker.cli, training.settings; print(worker.cli.__file__, training.settings.__file__)"
    for path in run(installed / "python", "-c", code, cwd=tmp_path).split():
        assert Path(path).is_relative_to(installed.parent)


@pytest.mark.parametrize("program", ["zmu-worker", "zmu-training"])
def test_a_program_runs_in_another_folder(installed: Path, tmp_path: Path, program: str) -> None:
    assert f"usage: {program}" in run(installed / program, "--help", cwd=tmp_path)
    assert "kafka.bootstrap_servers = localhost:9092" in run(installed / program, "config", cwd=tmp_path)
