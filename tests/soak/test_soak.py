"""The soak's own arithmetic, and a short one."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from tests.soak.__main__ import main, write
from tests.soak.figures import MB, Figures, Sample, growth, of_samples, sample

FLAT = [Sample(float(s), 300 * MB + s % 3 * MB, 40 + s % 2, 9) for s in range(100)]


def figures(samples: list[Sample], repeated: int = 0, delivery: str = "exactly-once", lost: int = 0) -> Figures:
    return Figures(60, delivery, 1000, 20, 2, lost, 0, repeated, 4, 5, *of_samples(samples))


def test_what_is_flat_and_what_grows() -> None:
    assert figures(FLAT).faults() == []
    leaking = [each._replace(resident_bytes=each.resident_bytes + i * MB) for i, each in enumerate(FLAT)]
    assert ["memory grew" in fault for fault in figures(leaking).faults()] == [True]
    assert growth(range(100), range(100)) == pytest.approx(49)
    opening = [each._replace(files=each.files + i // 5) for i, each in enumerate(FLAT)]
    assert ["open files grew" in fault for fault in figures(opening).faults()] == [True]
    # What is built up in the first half counts for nothing.
    assert growth(range(100), [min(i, 50) for i in range(100)]) == pytest.approx(0, abs=1e-9)


def test_what_must_not_be_lost_or_repeated() -> None:
    assert figures(FLAT, repeated=3).faults() == ["3 records came twice"]
    assert figures(FLAT, repeated=3, delivery="at-least-once").faults() == []
    assert figures(FLAT, lost=1).faults() == ["1 events and 0 dead letters are lost"]


def test_a_sample_of_a_real_process() -> None:
    before = sample(os.getpid(), 0)
    with contextlib.ExitStack() as held:
        for _ in range(5):
            held.enter_context(Path(os.devnull).open())
        assert sample(os.getpid(), 1).files == before.files + 5
    assert before.resident_bytes > 10 * MB


def test_the_note(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- tests/soak: exactly-once -->\nold\n<!-- end -->\nafter\n")
    write(figures(FLAT), "python -m tests.soak", page)
    assert "| events lost, dead letters lost | 0, 0 |" in page.read_text()
    assert "old" not in page.read_text()


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_two_minutes_of_it() -> None:
    assert main(["--minutes", "2"]) == 0
