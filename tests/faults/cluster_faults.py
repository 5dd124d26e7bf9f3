"""A broker of three is killed, whichever leads what the worker needs: nothing waits for its return."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from tests.faults.cluster import Cluster
from tests.faults.site import Site
from tests.faults.table import Tried
from tests.programs import until


def killed(cluster: Cluster, delivery: str, times: int) -> Iterator[Tried]:
    """kill -9; it comes back once all is done without it."""
    name = "zmu-cluster"
    victims: dict[str, Callable[[Site], int]] = {
        "input partition": lambda site: cluster.leader(site.topics["input"], 0),
        "output": lambda site: cluster.leader(site.topics["output"], 0),
        "group": lambda site: cluster.leader_for("__consumer_offsets", site.environment["ZMU_INPUT__GROUP_ID"]),
    }
    if delivery == "exactly-once":
        victims["transactions"] = lambda site: cluster.leader_for("__transaction_state", name)
    for what, victim in victims.items():
        with Site(cluster, delivery) as site, site.worker(ZMU_OUTPUT__TRANSACTIONAL_ID=name) as worker:
            worker.ready()
            longest = 0.0
            for _ in range(times):
                done = worker.metric("zmu_records_scored_total")
                site.send(600)
                until(lambda done=done: worker.metric("zmu_records_scored_total") > done, 60, lambda: worker.log)  # type: ignore[misc]
                node = victim(site)
                cluster.nodes[node].kill()
                began = time.monotonic()
                site.send(150)
                site.done(otherwise=lambda: worker.log)
                longest = max(longest, time.monotonic() - began)
                assert worker.get("/healthz")[0] == 200
                cluster.start(node)
                cluster.whole([*site.topics.values()])
            assert worker.stop() == 0, worker.log
            fault = f"one broker of three killed -9: leader of {what}"
            yield Tried.judged(fault, delivery, times, site.verdict(), longest)
