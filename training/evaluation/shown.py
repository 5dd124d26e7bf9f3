"""An evaluation for people and programs: a table and JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from training.evaluation.evaluate import Evaluation, Figures
from worker.errors import written
from worker.models.artifact import Manifest

COLUMNS = (
    "recording", "rows", "anomalous %", "F1", "false alarms %", "missed %", "VUS-PR", "events found", "delay rows"
)


def table(evaluation: Evaluation, out: TextIO) -> None:
    """Drawn on a terminal; aligned text elsewhere."""
    rows = [_cells(recording.name, recording.figures) for recording in evaluation.recordings]
    every = _cells(f"all {len(rows)}", evaluation.figures)
    floors = ("floors", "", "", number(evaluation.always_on_f1), "", "", number(evaluation.random_vus_pr), "", "")
    told = "floors: F1 of an alarm that never ends, VUS-PR of random scores"
    if not out.isatty():
        print("\n".join([*_aligned([COLUMNS, *rows, every, floors]), told]), file=out)
        return
    import rich.box
    import rich.console
    import rich.table

    drawn = rich.table.Table(box=rich.box.SIMPLE_HEAD, caption=told, caption_justify="left")
    for name in COLUMNS:
        drawn.add_column(name, justify="left" if name == COLUMNS[0] else "right")
    for row in rows:
        drawn.add_row(*row)
    drawn.add_section()
    drawn.add_row(*every, style="bold")
    drawn.add_row(*floors, style="dim")
    rich.console.Console(file=out).print(drawn)


def write_json(evaluation: Evaluation, manifest: Manifest, path: Path) -> None:
    """Raises UserError where the file cannot be written."""
    written(path, json.dumps(document(evaluation, manifest), indent=1) + "\n", "--json")


def document(evaluation: Evaluation, manifest: Manifest) -> dict[str, Any]:
    """Rates and shares from 0 to 1; None where there is nothing to take them of."""
    return {
        "model": {"name": manifest.name, "version": manifest.version, "sha256": manifest.sha256},
        "recordings": [
            {"name": r.name, **_plain(r.figures._asdict()), "unscored": r.unscored} for r in evaluation.recordings
        ],
        "set": _plain(
            {
                **evaluation.figures._asdict(),
                "floor_f1_always_on": evaluation.always_on_f1,
                "floor_vus_pr_random": evaluation.random_vus_pr,
            }
        ),
    }


def _cells(name: str, figures: Figures) -> tuple[str, ...]:
    return (
        name, f"{figures.rows}", _percent(figures.anomalous), number(figures.f1), _percent(figures.false_alarm_rate),
        _percent(figures.missed_rate), number(figures.vus_pr), f"{figures.found}/{figures.events}",
        "–" if math.isnan(figures.delay_rows) else f"{figures.delay_rows:g}",
    )


def number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"


def _percent(share: float) -> str:
    return "–" if math.isnan(share) else f"{100 * share:.2f}"


def _aligned(rows: list[tuple[str, ...]]) -> Iterator[str]:
    width = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *rest in rows:
        cells = [first.ljust(width[0]), *(cell.rjust(w) for cell, w in zip(rest, width[1:], strict=True))]
        yield "  ".join(cells).rstrip()


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {name: None if isinstance(v, float) and math.isnan(v) else v for name, v in values.items()}
