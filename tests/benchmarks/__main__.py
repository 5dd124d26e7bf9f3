"""make bench: all of it, or what is named.

    python -m tests.benchmarks [throughput|latency|processes|cost|arrow|training|gpu [OPTION …]]

Each prints a table; all of it keeps the figures under build/benchmarks/, one bench those that --json FILE names.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

BENCHES = {
    "throughput": "tests.benchmarks.throughput",
    "latency": "tests.benchmarks.latency",
    "processes": "tests.benchmarks.processes",
    "cost": "tests.benchmarks.cost",
    "arrow": "tests.benchmarks.arrow",
    "training": "tests.benchmarks.training_speed",
    "gpu": "tests.benchmarks.gpu",
}


def main(args: Sequence[str]) -> int:
    """Options without a name are of throughput, which stands first."""
    if not args:
        return max(run(name, ("--json", f"build/benchmarks/{name}.json")) for name in BENCHES)
    return run(args[0], args[1:]) if args[0] in BENCHES else run("throughput", args)


def run(name: str, args: Sequence[str]) -> int:
    print(f"\n{name}")
    code: int = importlib.import_module(BENCHES[name]).main(args)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
