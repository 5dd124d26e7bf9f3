"""The short form of `python -m tests.fuzz`."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.fuzz.__main__ import TARGETS, Tried, fuzz, write
from tests.fuzz.corpus import SEEDS, bent

INPUTS = {
    "readings": 8_000, "batches": 400, "streams": 4_000, "settings": 25, "models": 60, "feedback": 2_000,
    "state": 2_000,
}


@pytest.mark.parametrize("target", TARGETS)
def test_no_input_is_too_much(target: str) -> None:
    assert fuzz(target, INPUTS[target], seed=1).inputs >= INPUTS[target]


def test_what_is_found_can_be_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(chance: random.Random) -> int:
        assert chance.random() < 0.9
        return 1

    monkeypatch.setitem(TARGETS, "readings", fails)     # type: ignore[misc]
    with pytest.raises(AssertionError) as found:
        fuzz("readings", 1_000, seed=2)
    (note,) = found.value.__notes__
    number = int(note.split("--round ")[1].split()[0])
    with pytest.raises(AssertionError):
        fuzz("readings", 1, seed=2, first_round=number)


def test_chance_bends_much_and_leaves_some() -> None:
    chance = random.Random(0)
    made = [bent(chance) for _ in range(2_000)]
    assert 100 < sum(one in SEEDS for one in made) < 600
    assert len(set(made)) > 1_000


def test_the_note(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- tests/fuzz -->\nold\n<!-- end -->\nafter\n")
    write([Tried("readings", 1_000_000, 5_000, 61.2)], "python -m tests.fuzz", page)
    assert "| readings | 1,000,000 | 61 | 0 |" in page.read_text()
    assert "old" not in page.read_text()
