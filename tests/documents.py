"""The documents as tests read them: pages, their blocks of code, and what docs/make.py would write."""

from __future__ import annotations

import re
import runpy
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]

_make = runpy.run_path(str(ROOT / "docs" / "make.py"))      # docs/ is no package
made: Mapping[str, Callable[[], str]] = _make["PAGES"]
series: Callable[[Any], Iterator[Any]] = _make["series"]
registries: Callable[[], tuple[Any, Any]] = _make["registries"]


class Block(NamedTuple):
    """One fenced block."""

    section: str
    language: str
    text: str


def blocks(page: Path) -> Iterator[Block]:
    section, language = "", None
    lines: list[str] = []
    for line in page.read_text().splitlines():
        if line.startswith("```"):
            if language is None:
                language, lines = line[3:].strip(), []
            else:
                yield Block(section, language, "\n".join(lines) + "\n")
                language = None
        elif language is not None:
            lines.append(line)
        elif line.startswith("#"):
            section = line.lstrip("# ")
    assert language is None, f"{page}: a block is open"


def commands(block: str) -> list[str]:
    """A block's commands, each with the lines that continue it."""
    joined = re.sub(r"\s*(\\|(?<=\|))\n\s*", " ", block)
    return [line for line in joined.splitlines() if line and not line.startswith("#")]


def table(page: Path, heading: str) -> list[list[str]]:
    """Cells of the rows below the table head that begins with `heading`."""
    rows = iter(page.read_text().splitlines())
    for line in rows:
        if line.startswith(f"| {heading} |"):
            next(rows)
            found = []
            for row in rows:
                if not row.startswith("|"):
                    break
                found.append([cell.strip() for cell in re.split(r"(?<!\\)\|", row.strip()[1:-1])])
            return found
    raise AssertionError(f"{page} has no table {heading!r}")
