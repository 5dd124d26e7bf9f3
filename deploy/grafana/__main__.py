"""Makes deploy/grafana/dashboards/ anew:  python -m deploy.grafana

By code of its own and not with Grafana's foundation SDK, whose newest version on PyPI speaks Grafana 11.6 and hides
behind an epoch; tests/deploy/test_dashboards.py reads the result with the SDK's types where it is installed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deploy.grafana import fleet, model, worker

FOLDER = Path(__file__).parent / "dashboards"


def made() -> Mapping[str, str]:
    """Text by file name."""
    dashboards: list[dict[str, Any]] = [fleet.dashboard(), worker.dashboard(), model.dashboard()]
    return {f"{made['uid']}.json": json.dumps(made, indent=1, ensure_ascii=False) + "\n" for made in dashboards}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, text in made().items():
        (FOLDER / name).write_text(text)


if __name__ == "__main__":
    main()
