"""`python -m deploy.demo`, whole: it finds what it breaks, and leaves nothing behind, however it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka import KafkaAdminClient

from deploy.demo.ports import free_port
from tests.programs import until

ROOT = Path(__file__).parents[2]
MARK = "ZMU_TEST_DEMO"              # in the environment of every process of a demo
SHORT = ["--history-seconds", "150"]


class Demo:
    """A running demo whose output is no terminal."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        self._mark = uuid.uuid4().hex
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ZMU_")}
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-m", "deploy.demo", *arguments],
            cwd=ROOT,
            env={
                **kept,
                **environment,
                MARK: self._mark,
                "OMP_NUM_THREADS": "1",
                "ZMU_HTTP__PORT": str(free_port("0.0.0.0")),        # demos of other tests may run beside it
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.said = ""

    def wait_for(self, pattern: str) -> re.Match[str]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said += line
            if match := re.search(pattern, line):
                return match
        pytest.fail(f"the demo ended without saying {pattern}:\n{self.said}")

    def wait_until_it_heeds(self, number: signal.Signals) -> None:
        """Returns when it has set a handler for the signal."""
        status = Path(f"/proc/{self.process.pid}/status")

        def heeds() -> bool:
            caught = re.search(r"SigCgt:\s*(\w+)", status.read_text())
            return caught is not None and bool(int(caught[1], 16) >> (number - 1) & 1)

        until(heeds, 60)

    def end(self) -> int:
        assert self.process.stdout is not None
        self.said += self.process.stdout.read()
        return self.process.wait(60)

    def left_behind(self, within_seconds: float = 5) -> list[str]:
        """Command lines of its processes that live on."""
        deadline = time.monotonic() + within_seconds
        while (left := self._processes()) and time.monotonic() < deadline:
            time.sleep(0.1)
        return left

    def _processes(self) -> list[str]:
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if f"{MARK}={self._mark}".encode() in (process / "environ").read_bytes():
                    found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:200])
            except OSError:
                continue
        return found


def _wait_until_topics_are_gone(admin: KafkaAdminClient) -> None:
    """A broker still lists a deleted topic for a while."""

    def left() -> list[str]:
        return [topic for topic in admin.list_topics() if "zmu-demo-" in topic]

    until(lambda: not left(), 10, lambda: f"left behind: {left()}")


@pytest.fixture
def demos() -> Iterator[list[Demo]]:
    """Those that a failing test leaves running are killed."""
    started: list[Demo] = []
    yield started
    for demo in started:
        if demo.process.poll() is None:
            demo.process.kill()
            demo.process.wait()
        if demo.process.stdout is not None:
            demo.process.stdout.close()


def test_it_finds_what_it_breaks(broker: str, admin: KafkaAdminClient, demos: list[Demo]) -> None:
    demo = Demo("--seconds", "14", *SHORT, ZMU_KAFKA__BOOTSTRAP_SERVERS=broker)
    demos.append(demo)
    assert demo.end() == 0, demo.said
    assert "we broke it: cavitation" in demo.said
    assert re.search(r"pump-2 +ANOMALY score [\d.,]+: \w+ \d+%.*\[cavitation\]", demo.said)
    assert re.search(r"pump-2 +caught cavitation after \d+\.\d s", demo.said)
    assert re.search(r"\d+ readings/s, lag \d+", demo.said)
    assert re.search(r"faults injected +3", demo.said)
    assert re.search(r"seconds to detection +median", demo.said)
    _wait_until_topics_are_gone(admin)
    assert demo.left_behind() == []


def test_ctrl_c_ends_it_in_order(demos: list[Demo]) -> None:
    demo = Demo("--forever", *SHORT)
    demos.append(demo)
    url = demo.wait_for(r"metrics: (http\S+)")[1]
    demo.wait_for("we broke it")
    with urllib.request.urlopen(url, timeout=5) as response:
        assert "zmu_records_scored_total" in response.read().decode()
    demo.process.send_signal(signal.SIGINT)
    assert demo.end() == 0, demo.said
    assert "faults injected" in demo.said
    assert demo.left_behind() == []


def test_ctrl_c_before_it_has_begun(demos: list[Demo]) -> None:
    demo = Demo()
    demos.append(demo)
    demo.wait_until_it_heeds(signal.SIGTERM)
    demo.process.send_signal(signal.SIGINT)
    assert demo.end() == 130, demo.said
    assert "Traceback" not in demo.said


def test_ctrl_c_while_kafka_starts(demos: list[Demo], tmp_path: Path) -> None:
    demo = Demo(TMPDIR=str(tmp_path))
    demos.append(demo)
    demo.wait_for("Kafka: starting")
    until(lambda: bool(list(tmp_path.glob("zmu-kafka-*"))), 60, lambda: demo.said)
    demo.process.send_signal(signal.SIGINT)
    assert demo.end() == 130, demo.said
    assert "Traceback" not in demo.said
    assert demo.left_behind() == []
    assert list(tmp_path.glob("zmu-kafka-*")) == []


@pytest.mark.parametrize("moment", ["plant: writing", "training: reading"])
def test_ctrl_c_before_it_is_ready(
    broker: str, admin: KafkaAdminClient, demos: list[Demo], moment: str
) -> None:
    demo = Demo(*SHORT, ZMU_KAFKA__BOOTSTRAP_SERVERS=broker)
    demos.append(demo)
    demo.wait_for(moment)
    demo.process.send_signal(signal.SIGINT)
    assert demo.end() == 130, demo.said
    assert "Traceback" not in demo.said
    assert demo.said.endswith("ended before it was ready\n")
    assert demo.left_behind() == []
    _wait_until_topics_are_gone(admin)


def test_ctrl_c_again_and_again(broker: str, demos: list[Demo]) -> None:
    demo = Demo("--forever", *SHORT, ZMU_KAFKA__BOOTSTRAP_SERVERS=broker)
    demos.append(demo)
    demo.wait_for("we broke it")
    while demo.process.poll() is None:
        demo.process.send_signal(signal.SIGINT)
        time.sleep(0.05)
    assert demo.end() == 0, demo.said
    assert "Traceback" not in demo.said
    assert "faults injected" in demo.said
    assert demo.left_behind() == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a child's life to its parent's")
def test_kill_leaves_no_process_either(demos: list[Demo], tmp_path: Path) -> None:
    demo = Demo(TMPDIR=str(tmp_path))
    demos.append(demo)
    demo.wait_for("training")
    assert demo.left_behind(within_seconds=0)
    demo.process.kill()
    demo.process.wait()
    assert demo.left_behind() == []


def test_a_kafka_that_is_not_there_is_named(demos: list[Demo]) -> None:
    demo = Demo(ZMU_KAFKA__BOOTSTRAP_SERVERS="127.0.0.1:1")
    demos.append(demo)
    assert demo.end() == 2
    assert "ZMU_KAFKA__BOOTSTRAP_SERVERS" in demo.said
    assert "Traceback" not in demo.said
