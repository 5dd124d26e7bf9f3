"""One of zmu's programs with its imports done, waiting for its settings: `python -m deploy.demo.prepared worker run`.

Its imports take seconds, which so pass while Kafka starts. One line on stdin, a JSON object of environment variables,
lets it begin; where stdin ends before, so does it.
"""

from __future__ import annotations

import importlib
import json
import os
import sys

_IMPORTS = {"worker": "worker.daemon", "training": "training.job"}


def main(program: str, *argv: str) -> int:
    importlib.import_module(_IMPORTS[program])
    line = sys.stdin.readline()
    if not line:
        return 0
    os.environ.update(json.loads(line))
    code: int = importlib.import_module(f"{program}.__main__").main(argv)
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
