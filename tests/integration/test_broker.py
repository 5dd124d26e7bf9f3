"""The brokers that everything else is tested on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.admin import NewTopic

from deploy.demo.broker import EmbeddedBroker
from deploy.demo.ports import free_port
from tests import kafka
from worker.errors import BrokerError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def embedded() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as broker:
        yield broker


def make_topic(broker: EmbeddedBroker, name: str) -> None:
    admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
    admin.create_topics([NewTopic(name, 2, 1)])
    admin.wait_for_topics([name])
    admin.close()


def values(broker: EmbeddedBroker, name: str) -> set[bytes]:
    return {record.value for record in kafka.contents(broker.bootstrap_servers, name)}


def test_what_was_acknowledged_survives_a_stop_and_a_kill(embedded: EmbeddedBroker) -> None:
    make_topic(embedded, "kept")
    kafka.fill(embedded.bootstrap_servers, "kept", [b"1"])
    embedded.stop()
    assert embedded.pid is None
    embedded.start()
    kafka.fill(embedded.bootstrap_servers, "kept", [b"2"])
    embedded.kill()
    assert embedded.pid is None
    embedded.start()
    kafka.fill(embedded.bootstrap_servers, "kept", [b"3"])
    assert values(embedded, "kept") == {b"1", b"2", b"3"}


def test_clients_carry_on_after_a_kill(embedded: EmbeddedBroker) -> None:
    make_topic(embedded, "carried-on")
    producer = KafkaProducer(bootstrap_servers=embedded.bootstrap_servers)
    producer.send("carried-on", b"before").get(timeout=30)
    embedded.kill()
    embedded.start()
    producer.send("carried-on", b"after").get(timeout=30)
    producer.close(timeout=10)
    assert values(embedded, "carried-on") == {b"before", b"after"}


def test_a_frozen_broker_answers_again_when_it_thaws(embedded: EmbeddedBroker) -> None:
    make_topic(embedded, "frozen")
    producer = KafkaProducer(bootstrap_servers=embedded.bootstrap_servers)
    producer.send("frozen", b"before").get(timeout=30)
    embedded.freeze()
    pending = producer.send("frozen", b"during")
    time.sleep(0.5)
    assert not pending.is_done
    embedded.thaw()
    pending.get(timeout=30)
    producer.close(timeout=10)
    assert values(embedded, "frozen") == {b"before", b"during"}


def test_a_group_reads_and_commits(embedded: EmbeddedBroker) -> None:
    make_topic(embedded, "grouped")
    kafka.fill(embedded.bootstrap_servers, "grouped", [b"a", b"b", b"c"])

    def read() -> list[bytes]:
        consumer = KafkaConsumer(
            "grouped",
            bootstrap_servers=embedded.bootstrap_servers,
            group_id="readers",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            consumer_timeout_ms=1500,
        )
        got = [record.value for record in consumer]
        consumer.commit()
        consumer.close()
        return got

    assert sorted(read()) == [b"a", b"b", b"c"]
    assert read() == []


def test_no_topic_is_made_behind_ones_back(embedded: EmbeddedBroker) -> None:
    with pytest.raises(AssertionError, match="no topic"):
        kafka.contents(embedded.bootstrap_servers, "never-made")


def test_temporary_data_goes_and_given_data_stays(tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path / "kept") as broker:
        make_topic(broker, "t")
    assert (tmp_path / "kept" / "data" / "t-0").is_dir()
    temporary = EmbeddedBroker()
    temporary.close()
    assert not temporary.folder.exists()


def test_a_failing_start_says_why_and_where_to_look(tmp_path: Path) -> None:
    broker = EmbeddedBroker(tmp_path, properties={"process.roles": "caterer"})
    with pytest.raises(BrokerError) as caught:
        broker.start()
    message = str(caught.value)
    assert "caterer" in message
    assert str(tmp_path / "kafka.log") in message
    assert broker.pid is None


def test_a_taken_port_is_named(embedded: EmbeddedBroker) -> None:
    with pytest.raises(BrokerError, match=rf"{embedded.port}.*choose another port"):
        EmbeddedBroker(port=embedded.port).start()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a child's life to its parent's")
def test_no_broker_outlives_a_killed_parent() -> None:
    script = (
        "import time; from deploy.demo.broker import EmbeddedBroker\n"
        "broker = EmbeddedBroker().start(); print(broker.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=ROOT, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert Path(f"/proc/{pid}").exists()
        parent.kill()
    deadline = time.monotonic() + 10
    while _alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(pid)


def test_foreground_broker_serves_until_it_is_told_to_stop() -> None:
    port = free_port()
    command = [sys.executable, "-m", "deploy.demo.broker", "--port", str(port), "--property", "num.io.threads=2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True) as process:
        assert process.stdout is not None
        assert f"127.0.0.1:{port}" in process.stdout.readline()
        admin = KafkaAdminClient(bootstrap_servers=f"127.0.0.1:{port}")
        assert admin.list_topics() == []
        admin.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_the_run_s_broker_makes_topics_and_keeps_order(broker: str, topic: Callable[..., str]) -> None:
    name = topic(partitions=3, retention_ms=3_600_000)
    kafka.fill(broker, name, [str(i).encode() for i in range(30)], keys=[str(i % 5).encode() for i in range(30)])
    records = kafka.contents(broker, name)
    assert len(records) == 30
    assert {record.partition for record in records} <= {0, 1, 2}
    for key in {record.key for record in records}:
        of_key = [int(record.value) for record in records if record.key == key]
        assert of_key == sorted(of_key)


@pytest.mark.docker
def test_kafka_in_a_container() -> None:
    if not kafka.engine_answers():
        pytest.skip("no Docker engine answers")
    container = kafka.Container()
    try:
        address = container.start()
        admin = KafkaAdminClient(bootstrap_servers=address)
        admin.create_topics([NewTopic("contained", 1, 1)])
        admin.wait_for_topics(["contained"])
        admin.close()
        kafka.fill(address, "contained", [b"x"])
        assert [record.value for record in kafka.contents(address, "contained")] == [b"x"]
    finally:
        container.stop()


def _alive(pid: int) -> bool:
    try:
        return os.path.exists(f"/proc/{pid}") and " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
