"""What comes from outside, bent by chance: no input ends the worker, hangs it, or passes a number that is none.

    python -m tests.fuzz --inputs 1000000 [--seed 1] [--only readings] [--write]

A round's chance is seeded by --seed, its target and its number, so that `--round` repeats it. --write puts the figures
into docs/reliability.md.
"""

from __future__ import annotations

import argparse
import faulthandler
import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.fuzz import decoders, others, streams
from tests.pages import write_part
from tests.programs import ROOT

PAGE = ROOT / "docs" / "reliability.md"
HANG_SECONDS = 60                       # a round takes a hundredth of a second
TARGETS: Mapping[str, Callable[[random.Random], int]] = {
    "readings": decoders.readings,
    "batches": decoders.batches,
    "streams": streams.streams,
    "settings": others.settings,
    "models": others.models,
    "feedback": others.feedback,
    "state": others.state,
}
# Of the inputs asked for, which are decoder inputs: the rest comes on top.
SHARES = {
    "readings": 0.8, "batches": 0.2, "streams": 0.1, "settings": 0.002, "models": 0.002, "feedback": 0.1, "state": 0.1,
}


class Tried(NamedTuple):
    target: str
    inputs: int
    rounds: int
    seconds: float


def fuzz(target: str, inputs: int, seed: int, first_round: int = 0) -> Tried:
    """So many inputs or a few more. What is found raises, with the round that found it in a note."""
    began, done, number = time.monotonic(), 0, first_round
    while done < inputs:
        faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
        try:
            done += TARGETS[target](random.Random(f"{seed}/{target}/{number}"))
        except BaseException as error:
            error.add_note(f"found by: python -m tests.fuzz --only {target} --seed {seed} --round {number} --inputs 1")
            raise
        finally:
            faulthandler.cancel_dump_traceback_later()
        number += 1
    return Tried(target, done, number - first_round, time.monotonic() - began)


def markdown(rows: Sequence[Tried]) -> str:
    """Of rounds that found nothing: one that does raises, and there is no table."""
    lines = ["| target | inputs | seconds | crashed, hung, or not finite |", "| --- | --- | --- | --- |"]
    lines += [f"| {row.target} | {row.inputs:,} | {row.seconds:.0f} | 0 |" for row in rows]
    return "\n".join(lines) + "\n"


def write(rows: Sequence[Tried], command: str, page: Path = PAGE) -> None:
    head = f"{time.strftime('%Y-%m-%d')}: `{command}`\n\n"
    write_part(page, "tests/fuzz", head + markdown(rows))


def main(args: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--inputs", type=int, default=1_000_000, help="of the decoders (%(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--round", type=int, default=0, help="begin with this one")
    parser.add_argument("--only", choices=TARGETS, action="append", help="default: all")
    parser.add_argument("--write", action="store_true", help=f"put the figures into {PAGE.relative_to(ROOT)}")
    asked = parser.parse_args(args)
    rows = []
    for target in asked.only or TARGETS:
        rows.append(fuzz(target, max(int(asked.inputs * SHARES[target]), 1), asked.seed, asked.round))
        print(markdown(rows).splitlines()[-1], flush=True)
    if asked.write:
        write(rows, " ".join(["python -m tests.fuzz", *(sys.argv[1:] if args is None else args)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
