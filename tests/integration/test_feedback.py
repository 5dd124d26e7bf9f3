"""Feedback on a real topic, from a person's word to the next version; and runs that have nothing to do."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.integration.test_training import fill, settings, values
from tests.kafka import fill as say
from tests.programs import Program
from tests.training import machine
from training import job, publish
from training.history import freshness, history, maintenance
from training.progress import Progress
from training.reporting.outcome import Outcome
from training.settings import Settings
from worker.detection.detector import Detector
from worker.errors import BrokerError
from worker.models import artifact
from worker.models.registry import Registry
from worker.records import event_id, rfc3339


def train(made: Settings) -> Outcome:
    return job.run(made, [], Progress(io.StringIO()))


def quick(broker: str, topic: str, folder: Path, **training: object) -> Settings:
    return settings(broker, topic, folder, kind="pca", rivals=False, **training)


def test_words_of_people_reach_the_next_version(broker: str, topic: Callable[..., str], tmp_path: Path) -> None:
    name, said = topic(2), topic(1, name="feedback")
    fill(broker, name, values(1000), partitions=2)
    made = quick(broker, name, tmp_path, feedback={"topic": said, "most_raise": 3})
    first = train(made)
    assert first.manifest.training.feedback == {}

    later = values(400, seed=1)
    later[200:205] = [json.dumps(row | {"pressure": 9.0}).encode() for row in machine.rows(5)]
    fill(broker, name, later, partitions=2)
    everything = history.from_topic(made, Progress(io.StringIO()), lambda: 0)
    champion = artifact.load(Registry(str(tmp_path), "default"), first.manifest.version, torch.device("cpu"))
    scores = Detector(champion).score_history(everything.batch)
    lowest = np.argsort(np.where(scores.anomalous_B, scores.anomaly_score_B, np.inf))[0]
    ids = [str(event_id(name, int(p), int(o))) for p, o in zip(everything.batch.partition_B,
                                                               everything.batch.offset_B, strict=True)]
    fault = int(np.argmax(scores.anomaly_score_B))
    assert scores.anomaly_score_B[lowest] < 1.4
    words = [(ids[lowest], "anomaly"), (ids[lowest], "false_alarm"), (ids[fault], "anomaly")]
    say(broker, said, [*(json.dumps({"event_id": e, "label": label}).encode() for e, label in words), b"rubbish"])

    second = train(made).manifest
    assert second.training.feedback == {"false_alarm": 1, "anomaly": 1, "invalid": 1}
    assert second.training.left_out["confirmed"] == 1
    assert second.figures["feedback.quiet"] == 1
    loaded = artifact.load(Registry(str(tmp_path), "default"), second.version, torch.device("cpu"))
    after = Detector(loaded).score_history(everything.batch)
    assert not after.anomalous_B[lowest]
    assert after.anomalous_B[fault]
    (gate,) = [g for g in second.gates if g.name == "labelled_f1"]
    assert gate.bound == "for information"              # two labels are too few to decide
    page = Registry(str(tmp_path), "default").read(second.version, "report.html").decode()
    assert "1 of 1 false alarms that were reported would be none now" in page


def test_times_of_maintenance_are_told_on_a_topic(broker: str, topic: Callable[..., str], tmp_path: Path) -> None:
    name, told = topic(2), topic(1, name="maintenance")
    fill(broker, name, values(400), partitions=2)

    def work(first: int, last: int, **more: object) -> bytes:
        """Of readings first to last."""
        start, end = (rfc3339(machine.START_MS + 1000 * row) for row in (first, last + 1))
        return json.dumps({"start": start, "end": end, "by": "night shift", **more}).encode()

    say(broker, told, [work(100, 199), work(0, 299), work(50, 59, entities=["elsewhere"]), None, work(10, 10), b"{}"],
        keys=[b"bearing", b"valve", b"pump", b"valve", None, None])
    lines = io.StringIO()
    made = quick(broker, name, tmp_path, maintenance_topic=told)
    manifest = job.run(made, [], Progress(lines)).manifest
    assert manifest.training.left_out == {"maintenance": 101}
    assert f"maintenance: 3 times told on topic {told}" in lines.getvalue()
    assert "1 records passed over; the last at partition 0, offset 5: Object missing required field `start`" in (
        lines.getvalue())
    nowhere = quick(broker, name, tmp_path, maintenance_topic=f"{name}-nowhere")
    assert maintenance.windows(nowhere, Progress(io.StringIO())) == ()


def test_no_topic_of_feedback_says_nothing(broker: str, topic: Callable[..., str], tmp_path: Path) -> None:
    name = topic()
    fill(broker, name, values(400))
    made = quick(broker, name, tmp_path, feedback={"topic": f"{name}-nowhere"})
    assert train(made).manifest.training.feedback == {}
    with pytest.raises(BrokerError, match="has no topic"):     # and it was not made by looking for it
        history.from_topic(made.model_copy(update={"input": made.input.model_copy(
            update={"topic": f"{name}-nowhere"})}), Progress(io.StringIO()), lambda: 0)


def test_a_repeated_run_has_nothing_to_do(broker: str, topic: Callable[..., str], tmp_path: Path) -> None:
    name = topic(2)
    fill(broker, name, values(400), partitions=2)
    made, registry = quick(broker, name, tmp_path, min_new=50), Registry(str(tmp_path), "default")
    first = train(made).manifest.version
    with pytest.raises(freshness.TooLittleNew, match=f"0 records are newer than what version {first} learnt from; 50"):
        train(made)
    fill(broker, name, values(49), partitions=2)
    with pytest.raises(freshness.TooLittleNew, match="49 records"):
        train(made)
    fill(broker, name, values(1), partitions=2)
    second = train(made).manifest.version
    assert registry.versions() == [first, second]
    publish.rollback(registry, "champion")
    with pytest.raises(freshness.TooLittleNew, match=second):  # what was rolled back is not simply made again
        train(made)
    program = Program("training", "run", ZMU_KAFKA__BOOTSTRAP_SERVERS=broker, ZMU_INPUT__TOPIC=name,
                      ZMU_MODEL__REGISTRY=str(tmp_path), ZMU_TRAINING__MIN_NEW="1")
    with program:
        assert program.wait() == 0
        assert program.process.stdout is not None
        assert program.process.stdout.read().startswith("skipped: 0 records are newer")
    assert registry.versions() == [first, second]


def test_a_run_that_died_before_it_could_promote_is_made_up_for(
    broker: str, topic: Callable[..., str], tmp_path: Path
) -> None:
    name = topic()
    fill(broker, name, values(400))
    made, registry = quick(broker, name, tmp_path, min_new=1), Registry(str(tmp_path), "default")
    orphan = train(made).manifest.version
    (tmp_path / "default/aliases/champion").unlink()    # as if it had died between the version and the alias
    second = train(made).manifest.version
    assert registry.versions() == [orphan, second]
    assert registry.resolve("champion") == second
