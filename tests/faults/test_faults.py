"""The short form of `python -m tests.faults`: a few faults, once each; the rest is `slow`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka import KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka.errors import KafkaTimeoutError

from deploy.demo.broker import EmbeddedBroker
from tests.faults import broker_faults, worker_faults
from tests.faults.__main__ import DELIVERIES, FAULTS, OF_THREE, Fault, FaultOfThree, name, write
from tests.faults.cluster import Cluster
from tests.faults.hooks import EXACTLY_ONCE_POINTS, Hook
from tests.faults.oracle import Verdict
from tests.faults.site import QUICK, Site
from tests.faults.table import Tried, markdown
from tests.programs import until
from worker.kafka.offsets import GroupOffsets


@pytest.fixture(scope="module")
def breakable() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker(properties=QUICK) as broker:
        yield broker


@pytest.fixture(scope="module")
def three() -> Iterator[Cluster]:
    with Cluster(QUICK) as cluster:
        yield cluster


def kept(rows: Iterator[Tried]) -> bool:
    found = list(rows)
    assert found
    assert [row for row in found if not row.kept] == []
    return True


def test_an_undisturbed_worker_says_all_and_nothing_else(breakable: EmbeddedBroker) -> None:
    """And the oracle sees what is not there, and what is there too often."""
    with Site(breakable, "exactly-once") as site:
        site.send(300)
        site.drain()
        assert site.verdict() == Verdict(0, 0, [])
        site.environment["ZMU_INPUT__GROUP_ID"] += "-another"
        site.send(60)
        assert site.verdict().lost > 0
        site.drain()
        verdict = site.verdict()
        assert verdict.repeated > 50
        assert not verdict.lost


def test_killed_in_the_middle_of_a_transaction(breakable: EmbeddedBroker) -> None:
    with Site(breakable, "exactly-once") as site:
        points = iter(point for point in EXACTLY_ONCE_POINTS if point in ("sending", "offsets sent", "committed"))
        site.send(400)
        assert site.drain(lambda: Hook(next(points), nth=2), 3).died == 3
        assert site.verdict() == Verdict(0, 0, [])


def test_killed_between_output_and_commit(breakable: EmbeddedBroker) -> None:
    with Site(breakable, "at-least-once") as site:
        site.environment["ZMU_OUTPUT__COMMIT_INTERVAL_MS"] = "1000"       # most of it is said before the first commit
        site.send(300)
        assert site.drain(lambda: Hook("acknowledged"), 1).died == 1
        verdict = site.verdict()
        assert (verdict.lost, verdict.wrong) == (0, [])
        assert verdict.repeated > 0


def test_a_zombie_is_fenced(breakable: EmbeddedBroker) -> None:
    assert kept(worker_faults.zombie(breakable, "exactly-once", 1))


def test_an_answer_that_comes_too_late_is_not_taken_for_the_next(breakable: EmbeddedBroker) -> None:
    """Of where the group stands. kafka-python by itself does take it."""
    with Site(breakable, "exactly-once", partitions=1) as site:
        tp = TopicPartition(site.topics["input"], 0)
        asking, other = (
            KafkaConsumer(bootstrap_servers=breakable.bootstrap_servers, group_id="late", enable_auto_commit=False)
            for _ in range(2)
        )
        with contextlib.closing(asking), contextlib.closing(other):
            other.assign([tp])
            other.commit({tp: OffsetAndMetadata(10, "", -1)})
            for offsets in (None, GroupOffsets(asking, tp.topic, "earliest", 10_000)):
                before = asking.committed(tp)
                breakable.freeze()
                with pytest.raises(KafkaTimeoutError):
                    asking.committed(tp, timeout_ms=300)
                breakable.thaw()
                asked = asking._coordinator._offset_fetch_futures
                until(lambda asked=asked: all(future.is_done for future in asked.values()), 30)     # type: ignore[misc]
                other.commit({tp: OffsetAndMetadata(before + 10, "", -1)})
                found = asking.committed(tp) if offsets is None else offsets.start(0, lambda _: None).offset
                assert found == (before if offsets is None else before + 10)


@pytest.mark.slow
def test_the_broker_is_killed(breakable: EmbeddedBroker) -> None:
    assert kept(broker_faults.killed(breakable, "exactly-once", 1))


def test_a_table_of_it(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- tests/faults -->\nold\n<!-- end -->\nafter\n")
    row = Tried("fault", "exactly-once", 3, 0, 1, 0, 1.25)
    assert not row.kept
    write([row], "python -m tests.faults", page)
    text = page.read_text()
    assert markdown([row]) in text
    assert "old" not in text
    assert text.startswith("before\n")
    assert text.endswith("<!-- end -->\nafter\n")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("delivery", DELIVERIES)
@pytest.mark.parametrize("fault", OF_THREE, ids=name)
def test_every_fault_of_one_in_three(three: Cluster, fault: FaultOfThree, delivery: str) -> None:
    assert kept(fault(three, delivery, 2))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("delivery", DELIVERIES)
@pytest.mark.parametrize("fault", FAULTS, ids=name)
def test_every_fault(breakable: EmbeddedBroker, fault: Fault, delivery: str) -> None:
    assert kept(fault(breakable, delivery, 2))
