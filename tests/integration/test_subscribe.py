"""docs/subscribe.md: its examples run against what a live worker wrote, and its names are those of the schemas."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from kafka import KafkaAdminClient
from kafka.admin import NewTopic

from tests import factory, kafka
from tests.deploy.alertmanager import Alertmanager
from tests.documents import ROOT, blocks
from tests.programs import Program, parsed, worker_environment

DOCS = ROOT / "docs"
ASYNCAPI = json.loads((DOCS / "asyncapi.json").read_text())
START_MS = 1_764_000_000_000


def examples(language: str, section: str) -> list[str]:
    found = [b.text for b in blocks(DOCS / "subscribe.md") if (b.language, b.section) == (language, section)]
    assert found
    return found


class Written:
    """What a worker wrote of pump-0, which is well again, of pump-9, which is not, and of a record that is none."""

    def __init__(self, broker: str, topics: Mapping[str, str]) -> None:
        """topics: of this test, by their default names."""
        self.broker, self.topics = broker, topics

    def here(self, example: str) -> str:
        """With the topics and the broker of this test."""
        names = "|".join(re.escape(name) for name in sorted(self.topics, key=len, reverse=True))
        moved = re.sub(rf"(?<![\w.-])({names})(?![\w.-])", lambda found: self.topics[found[1]], example)
        assert moved != example
        return moved.replace("localhost:9092", self.broker)

    def python(self, example: str, **environment: str) -> str:
        settings = {"BOOTSTRAP_SERVERS": self.broker, "LEAVE_AFTER_MS": "4000", **environment}
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", self.here(example)],
            env=os.environ | settings, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def events(self) -> list[dict[str, Any]]:
        return [parsed(r.value) for r in kafka.contents(self.broker, self.topics["sensor-anomalies"])]


@pytest.fixture(scope="module")
def written(broker: str, admin: KafkaAdminClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Written]:
    unique = uuid.uuid4().hex[:10]
    topics = {channel["address"]: f"{channel['address']}-{unique}" for channel in ASYNCAPI["channels"].values()}
    compact = {"cleanup.policy": "compact"}
    admin.create_topics([
        NewTopic(name, 1, 1, topic_configs=compact if default == "sensor-incidents" else {})
        for default, name in topics.items()
    ])  # fmt: skip
    admin.wait_for_topics(list(topics.values()))
    folder = tmp_path_factory.mktemp("subscribe")
    factory.publish(folder)
    wrong = [factory.reading(factory.ANOMALOUS, START_MS + 1000 * i) for i in range(10)]
    well = [factory.reading(factory.NORMAL, START_MS + 3_600_000 + 1000 * i) for i in range(5)]
    readings = topics["sensor-readings"]
    kafka.fill(broker, readings, [*wrong, *well], [b"pump-0"] * 15)
    kafka.fill(broker, readings, [*wrong, b"junk"], [b"pump-9"] * 11)
    environment = worker_environment(
        broker, folder,
        {"input": readings, "output": topics["sensor-anomalies"], "dead": topics["sensor-readings.dlq"]},
    )  # fmt: skip
    incidents = {"ZMU_INCIDENTS__TOPIC": topics["sensor-incidents"]}
    with Program("worker", "run", "--until-drained", **environment, **incidents) as worker:
        assert worker.wait() == 0, worker.stderr
    yield Written(broker, topics)
    admin.delete_topics(list(topics.values()))


def test_python_prints_each_event_once(written: Written) -> None:
    (example,) = examples("python", "Python")
    printed = written.python(example).splitlines()
    events = {str(event["event_id"]): event for event in written.events()}
    assert len(printed) == len(events) == 20
    assert all(event["entity"] in line for event, line in zip(events.values(), printed, strict=True))


def test_python_tells_what_is_wrong_now(written: Written) -> None:
    (example,) = examples("python", "What is wrong now")
    (line,) = written.python(example).splitlines()
    assert line.startswith("pump-9 ")
    assert line.endswith(" pressure")


def test_incidents_become_alerts(written: Written, tmp_path: Path) -> None:
    """In a real Alertmanager: the open one fires, the closed one does not."""
    if not Alertmanager.there():
        pytest.skip("prometheus-alertmanager (Debian's package of that name) is not installed")
    (example,) = examples("python", "Alertmanager")
    with Alertmanager(tmp_path) as alertmanager:
        written.python(example, ALERTMANAGER=f"http://{alertmanager.address}")
        alerts = alertmanager.alerts()
    (alert,) = alerts
    assert (alert["labels"]["alertname"], alert["labels"]["entity"]) == ("ZmuIncident", "pump-9")
    assert "pressure" in alert["annotations"]["summary"]


def test_kcat(written: Written) -> None:
    if shutil.which("kcat") is None:
        pytest.skip("kcat (Debian's package of that name) is not installed")
    there, live, refused = (_kcat(written.here(example)) for example in examples("text", "kcat"))
    assert [json.loads(line.split(" ", 1)[1]) for line in there] == written.events()
    assert all("ce_type=io.zmu.anomaly.v1" in line for line in live)
    (why,) = refused
    assert "error.code=invalid_json" in why
    assert f"source.topic={written.topics['sensor-readings']}" in why


def test_what_was_written_is_what_asyncapi_says(written: Written) -> None:
    told = {"feedback", "maintenance"}      # by people
    for name, message in ASYNCAPI["components"]["messages"].items():
        if name in told:
            continue
        default = ASYNCAPI["channels"][name]["address"]
        records = kafka.contents(written.broker, written.topics[default])
        assert records, default
        for record in records:
            if message["contentType"] == "application/json" and record.value != b"junk":
                jsonschema.validate(parsed(record.value), _schema(message["payload"]))
            headers = {key: value.decode() for key, value in record.headers}
            jsonschema.validate(headers, _schema(message.get("headers", {})))


def test_flinks_columns_are_the_events_fields() -> None:
    (table,) = examples("text", "Flink SQL")
    properties = json.loads((DOCS / "event.schema.json").read_text())["$defs"]["Event"]["properties"]
    columns = dict(re.findall(r"^  `(\w+)` (\w+)", table, flags=re.MULTILINE))
    assert columns.pop("event_time") == "AS"
    kinds = {"STRING": "string", "DOUBLE": "number", "ARRAY": "array"}
    for column, kind in columns.items():
        assert properties[column].get("type", "string") == kinds[kind], column


def test_connects_settings_name_the_topic_and_the_id() -> None:
    (example,) = examples("json", "Kafka Connect")
    config = json.loads(example)["config"]
    assert config["topics"] == ASYNCAPI["channels"]["anomaly"]["address"]
    assert config["transforms.id.fields"] == config["transforms.plain.field"] == "event_id"


def _kcat(example: str) -> list[str]:
    """Of one that would wait for what comes, what is there."""
    command = shlex.split(example.replace("-o end", "-o beginning -e -q"))
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def _schema(given: dict[str, Any]) -> dict[str, Any]:
    """Of a file where it names one."""
    return json.loads((DOCS / given["$ref"]).read_text()) if "$ref" in given else given
