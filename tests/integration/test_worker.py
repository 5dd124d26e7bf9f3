"""The worker's process against a real Kafka."""

from __future__ import annotations

import random
import re
import signal
import socket
from collections import Counter
from collections.abc import Callable
from contextlib import closing

import pytest
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition

from tests import factory
from tests.integration.conftest import Plant, much_junk
from tests.programs import Program, parsed, until
from worker.kafka.offsets import Start
from worker.kafka.source import KafkaSource
from worker.records import event_id
from worker.settings import InputSettings, KafkaSettings
from worker.source import Change

READINGS = factory.random_readings(4000, anomalous_every=100)


def expected_ids(plant: Plant) -> set[str]:
    """From the input topic itself: the ids that its anomalous readings must give."""
    return {
        str(event_id(r.topic, r.partition, r.offset))
        for r in plant.read("input")
        if re.search(rb'"pressure": [89]', r.value or b"")
    }


def ids(plant: Plant) -> Counter[str]:
    return Counter(str(parsed(r.value)["event_id"]) for r in plant.read("output"))


def test_until_drained(plant: Plant) -> None:
    plant.send([*READINGS, b"junk", None, b'{"pressure": "high"}'])
    with Program("worker", "run", "--until-drained", **plant.environment) as worker:
        assert worker.wait() == 0, worker.stderr
    assert ids(plant) == Counter(expected_ids(plant))
    assert sum(plant.committed().values()) == len(READINGS) + 3
    dead = plant.read("dead")
    assert sorted(dict(r.headers)["error.code"] for r in dead) == [b"empty", b"invalid_json", b"wrong_type"]
    assert {r.value for r in dead} == {b"junk", None, b'{"pressure": "high"}'}
    event = plant.read("output")[0]
    headers = dict(event.headers)
    assert headers["ce_id"].decode() == parsed(event.value)["event_id"]
    assert headers["ce_specversion"] == b"1.0"
    assert event.key.decode() == parsed(event.value)["entity"]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_the_next_start_repeats_nothing(plant: Plant, how: signal.Signals) -> None:
    environment = {**plant.environment, "ZMU_BATCH__MAX_RECORDS": "50"}
    plant.send(READINGS)
    with Program("worker", "run", **environment) as worker:
        until(lambda: worker.metric('zmu_records_scored_total{model_version="v1"}') > 100, 60, lambda: worker.stderr)
        assert worker.stop(how) == 0, worker.stderr
    with Program("worker", "run", "--until-drained", **environment) as worker:
        assert worker.wait() == 0, worker.stderr
    assert ids(plant) == Counter(expected_ids(plant))


def test_killed_it_loses_nothing_and_repeats_only_ids(plant: Plant) -> None:
    environment = {**plant.environment, "ZMU_BATCH__MAX_RECORDS": "50", "ZMU_KAFKA__SESSION_TIMEOUT_MS": "6000"}
    plant.send(READINGS)
    with Program("worker", "run", **environment) as worker:
        until(lambda: worker.metric('zmu_records_scored_total{model_version="v1"}') > 500, 60, lambda: worker.stderr)
        worker.stop(signal.SIGKILL)
    with Program("worker", "run", "--until-drained", **environment) as worker:
        assert worker.wait() == 0, worker.stderr
    assert set(ids(plant)) == expected_ids(plant)


def test_health_metrics_and_a_new_champion_while_running(plant: Plant) -> None:
    with Program("worker", "run", **plant.environment) as worker:
        worker.ready()
        assert worker.get("/healthz")[0] == 200
        plant.send(READINGS[:1000])
        until(lambda: worker.metric('zmu_records_scored_total{model_version="v1"}') == 1000, 30, lambda: worker.stderr)
        factory.publish(plant.registry, "v2")
        worker.says('"version": "v2"')
        plant.send(READINGS[1000:2000])
        until(lambda: worker.metric('zmu_records_scored_total{model_version="v2"}') == 1000, 30, lambda: worker.stderr)
        topic = plant.topics["input"]
        assert sum(
            worker.metric(f'zmu_records_consumed_total{{partition="{p}",topic="{topic}"}}') for p in range(4)
        ) == 2000
        until(lambda: sum(plant.committed().values()) == 2000, 30)
        assert worker.metric("zmu_assigned_partitions") == 4
        assert worker.metric(f'zmu_consumer_lag_records{{partition="0",topic="{topic}"}}') == 0
        assert worker.stop() == 0
    versions = Counter(str(parsed(r.value)["model"]["version"]) for r in plant.read("output"))  # type: ignore[index]
    assert versions == {"v1": 10, "v2": 10}


def test_a_second_worker_shares_the_work(plant: Plant) -> None:
    with (
        Program("worker", "run", **plant.environment) as first,
        Program("worker", "run", **plant.environment) as second,
    ):
        until(
            lambda: first.metric("zmu_assigned_partitions") == second.metric("zmu_assigned_partitions") == 2,
            60,
            lambda: first.stderr + second.stderr,
        )
        plant.send(READINGS[:2000])
        until(lambda: sum(plant.committed().values()) == 2000, 60, lambda: first.stderr + second.stderr)
        assert first.stop() == 0
        plant.send(READINGS[2000:])
        until(lambda: sum(plant.committed().values()) == 4000, 60, lambda: second.stderr)
        assert second.metric("zmu_assigned_partitions") == 4
        assert second.stop() == 0
    assert ids(plant) == Counter(expected_ids(plant))


def test_a_batch_is_not_committed_while_the_output_refuses(plant: Plant, admin: object) -> None:
    from kafka.admin import ConfigResource, ConfigResourceType

    def accept(value: str) -> None:
        """A topic that takes no record as large as an event, until it does."""
        resource = ConfigResource(ConfigResourceType.TOPIC, plant.topics["output"], {"max.message.bytes": value})
        admin.alter_configs([resource])  # type: ignore[attr-defined]

    accept("64")
    plant.send(READINGS[:1000])
    with Program("worker", "run", **plant.environment) as worker:
        worker.says("error survived")
        until(lambda: worker.get("/readyz")[0] == 503, 30, lambda: worker.stderr)
        assert worker.get("/healthz")[0] == 200
        assert sum(plant.committed().values()) < 1000
        accept("1000000")
        until(lambda: sum(plant.committed().values()) == 1000, 60, lambda: worker.stderr)
        worker.ready()
        assert worker.stop() == 0
    assert set(ids(plant)) == expected_ids(plant)


def test_an_unreachable_broker(plant: Plant) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))             # bound, not listening: nobody answers there
        nowhere = f"127.0.0.1:{held.getsockname()[1]}"
        environment = {**plant.environment, "ZMU_KAFKA__BOOTSTRAP_SERVERS": nowhere}
        with Program("worker", "check", **environment) as check:
            assert check.wait() == 2
            (said,) = check.stderr.splitlines()         # and not what kafka-python says of each of its tries
            assert said.startswith(f"zmu-worker: no answer from Kafka at {nowhere} ")
            assert "ZMU_KAFKA__BOOTSTRAP_SERVERS" in said
        with Program("worker", "run", **environment) as worker:
            worker.says("error survived")
            assert worker.get("/readyz")[0] == 503
            assert worker.get("/healthz")[0] == 200
            assert worker.stop() == 0


def test_a_missing_topic(plant: Plant) -> None:
    for command in ("check", "run"):
        with Program("worker", command, **{**plant.environment, "ZMU_OUTPUT__TOPIC": "not-there"}) as program:
            assert program.wait() == 2
            assert "'not-there'" in program.stderr
            assert "topics create -t not-there" in program.stderr
            assert "Traceback" not in program.stderr
    with Program("worker", "check", **{**plant.environment, "ZMU_CORE": "python", "ZMU_THREADS": "3"}) as program:
        assert program.wait() == 0, program.stderr
        assert program.process.stdout is not None
        assert "core      python, threads: 3\n" in program.process.stdout.read()


def test_a_dead_letter_too_large_for_its_topic_goes_without_its_value(plant: Plant, topic: Callable[..., str]) -> None:
    small = topic(1, name="small", max_message_bytes=2000)
    plant.topics["dead"] = small
    plant.send([random.Random(0).randbytes(100_000), b"junk"])     # incompressible
    with Program(
        "worker", "run", "--until-drained", **{**plant.environment, "ZMU_DEAD_LETTERS__TOPIC": small}
    ) as worker:
        assert worker.wait() == 0, worker.stderr
    dead = plant.read("dead")
    assert sorted(r.value for r in dead) == [b"", b"junk"]
    headers = dict(next(r for r in dead if not r.value).headers)
    assert headers["value.omitted_bytes"] == b"100000"
    assert headers["source.topic"].decode() == plant.topics["input"]


def test_dead_letters_too_large_together_for_their_topic_go_in_smaller_batches(
    plant: Plant, topic: Callable[..., str]
) -> None:
    junk = much_junk(plant, topic)
    with Program(
        "worker", "run", "--until-drained", **{**plant.environment, "ZMU_DEAD_LETTERS__TOPIC": plant.topics["dead"]}
    ) as worker:
        assert worker.wait() == 0, worker.stderr
    assert {record.value for record in plant.read("dead")} == set(junk)


def test_where_offsets_expire_it_goes_on_where_the_group_stands_if_that_is_there(
    broker: str, topic: Callable[..., str], admin: KafkaAdminClient
) -> None:
    name = topic(1, name="readings")
    tp = TopicPartition(name, 0)
    with closing(KafkaProducer(bootstrap_servers=broker, acks="all")) as producer:
        for _ in range(200):
            producer.send(name, value=b"{}", partition=0)
        producer.flush(timeout=30)
    settings = InputSettings(topic=name, group_id=f"g-{name}", start="latest", fetch="records")
    with closing(KafkaSource(KafkaSettings(bootstrap_servers=broker), settings)) as source:

        def changed() -> Change:
            found: list[Change] = []
            until(lambda: bool(found.extend(source.poll(500, 0.1, 0.5).changes) or found), 30)
            return found[0]

        assert changed() == Change("assigned", (0,))
        source.commit({0: 100}, {0: "note"})
        source.seek(0, 20)                      # to read again, in silence
        admin.delete_records({tp: 50})
        assert changed() == Change("rewound", (0,))
        assert source.start(0) == Start(100, False, "note", 50)
        source.seek(0, 100)
        assert [record.offset for record in source.poll(500, 0.1, 10).records][:1] == [100]
        source.seek(0, 110)                     # the group is as far behind
        admin.delete_records({tp: 150})
        assert changed() == Change("rewound", (0,))
        assert source.start(0) == Start(200, False, "", 150)
