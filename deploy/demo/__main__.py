"""`make demo`: Kafka, a plant, a training, a worker, and what it finds, live. Ctrl-C ends it all, in order."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from deploy.demo.interrupt import ENDED_EARLY, Interrupt


def main(argv: Sequence[str] | None = None) -> int:
    with Interrupt() as interrupt:
        # Imports take most of a second, in which one may think better of it.
        from deploy.demo import run

        return run.main(argv, interrupt)


if __name__ == "__main__":
    code = main()
    if code == ENDED_EARLY:
        # An interrupt that came through exec() or eval() of a text (a dataclass being made, say) is remembered by
        # Python as one that nobody caught: instead of leaving with this code, it would end itself by SIGINT.
        sys.stdout.flush()
        os._exit(code)
    sys.exit(code)
