"""What README.md tells a newcomer to type, typed: steps to a topic of one's own, recordings, the model's snippet."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import sysconfig
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from deploy.demo.ports import free_port
from tests import kafka
from tests.documents import README, ROOT, blocks, commands
from tests.programs import until

STEPS = "From zero to your own topic"
RECORDINGS = "Recordings"
INSTALL = ["python3 -m venv .venv", ". .venv/bin/activate", "pip install '.[training]'"]    # tests/test_packaging.py
STAY = ("zmu-worker run", "python -m kafka.consumer")                                       # until they are ended


class Newcomer:
    """An empty folder, a terminal, and a broker whose names are the README's but for what must be free or unique."""

    def __init__(self, folder: Path, names: dict[str, str]) -> None:
        self.folder, self._names = folder, names
        bare = {name: value for name, value in os.environ.items() if not name.startswith("ZMU_")}
        self.environment = {
            **bare,
            "PATH": f"{sysconfig.get_path('scripts')}:{Path(sys.executable).parent}:{bare['PATH']}",
            "PYTHONUNBUFFERED": "1",
            "ZMU_INPUT__GROUP_ID": names["press-readings"],
            "ZMU_OUTPUT__TOPIC": names["sensor-anomalies"],
            "ZMU_DEAD_LETTERS__TOPIC": names["sensor-readings.dlq"],
            "ZMU_HTTP__PORT": names["localhost:9108"].rsplit(":", 1)[1],
        }
        self.staying: dict[str, subprocess.Popen[str]] = {}

    def here(self, text: str) -> str:
        return re.sub("|".join(map(re.escape, self._names)), lambda found: self._names[found[0]], text)

    def types(self, command: str) -> str:
        """Runs it; what stays goes on behind. Returns what it printed."""
        line = self.here(command)
        for start in STAY:
            if command.startswith(start):
                self.staying[start] = self._start(line)
                return ""
        if command.startswith("curl -s "):              # not every machine has curl
            with urllib.request.urlopen(f"http://{line.removeprefix('curl -s ')}", timeout=5) as answer:
                return str(answer.read().decode())
        done = subprocess.run(
            ["bash", "-euc", line], cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=200
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout

    def _start(self, line: str) -> subprocess.Popen[str]:
        with (self.folder / f"{len(self.staying)}.out").open("w") as out:
            return subprocess.Popen(
                shlex.split(line),
                cwd=self.folder,
                env=self.environment,
                stdout=out,
                stderr=subprocess.STDOUT,
                text=True,
            )

    def said(self, start: str) -> str:
        return (self.folder / f"{list(self.staying).index(start)}.out").read_text()

    def all_said(self) -> str:
        return "".join(f"--- {start}\n{self.said(start)}" for start in self.staying)

    def leaves(self) -> None:
        for process in self.staying.values():
            if process.poll() is None:
                process.kill()
            process.wait()


@pytest.fixture
def newcomer(broker: str, topic: Callable[..., str], tmp_path: Path) -> Iterator[Newcomer]:
    readings = topic(2, name="press")
    names = {
        "localhost:9092": broker,
        "localhost:9108": f"127.0.0.1:{free_port()}",
        "press-readings": readings,
        "sensor-anomalies": f"{readings}-anomalies",
        "sensor-readings.dlq": f"{readings}.dlq",
    }
    made = Newcomer(tmp_path, names)
    yield made
    made.leaves()


FEATURES = ("temperature", "pressure", "vibration")


def press_readings(n: int) -> list[bytes]:
    """Three presses whose sensors follow their load."""
    rng = np.random.default_rng(7)
    now_ms = int(time.time() * 1000)
    rows = []
    for i in range(n):
        load = 0.5 + 0.4 * np.sin(i / 40) + rng.normal(0, 0.02)
        rows.append(
            {
                "timestamp": now_ms - 1000 * (n - i),
                "machine": f"press-{i % 3 + 1}",
                "temperature": round(60 + 20 * load + rng.normal(0, 0.3), 2),
                "pressure": round(4 + 8 * load + rng.normal(0, 0.1), 3),
                "vibration": round(0.4 + 0.4 * load + rng.normal(0, 0.01), 4),
            }
        )
    return [json.dumps(row).encode() for row in rows]


def recording() -> str:
    """A table as a press's logger keeps it, with a label."""
    rows = [json.loads(value) for value in press_readings(1500)]
    lines = [f"{r['timestamp']},{r['temperature']},{r['pressure']},{r['vibration']},0" for r in rows]
    return "\n".join(["timestamp,temperature,pressure,vibration,anomaly", *lines]) + "\n"


def test_a_recording_without_kafka_and_into_it(newcomer: Newcomer, broker: str) -> None:
    newcomer.environment |= {"ZMU_KAFKA__BOOTSTRAP_SERVERS": broker, "PYTHONPATH": str(ROOT)}
    (newcomer.folder / "recording.csv").write_text(recording())
    typed = [c for block in blocks(README) if block.section == RECORDINGS for c in commands(block.text)]
    for command in typed:
        newcomer.types(command)
    assert [command.split(" --")[0] for command in typed] == [
        "zmu-training run", "zmu-worker score recording.csv > scores.csv", "python -m deploy.demo.plant",
    ]
    assert len((newcomer.folder / "scores.csv").read_text().splitlines()) == 1 + 1500
    replayed = kafka.contents(broker, newcomer.here("press-readings"))
    assert len(replayed) == 1500
    assert all(json.loads(record.value).keys() == {"timestamp", *FEATURES} for record in replayed)


def test_five_steps_to_a_topic_of_ones_own(newcomer: Newcomer, broker: str) -> None:
    kafka.fill(broker, newcomer.here("press-readings"), press_readings(4000))
    typed: list[str] = []
    metrics = ""
    for block in blocks(README):
        if block.section != STEPS:
            continue
        if block.language == "toml":
            (newcomer.folder / "zmu.toml").write_text(newcomer.here(block.text))
            continue
        for command in commands(block.text):
            typed.append(command)
            if command not in INSTALL:
                metrics = newcomer.types(command)
            if command.startswith("zmu-worker run"):
                # A new group starts at the end of the topic: what comes next must come after its start.
                until(lambda: ready(newcomer), 60, newcomer.all_said)
    assert typed[: len(INSTALL)] == INSTALL
    assert "zmu_records_scored_total" in metrics

    until(lambda: "event_id" in newcomer.said("python -m kafka.consumer"), 30, newcomer.all_said)
    event = json.loads(newcomer.said("python -m kafka.consumer").splitlines()[0])
    assert event["entity"] == "press-1"
    assert event["contributions"][0]["feature"] == "pressure"
    assert event["flags"] in ([], ["warming_up"])       # the press's first reading since the group began

    kafka.fill(broker, newcomer.here("press-readings"), [b'{"machine": "press-1", "pressure": "high"}'])
    dead_letters = newcomer.here("sensor-readings.dlq")
    until(lambda: bool(kafka.contents(broker, dead_letters)), 30, newcomer.all_said)
    worker = newcomer.staying["zmu-worker run"]
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0, newcomer.all_said()

    (dead,) = kafka.contents(broker, dead_letters)
    assert dict(dead.headers)["error.code"] == b"wrong_type"
    docs = ROOT / "docs"
    found = kafka.contents(broker, newcomer.here("sensor-anomalies"))
    assert found
    for record in found:
        jsonschema.validate(json.loads(record.value), json.loads((docs / "event.schema.json").read_text()))
        headers = {name: value.decode() for name, value in record.headers}
        jsonschema.validate(headers, json.loads((docs / "event-headers.schema.json").read_text()))


def ready(newcomer: Newcomer) -> bool:
    try:
        with urllib.request.urlopen(f"http://{newcomer.here('localhost:9108')}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def test_the_snippet_of_the_model() -> None:
    (snippet,) = (block.text for block in blocks(README) if block.language == "python")
    done = subprocess.run([sys.executable, "-c", snippet], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    error = {line.split()[0]: float(line.split()[1]) for line in done.stdout.splitlines()[:2]}
    assert error["broken"] > 5 * error["normal"]
    assert "new readings" in done.stdout
