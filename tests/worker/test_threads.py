"""How many threads do the arithmetic: what the machine and the container leave to this process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from worker import threads

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = threads.most()
    yield
    threads.choose(before)


@pytest.mark.parametrize(("said", "found"), [
    ("max 100000\n", CORES),
    ("150000 100000\n", 1),
    ("50000 100000\n", 1),                      # half a core is still one thread
    ("100000 100000\n", 1),
    ("6400000 100000\n", CORES),                # more than there are
    ("", CORES),
])
def test_cores_are_those_that_the_container_is_given(tmp_path: Path, said: str, found: int) -> None:
    quota = tmp_path / "cpu.max"
    quota.write_text(said)
    assert threads.available(quota) == found


def test_without_control_groups_the_process_has_the_cores_it_may_run_on(tmp_path: Path) -> None:
    assert threads.available(tmp_path / "absent") == CORES


@pytest.mark.parametrize(("cores", "taken"), [(1, 1), (2, 1), (3, 2), (5, 4), (64, 4)])
def test_by_itself_a_worker_takes_few_and_leaves_one(cores: int, taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "available", lambda: cores)
    threads.choose(0)
    assert threads.most() == taken


def test_what_is_asked_for_is_taken() -> None:
    threads.choose(7)
    assert threads.most() == 7
