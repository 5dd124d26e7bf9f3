"""What MLflow is told of a version: parameters, metrics and pictures, taken from its manifest and its report."""

from __future__ import annotations

import base64
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

MOST_CHARACTERS = 2000                  # of a parameter; MLflow takes 6000, and a hundred of them in a megabyte
MOST_KEY_CHARACTERS = 250

_PICTURE = re.compile(rb'<img src="data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)" alt="([^"]*)"')


class Figure(NamedTuple):
    """A metric's value; step: the epoch, rounded, where there are several."""

    name: str
    value: float
    step: int = 0


def params(manifest: Mapping[str, Any]) -> dict[str, str]:
    """What it was made of, and with which settings."""
    training = manifest.get("training", {})
    told = {
        "kind": manifest.get("kind"),
        "features": manifest.get("features"),
        "rows": training.get("rows"),
        "shape": manifest.get("shape", {}),
        "settings": training.get("settings", {}),
    }
    return {_key(name): str(value)[:MOST_CHARACTERS] for name, value in _flat(told) if value not in (None, "")}


def figures(manifest: Mapping[str, Any]) -> Iterator[Figure]:
    """Figures by their names, gate.NAME and gate.NAME.passed, loss.NAME by epoch."""
    for name, value in manifest.get("figures", {}).items():
        yield Figure(_key(name), value)
    if "calibration" in manifest:
        yield Figure("threshold", manifest["calibration"]["threshold"])
    for gate in manifest.get("gates", ()):
        if gate["value"] is not None:
            yield Figure(_key(f"gate.{gate['name']}"), gate["value"])
        yield Figure(_key(f"gate.{gate['name']}.passed"), float(gate["passed"]))
    for look in manifest.get("losses", ()):
        for name, value in look.items():
            yield Figure(f"loss.{name}", value, round(look["epoch"]))


def pictures(report: bytes) -> dict[str, bytes]:
    """The report's pictures as files of their own: file → SVG."""
    found: dict[str, bytes] = {}
    seen: Counter[str] = Counter()
    for encoded, said in _PICTURE.findall(report):
        stem = re.sub(r"[^a-z0-9]+", "-", said.decode("utf-8", "replace").lower()).strip("-") or "picture"
        seen[stem] += 1
        found[f"{stem}-{seen[stem]}.svg" if seen[stem] > 1 else f"{stem}.svg"] = base64.b64decode(encoded)
    return found


def _flat(told: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in told.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", ", ".join(map(str, value)) if isinstance(value, list) else value


def _key(name: str) -> str:
    """MLflow takes letters, digits and a few signs; a feature may be called °C/min."""
    return re.sub(r"[^\w.\- ]", "_", name)[:MOST_KEY_CHARACTERS]
