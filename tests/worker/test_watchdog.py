"""The heartbeat's judgement, and the thread that acts on it."""

from __future__ import annotations

import json
import threading

import pytest

from worker import log
from worker.heartbeat import Heartbeat
from worker.settings import LogSettings
from worker.watchdog import Watchdog


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_loop_that_does_not_turn_is_at_fault() -> None:
    clock = Clock()
    heartbeat = Heartbeat(10, clock)
    clock.now = 9.9
    assert heartbeat.alive
    assert heartbeat.fault == ""
    clock.now = 10.0
    assert not heartbeat.alive
    assert heartbeat.fault == "the loop has not turned for 10 s"
    heartbeat.beat()
    assert heartbeat.alive
    assert heartbeat.fault == ""


def test_a_loop_that_turns_and_does_nothing_is_at_fault_and_alive() -> None:
    clock = Clock()
    heartbeat = Heartbeat(10, clock)
    for clock.now in range(1, 10):
        heartbeat.turn()
        assert heartbeat.doubtful == (clock.now > 5)
        assert heartbeat.fault == ""
    clock.now = 10
    heartbeat.turn()
    assert heartbeat.alive
    assert heartbeat.fault == "readings wait, or the group does not take us in, and none was done for 10 s"
    heartbeat.beat()
    assert heartbeat.fault == ""
    assert not heartbeat.doubtful


def test_the_last_line_says_why_and_where(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure(LogSettings(format="json"))
    clock, ended = Clock(), threading.Event()
    heartbeat = Heartbeat(10, clock)
    watchdog = Watchdog(heartbeat, look_seconds=0.001, end=ended.set)
    try:
        assert not ended.wait(0.05)
        clock.now = 11
        assert ended.wait(30)
    finally:
        watchdog.close()
    (line,) = capsys.readouterr().err.splitlines()
    said = json.loads(line)
    assert said["event"] == "stuck: the worker ends, to be started again"
    assert said["why"] == "the loop has not turned for 11 s"
    assert "test_watchdog.py" in said["at"]
    assert said["level"] == "error"
