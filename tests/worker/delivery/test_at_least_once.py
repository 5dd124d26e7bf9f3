"""At least once on in-memory ports: what is committed, when, and what waits for what."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from kafka.errors import KafkaTimeoutError, MessageSizeTooLargeError, RecordListTooLargeError

from tests import factory
from tests.worker.delivery.desk import Desk, exposition, message
from tests.worker.world import World
from worker.delivery.checkpoint import Stopped
from worker.delivery.work import MOST_BYTES, MOST_MESSAGES
from worker.errors import BrokerError
from worker.kafka.sink import Message
from worker.memory import MemorySource
from worker.source import Change, CommitLost, Fetched

FOREVER = 1e9


def test_the_loop_goes_on_and_offsets_wait_for_their_messages_and_all_before() -> None:
    desk = Desk()
    desk.batch(3, b"a", b"b")
    desk.batch(5, b"c")
    assert desk.broker.values() == [b"a", b"b", b"c"]
    desk.broker.sent[0].give()
    desk.broker.sent[2].give()
    desk.later()
    assert (desk.committing(), desk.read) == ([], [])           # b is not there yet
    desk.broker.sent[1].give()
    desk.later(0)
    assert desk.read == ["0/3", "0/5"]                          # subscribers can read them, committed or not
    assert desk.committing() == [({0: 5}, {0: ""})]
    desk.broker.commits[0].give()
    desk.later()
    assert desk.checkpoint.due_seconds == float("inf")


def test_an_interval_of_batches_is_one_commit_with_the_newest_offsets_and_notes() -> None:
    desk = Desk()
    for offset in range(1, 6):
        desk.batch(offset, note=f"s={offset}")
        desk.batch(10 * offset, partition=1)
        desk.later(0.01)
    assert desk.committing() == []
    assert desk.checkpoint.due_seconds == pytest.approx(0.05)
    desk.later(0.06)
    assert desk.committing() == [({0: 5, 1: 50}, {0: "s=5", 1: ""})]
    desk.batch(6, note="s=6")
    desk.later(1.0)
    assert len(desk.committing()) == 1                          # one at a time
    desk.broker.commits[0].give()
    desk.later(0)
    assert desk.committing()[1:] == [({0: 6}, {0: "s=6"})]


def test_what_is_refused_is_sent_again_and_what_is_acknowledged_is_not() -> None:
    desk = Desk()
    desk.batch(1, b"a", b"b", b"c")
    desk.broker.sent[0].give()
    desk.broker.sent[1].give(KafkaTimeoutError("slow"))
    desk.later()
    assert desk.broker.renewals == 1
    assert desk.broker.values() == [b"a", b"b", b"c", b"b", b"c"]
    assert not desk.checkpoint.writable
    desk.meanwhile = lambda: desk.broker.acknowledge() if desk.now > 5 else None
    desk.batch(2, b"d")                                         # reading stops until all of it is taken
    assert desk.now > 5
    assert desk.checkpoint.writable
    assert desk.read == ["0/1", "0/2"]
    desk.later()
    assert desk.committing()[-1] == ({0: 2}, {0: ""})


def test_a_group_that_is_too_large_goes_one_by_one_and_what_is_too_large_alone_goes_smaller() -> None:
    desk = Desk()
    small = message(b"", "dlq")
    values = [message(value, "dlq", small) for value in (b"one", b"x" * 2000, b"two")]
    desk.broker.flush = lambda _: desk.broker.sent[-1].give(        # type: ignore[method-assign]
        MessageSizeTooLargeError("large") if len(desk.broker.values()[-1] or b"") > 1000 else None
    )
    desk.checkpoint.complete(values, {0: 3}, {})
    for answer in desk.broker.sent:
        answer.give(RecordListTooLargeError("large"))
    for _ in range(9):
        desk.later()
    assert desk.broker.values()[3:] == [b"one", b"x" * 2000, b"", b"two"]
    assert desk.committing() == [({0: 3}, {})]
    assert desk.checkpoint.writable
    desk.batch(4, b"a", b"b")                                   # a group again
    assert desk.broker.values()[-2:] == [b"a", b"b"]


def test_a_lost_commit_is_tried_again_for_what_has_not_gone() -> None:
    desk = Desk()
    desk.batch(3)
    desk.batch(30, partition=1)
    desk.later()
    desk.broker.commits[0].give(CommitLost("moved on"))
    desk.batch(4)
    desk.later(0)
    assert desk.checkpoint.rebalanced([Change("revoked", (1,))]) == [Change("revoked", (1,))]
    desk.later()
    assert desk.committing()[1:] == [({0: 4}, {0: "", 1: ""})]
    assert 'zmu_commits_total{result="failed"} 1.0' in exposition(desk.metrics)


def test_whoever_takes_a_partition_over_finds_the_commit_that_was_under_way() -> None:
    desk = Desk()
    desk.batch(3)
    desk.later()
    assert desk.checkpoint.rebalanced([Change("assigned", (1,))])
    assert not desk.broker.commits[0].done()
    desk.meanwhile = lambda: desk.broker.commits[0].give()
    desk.checkpoint.rebalanced([Change("revoked", (0,)), Change("assigned", (0,))])
    assert desk.broker.commits[0].done()
    assert desk.checkpoint.due_seconds == float("inf")


def test_a_commit_that_fails_is_tried_again_after_a_while_and_one_that_hangs_is_given_up() -> None:
    desk = Desk()
    desk.batch(3)
    desk.later()
    desk.broker.commits[0].give(BrokerError("away"))
    desk.later(0)
    desk.later(0.05)
    assert len(desk.committing()) == 1
    desk.later(0.05)
    assert len(desk.committing()) == 2
    desk.later(29.0)
    assert len(desk.committing()) == 2
    desk.later(2.0)
    desk.later(1.0)
    assert desk.committing() == [({0: 3}, {0: ""})] * 3
    desk.broker.commits[2].give()
    desk.later(0)
    assert desk.checkpoint.due_seconds == float("inf")


def test_rows_of_state_follow_the_offsets_that_they_stand_at() -> None:
    desk = Desk()
    free = desk.checkpoint.send(message(b"free", "state"))
    assert desk.broker.values() == [b"free"]                    # all is committed
    desk.broker.acknowledge()
    assert free.done()
    desk.batch(3, b"event")
    row = desk.checkpoint.send(Message("state", b"k", b"row", [], partition=0))
    desk.batch(4)
    assert desk.broker.values() == [b"free", b"event"]
    desk.broker.acknowledge()
    desk.later(0)
    assert desk.committing() == [({0: 4}, {0: ""})]             # at once: the row waits
    again = desk.checkpoint.send(Message("state", b"k", b"again", [], partition=0))
    assert desk.broker.values() == [b"free", b"event"]
    desk.broker.commits[0].give()
    desk.later(0)
    assert desk.broker.values() == [b"free", b"event", b"row", b"again"]
    assert not row.done()
    desk.broker.acknowledge()
    assert (row.done(), row.error(), again.done()) == (True, None, True)


def test_readings_that_are_only_read_again_commit_nothing_and_hold_up_nothing() -> None:
    desk = Desk()
    desk.checkpoint.complete([], {}, {})
    row = desk.checkpoint.send(message(b"row", "state"))
    assert desk.checkpoint.due_seconds == float("inf")
    desk.now = 60.0
    desk.batch(3, b"event")
    assert (desk.now, desk.broker.values()) == (60.0, [b"row", b"event"])
    desk.checkpoint.complete([message(b"other")], {}, {})
    waiting = desk.checkpoint.send(message(b"after", "state"))
    desk.checkpoint.rebalanced([Change("lost", (0,))])
    desk.broker.acknowledge()
    assert row.done()
    desk.later()
    assert (desk.committing(), desk.broker.values()[-1]) == ([], b"after")
    assert not waiting.done()


def test_rows_of_a_partition_that_has_gone_are_not_sent() -> None:
    desk = Desk()
    desk.batch(3, b"event")
    row = desk.checkpoint.send(Message("state", b"k", b"row", [], partition=0))
    desk.checkpoint.rebalanced([Change("lost", (0,))])
    assert row.done()
    assert isinstance(row.error(), CommitLost)
    desk.broker.acknowledge()
    desk.later()
    assert (desk.committing(), desk.broker.values()) == ([], [b"event"])
    assert desk.checkpoint.due_seconds == float("inf")


@pytest.mark.parametrize("values", [[b""] * MOST_MESSAGES, [bytes(MOST_BYTES // 4)] * 4])
def test_what_is_under_way_is_bounded(values: Sequence[bytes]) -> None:
    desk = Desk(FOREVER)
    desk.meanwhile = lambda: desk.broker.acknowledge() if desk.now > 1 else None
    desk.batch(1, b"small")
    assert desk.now == 0
    desk.batch(2, *values)
    assert desk.now > 1
    assert desk.checkpoint.writable


def test_an_output_that_is_slow_stops_reading_and_costs_no_place_in_the_group() -> None:
    desk = Desk()
    desk.batch(1, b"a")
    desk.now = 2.0
    desk.broker.changes = [Change("revoked", (0,)), Change("assigned", (0,))]
    desk.now = 3.0
    seen = []

    def meanwhile() -> None:
        seen.append(desk.checkpoint.writable)
        if desk.broker.idled:
            desk.broker.acknowledge()

    desk.meanwhile = meanwhile
    assert desk.batch(2) == [Change("revoked", (0,)), Change("assigned", (0,))]
    assert not seen[-1]
    assert desk.broker.idled == 1
    assert desk.checkpoint.writable
    desk.later()
    assert desk.committing() == []                              # whoever has the partition now reads it again


def test_finishing_waits_for_all_and_gives_up_only_when_told_to_leave() -> None:
    desk = Desk(FOREVER)
    desk.batch(1, b"a")
    desk.meanwhile = desk.broker.acknowledge
    assert desk.checkpoint.finish() == []
    assert desk.committing() == [({0: 1}, {0: ""})]

    desk.meanwhile = lambda: None
    desk.batch(2, b"b")
    desk.told_to_stop = True
    with pytest.raises(Stopped, match="1 messages not acknowledged"):
        desk.checkpoint.finish()
    assert len(desk.committing()) == 1
    assert 10 < desk.now < 12


def test_before_partitions_may_go_what_is_done_is_committed(folder: Path) -> None:
    class Departing(MemorySource):
        away = False

        @property
        def leaving(self) -> bool:
            return self.away

        def poll(self, max_records: int, max_wait_seconds: float, idle_seconds: float) -> Fetched:
            if self.away:
                assert self.committed == {0: 20}
            return super().poll(max_records, max_wait_seconds, idle_seconds)

    source = Departing("sensor-readings", factory.records(factory.random_readings(50, 10)))
    world = World(folder, [], batch=10, source=source, interval_seconds=FOREVER)
    for _ in range(3):
        world.loop._turn()
    assert source.committed == {0: 0}
    source.away = True
    world.loop._turn()
    source.away = False
    world.loop.run_until_drained()
    assert source.committed == {0: 50}
    assert len(world.events()) == 5
