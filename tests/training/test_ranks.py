"""Two processes that share a batch step as one does that has all of it."""

from __future__ import annotations

import subprocess
import sys

import torch

from tests.programs import ROOT
from tests.training import ranked
from training import ranks


def test_alone_nothing_is_passed_round() -> None:
    assert (ranks.size(), ranks.rank(), ranks.first()) == (1, 0, True)
    assert ranks.passed_round(b"mine") == [b"mine"]
    assert ranks.told({"a": 1}) == [{"a": 1}]
    assert ranks.share([1, 2, 3]) == [1, 2, 3]


def test_steps_of_two_are_those_of_one() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m",
         "tests.training.ranked"],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )
    assert done.returncode == 0, done.stderr
    alone = ranked.weights()
    found = [torch.tensor([float(word) for word in line.split()]) for line in done.stdout.splitlines()]
    assert len(found) == 2
    for weights in found:                       # both processes
        torch.testing.assert_close(weights, alone, rtol=1e-5, atol=1e-6)
