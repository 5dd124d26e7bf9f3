"""What all benchmarks have in common: the machine that they name, and a file for the figures."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.programs import ROOT


def machine() -> str:
    model = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), "unknown")
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout
    load = os.getloadavg()[0]
    return f"{os.cpu_count()} cores, {model}, Python {sys.version.split()[0]}, commit {commit.strip()}, load {load:.1f}"


def parser(name: str, about: str | None) -> argparse.ArgumentParser:
    """about: a module's docstring, whose first line says what it measures."""
    first, *_ = (about or "").splitlines()
    made = argparse.ArgumentParser(prog=f"python -m tests.benchmarks {name}".strip(), description=first)
    made.add_argument("--json", type=Path, help="where to keep the figures")
    return made


def keep(path: Path | None, **figures: object) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(_named(figures), indent=1) + "\n")


def _named(value: Any) -> Any:
    """Named tuples as objects: to json they are lists."""
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, dict):
        return {key: _named(each) for key, each in value.items()}
    return [_named(each) for each in value] if isinstance(value, list | tuple) else value
