"""`make demo`: Kafka, a plant, a training, a worker, and what it finds, live. Ctrl-C ends it all, in order."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from deploy.demo.interrupt import Interrupt


def main(argv: Sequence[str] | None = None) -> int:
    with Interrupt() as interrupt:
        # Imports take most of a second, in which one may think better of it.
        from deploy.demo import run

        return run.main(argv, interrupt)


if __name__ == "__main__":
    sys.exit(main())
