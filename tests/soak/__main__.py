"""Hours of it: flat memory, flat files, nothing lost.

    python -m tests.soak --minutes 60 [--per-second 300] [--delivery at-least-once] [--write]

A paced load with readings far off and records that are no readings, a second worker that comes and goes, models that
change. --write puts the figures into docs/reliability.md.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from deploy.demo.jars import KAFKA_VERSION
from tests.pages import write_part
from tests.programs import ROOT
from tests.soak.figures import Figures
from tests.soak.run import soak
from worker import log
from worker.settings import LogSettings

PAGE = ROOT / "docs" / "reliability.md"


def write(figures: Figures, command: str, page: Path = PAGE) -> None:
    head = f"Kafka {KAFKA_VERSION}, {time.strftime('%Y-%m-%d')}: `{command}`\n\n"
    write_part(page, f"tests/soak: {figures.delivery}", head + figures.markdown())


def main(args: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--minutes", type=float, default=60, help="%(default)s")
    parser.add_argument("--per-second", type=float, default=300, help="readings (%(default)s)")
    parser.add_argument("--delivery", choices=("at-least-once", "exactly-once"), default="exactly-once")
    parser.add_argument("--write", action="store_true", help=f"put the figures into {PAGE.relative_to(ROOT)}")
    asked = parser.parse_args(args)
    log.configure(LogSettings(level="error"))
    figures = soak(asked.minutes, asked.per_second, asked.delivery, lambda line: print(line, flush=True))
    print("\n" + figures.markdown())
    if asked.write:
        write(figures, " ".join(["python -m tests.soak", *(sys.argv[1:] if args is None else args)]))
    for fault in figures.faults():
        print(f"The promise was broken: {fault}", file=sys.stderr)
    return 1 if figures.faults() else 0


if __name__ == "__main__":
    sys.exit(main())
