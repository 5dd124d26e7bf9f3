"""The table of a run: what was tried, what was lost, what was repeated."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from tests.faults.oracle import Verdict

COLUMNS = ("fault", "delivery", "times", "lost", "repeated", "wrong", "seconds")


class Tried(NamedTuple):
    fault: str
    delivery: str
    times: int
    lost: int
    repeated: int
    wrong: int                  # records that should not be there, or say something else
    seconds: float | None       # from the fault, or its end, until all is done; the longest

    @classmethod
    def judged(cls, fault: str, delivery: str, times: int, verdict: Verdict, seconds: float | None) -> Tried:
        return cls(fault, delivery, times, verdict.lost, verdict.repeated, len(verdict.wrong), seconds)

    @property
    def kept(self) -> bool:
        """Whether the promise was."""
        return not self.lost and not self.wrong and (self.delivery == "at-least-once" or not self.repeated)


def markdown(rows: Iterable[Tried]) -> str:
    lines = [f"| {' | '.join(COLUMNS)} |", f"|{' --- |' * len(COLUMNS)}"]
    for row in rows:
        seconds = "" if row.seconds is None else f"{row.seconds:.1f}"
        lines.append(
            f"| {row.fault} | {row.delivery} | {row.times} | {row.lost} | {row.repeated} | {row.wrong} | {seconds} |"
        )
    return "\n".join(lines) + "\n"
