"""Every fault, against a real broker, and a table of what became of it.

    python -m tests.faults [--times 3] [--only PART] [--delivery exactly-once] [--write]

--write puts the table into docs/reliability.md.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from deploy.demo.broker import EmbeddedBroker
from deploy.demo.jars import KAFKA_VERSION
from tests.faults import (
    broker_faults,
    cluster_faults,
    data_faults,
    disk_faults,
    group_faults,
    registry_faults,
    worker_faults,
)
from tests.faults.cluster import Cluster
from tests.faults.site import QUICK
from tests.faults.table import Tried, markdown
from tests.pages import write_part
from tests.programs import ROOT
from worker import log
from worker.settings import LogSettings

Fault = Callable[[EmbeddedBroker, str, int], Iterator[Tried]]
FaultOfThree = Callable[[Cluster, str, int], Iterator[Tried]]
FAULTS: Sequence[Fault] = (
    worker_faults.killed,
    worker_faults.killed_at_random,
    worker_faults.zombie,
    worker_faults.told_to_leave,
    worker_faults.stuck,
    broker_faults.killed,
    broker_faults.frozen,
    broker_faults.dead_letters_refused,
    group_faults.storm,
    group_faults.storm_cooperative,
    group_faults.partitions_added,
    group_faults.expired,
    data_faults.timestamps_off,
    data_faults.models,
    data_faults.codec_missing,
    disk_faults.flipped,
    disk_faults.cut,
    registry_faults.publisher_killed,
    registry_faults.disk_full,
)
OF_THREE: Sequence[FaultOfThree] = (cluster_faults.killed,)
DELIVERIES = ("at-least-once", "exactly-once")
PAGE = ROOT / "docs" / "reliability.md"


def name(fault: Callable[..., Iterator[Tried]]) -> str:
    return f"{fault.__module__.rsplit('.', 1)[1]}.{fault.__name__}"


def write(rows: Sequence[Tried], command: str, page: Path = PAGE) -> None:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout
    head = f"Kafka {KAFKA_VERSION}, commit {commit.strip()}, {time.strftime('%Y-%m-%d')}: `{command}`\n\n"
    write_part(page, "tests/faults", head + markdown(rows))


def main(args: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--times", type=int, default=3, help="how often each fault is tried (%(default)s)")
    names = ", ".join(map(name, (*FAULTS, *OF_THREE)))
    parser.add_argument("--only", default="", metavar="PART", help=f"faults whose name has it: {names}")
    parser.add_argument("--delivery", choices=DELIVERIES, action="append", help="default: both")
    parser.add_argument("--write", action="store_true", help=f"put the table into {PAGE.relative_to(ROOT)}")
    asked = parser.parse_args(args)
    log.configure(LogSettings(level="error"))
    rows: list[Tried] = []
    deliveries = asked.delivery or DELIVERIES

    def tried(faults: Sequence[Callable[..., Iterator[Tried]]], there: EmbeddedBroker | Cluster) -> None:
        for fault, delivery in itertools.product(faults, deliveries):
            for row in fault(there, delivery, asked.times):
                rows.append(row)
                print(markdown([row]).splitlines()[-1], flush=True)

    if chosen := [fault for fault in FAULTS if asked.only in name(fault)]:
        with EmbeddedBroker(properties=QUICK) as broker:
            tried(chosen, broker)
    if of_three := [fault for fault in OF_THREE if asked.only in name(fault)]:
        with Cluster(QUICK) as cluster:
            tried(of_three, cluster)
    print("\n" + markdown(rows))
    if asked.write:
        write(rows, " ".join(["python -m tests.faults", *(sys.argv[1:] if args is None else args)]))
    broken = [row for row in rows if not row.kept]
    if broken:
        print("The promise was broken by:\n" + markdown(broken), file=sys.stderr)
    return 1 if broken or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
