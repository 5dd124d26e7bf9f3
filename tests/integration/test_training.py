"""Training from a real topic, and the worker that serves what it publishes."""

from __future__ import annotations

import io
import json
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from kafka import KafkaProducer

from tests.programs import Program, until
from tests.training import machine
from training import job
from training.history import drift, history
from training.progress import Progress
from training.settings import Settings
from worker.errors import BrokerError, TrainingError
from worker.models.registry import Registry

NOW_MS = machine.START_MS + 3_600_000


def settings(broker: str, topic: str, folder: Path, **training: object) -> Settings:
    made = machine.settings(folder, **training)
    kafka, given = made.kafka.model_copy(update={"bootstrap_servers": broker}), made.input
    return made.model_copy(update={"kafka": kafka, "input": given.model_copy(update={"topic": topic})})


def fill(
    broker: str, topic: str, values: Sequence[bytes | None], partitions: int = 1, entities: int = 3
) -> None:
    """Kafka's timestamps are a second apart, the last at NOW_MS."""
    producer = KafkaProducer(bootstrap_servers=broker, acks="all")
    for i, value in enumerate(values):
        stamp = NOW_MS - 1000 * (len(values) - 1 - i)
        producer.send(topic, key=b"pump-%d" % (i % entities), value=value, partition=i % partitions, timestamp_ms=stamp)
    producer.flush(timeout=30)
    producer.close()


def values(n: int, seed: int = 0) -> list[bytes]:
    return [json.dumps(row).encode() for row in machine.rows(n, seed)]


def read(made: Settings) -> history.History:
    return history.from_topic(made, Progress(io.StringIO()), lambda: NOW_MS)


def test_columns_of_a_topic(broker: str, topic: Callable[..., str], tmp_path: Path) -> None:
    name = topic(3)
    fill(broker, name, [*values(900), b"junk", b'{"load": "high"}', None], partitions=3)
    found = read(settings(broker, name, tmp_path))
    assert found.features == machine.SENSORS
    assert len(found) == 900
    assert found.left_out == {"invalid_json": 1, "wrong_type": 1, "empty": 1}
    assert sum(r.end - r.start for r in found.ranges) == 903
    order = np.argsort(found.batch.timestamp_ms_B)
    np.testing.assert_array_equal(found.batch.x_BF[order], machine.readings(900).astype(np.float32))
    assert {found.entities.names[code] for code in found.batch.entity_B} == {"pump-0", "pump-1", "pump-2"}


def test_the_newest_by_count_and_by_age(broker: str, topic: Callable[..., str], tmp_path: Path) -> None:
    name = topic(3)
    fill(broker, name, values(900), partitions=3)
    by_count = read(settings(broker, name, tmp_path, max_records=250))
    assert sorted(by_count.batch.timestamp_ms_B) == [machine.START_MS + 1000 * i for i in range(650, 900)]
    by_age = read(settings(broker, name, tmp_path, max_age="100s"))
    assert sorted(by_age.batch.timestamp_ms_B) == [machine.START_MS + 1000 * i for i in range(799, 900)]
    by_offset = read(settings(broker, name, tmp_path, start={0: 290, 1: 300, 2: 300}, end={0: 295}))
    assert by_offset.batch.offset_B.tolist() == [290, 291, 292, 293, 294]


def test_an_end_that_is_a_control_record(broker: str, topic: Callable[..., str], tmp_path: Path) -> None:
    name = topic()
    producer = KafkaProducer(bootstrap_servers=broker, transactional_id=f"t-{name}")
    producer.init_transactions()
    for finish in (producer.commit_transaction, producer.abort_transaction):
        producer.begin_transaction()
        for value in values(300):
            producer.send(name, value=value)
        producer.flush(timeout=30)
        finish()
    producer.close()
    assert len(read(settings(broker, name, tmp_path))) == 300


def test_arrays(broker: str, topic: Callable[..., str], tmp_path: Path) -> None:
    name = topic()
    fill(broker, name, [json.dumps({"values": [1.0, i, None]}).encode() for i in range(50)])
    found = read(settings(broker, name, tmp_path))
    assert found.features == ("value_0", "value_1", "value_2")
    assert found.batch.x_BF[7, 1] == 7


def test_what_cannot_be_learnt_from(broker: str, topic: Callable[..., str], tmp_path: Path) -> None:
    with pytest.raises(BrokerError, match="has no topic 'nowhere'"):
        read(settings(broker, "nowhere", tmp_path))
    name = topic()
    with pytest.raises(TrainingError, match="the topic is empty"):
        read(settings(broker, name, tmp_path))
    fill(broker, name, [b"junk"] * 5)
    with pytest.raises(TrainingError, match="holds no numbers"):
        read(settings(broker, name, tmp_path))
    fill(broker, name, values(20))
    made = settings(broker, name, tmp_path, max_age="1s")
    with pytest.raises(TrainingError, match=r"within max_age '1s'.*widen"):
        history.from_topic(made, Progress(io.StringIO()), lambda: NOW_MS + 9999)
    with pytest.raises(TrainingError, match=r"holds 20 readings .5 left out.; at least 200"):
        job.run(settings(broker, name, tmp_path), [], Progress(io.StringIO()))
    with pytest.raises(BrokerError, match="ZMU_KAFKA__BOOTSTRAP_SERVERS"):
        read(settings("127.0.0.1:1", name, tmp_path))


def test_topic_and_file_give_the_same_model(broker: str, topic: Callable[..., str], tmp_path: Path) -> None:
    name = topic()
    fill(broker, name, values(800), entities=1)
    made = settings(broker, name, tmp_path, min_steps=100, epochs=1)
    first = job.run(made, [], Progress(io.StringIO())).manifest
    second = job.run(made, [machine.json_lines(tmp_path / "pump-0.jsonl", 800)], Progress(io.StringIO())).manifest
    assert first.sha256 == second.sha256
    assert first.calibration == second.calibration
    assert first.entities == second.entities == ("pump-0",)
    assert first.training.source[0].end == 800
    assert second.training.files
    assert first.training.rows == second.training.rows == 800


def test_the_schedule_trains_serves_metrics_and_leaves_on_sigterm(
    broker: str, topic: Callable[..., str], tmp_path: Path
) -> None:
    name = topic()
    environment = {
        "ZMU_KAFKA__BOOTSTRAP_SERVERS": broker,
        "ZMU_INPUT__TOPIC": name,
        "ZMU_MODEL__REGISTRY": str(tmp_path),
        "ZMU_TRAINING__MIN_STEPS": "300",
        "ZMU_TRAINING__EPOCHS": "1",
        "ZMU_TRAINING__RIVALS": "false",
        "ZMU_HTTP__HOST": "127.0.0.1",
        "ZMU_HTTP__PORT": "0",
    }
    fill(broker, name, values(600))
    before = time.time()
    with Program("training", "schedule", "--every", "1s", **environment) as program:
        success, skipped = (f'zmu_training_runs_total{{result="{result}"}}' for result in ("success", "skipped"))
        until(lambda: program.metric(skipped) >= 1, 90, lambda: program.stderr)
        assert program.metric(success) == 1
        assert json.loads(program.get("/readyz")[1])["last_run"] == "skipped"
        fill(broker, name, values(100, seed=1))
        until(lambda: program.metric(success) >= 2, 90, lambda: program.stderr)
        assert program.metric("zmu_training_last_success_timestamp_seconds") > before
        assert program.metric("zmu_training_validation_loss") > 0
        assert program.get("/healthz")[0] == 200
        assert program.stop(signal.SIGTERM) == 0, program.stderr
    registry = Registry(str(tmp_path), "default")
    assert len(registry.versions()) >= 2
    assert registry.resolve("champion") in registry.versions()
    with Program("training", "schedule", "--every", "1h", **environment) as program:   # again: nothing is due
        program.says('"event": "next training"')
        assert program.metric(success) == 0
        program.process.send_signal(signal.SIGUSR1)
        until(lambda: program.metric(skipped) + program.metric(success) >= 1, 60, lambda: program.stderr)
        assert program.stop(signal.SIGTERM) == 0, program.stderr


def test_drift_starts_a_training_before_it_is_due(broker: str, topic: Callable[..., str], tmp_path: Path) -> None:
    name = topic()
    fill(broker, name, values(1500))
    made = settings(broker, name, tmp_path, min_steps=100, epochs=1, rivals=False)
    made = made.model_copy(update={"model": made.model.model_copy(update={"drift_readings": 1500})})
    assert drift.look(made) is None                     # there is no champion yet
    first = job.run(made, [], Progress(io.StringIO())).manifest.version
    seen = drift.look(made)
    assert seen is not None
    assert seen.version == first
    assert seen.psi < 0.1
    environment = {
        "ZMU_KAFKA__BOOTSTRAP_SERVERS": broker, "ZMU_INPUT__TOPIC": name, "ZMU_MODEL__REGISTRY": str(tmp_path),
        "ZMU_MODEL__DRIFT_READINGS": "1500", "ZMU_TRAINING__DRIFT_BOUND": "0.25",
        "ZMU_TRAINING__DRIFT_LOOK_SECONDS": "0.5", "ZMU_TRAINING__MIN_STEPS": "100", "ZMU_TRAINING__EPOCHS": "1",
        "ZMU_TRAINING__RIVALS": "false", "ZMU_HTTP__HOST": "127.0.0.1", "ZMU_HTTP__PORT": "0",
    }
    with Program("training", "schedule", "--every", "24h", **environment) as program:
        program.says('"event": "next training"')
        until(lambda: program.metric("zmu_training_drift_statistic") > 0, 60, lambda: program.stderr)
        moved = [json.dumps(row | {"pressure": row["pressure"] + 1.5}).encode() for row in machine.rows(1500, seed=1)]
        fill(broker, name, moved)
        program.says("drift: training before it is due")
        said = next(json.loads(line) for line in program.stderr.splitlines() if "drift: training" in line)
        assert (said["version"], said["feature"]) == (first, "pressure")
        assert said["psi"] > 0.25
        until(lambda: program.metric("zmu_training_duration_seconds") > 0, 90, lambda: program.stderr)
        assert program.stop(signal.SIGTERM) == 0, program.stderr
