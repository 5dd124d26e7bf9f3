from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.fitting import quality
from training.fitting.quality import FACTOR, LEAST_MISSING, LEAST_STUCK
from worker.codec.readings import ReadingSchema
from worker.entities import Entities
from worker.faults.quality import Quality, QualityMonitor, fields
from worker.recordings import files
from worker.recordings.tables import NO_TIME
from worker.records import Batch
from worker.state.state import States

DATA = Path(__file__).parents[3] / "shared" / "data"
recordings = pytest.mark.skipif(not DATA.is_dir(), reason=f"the recordings are not here: {DATA}")
NAN = float("nan")


def batch(x_NF: np.ndarray, entity_N: np.ndarray | None = None, timestamp_ms_N: np.ndarray | None = None) -> Batch:
    n = len(x_NF)
    return Batch(
        x_BF=x_NF.astype(np.float32),
        entity_B=np.zeros(n, np.int32) if entity_N is None else entity_N.astype(np.int32),
        timestamp_ms_B=1000 * np.arange(n) if timestamp_ms_N is None else timestamp_ms_N,
        partition_B=np.zeros(n, np.int32),
        offset_B=np.arange(n),
    )


def learn(x_NF: np.ndarray, entity_N: np.ndarray | None = None, timestamp_ms_N: np.ndarray | None = None) -> Quality:
    return quality.learn(batch(x_NF, entity_N, timestamp_ms_N), [f"f{i}" for i in range(x_NF.shape[1])])


def noise(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=n)


def found(learnt: Quality, readings: Batch) -> list[tuple[str, int, tuple[int, ...]]]:
    states, monitor = States(fields(learnt.features)), QualityMonitor(learnt)
    return [(f.kind, f.offset, f.features) for f in monitor.update(states, readings)]


def held(x_N: np.ndarray, readings: int) -> np.ndarray:
    """Each value that many times."""
    return np.repeat(x_N, readings)


def test_how_long_a_sensor_repeats_itself_decides_when_it_is_stuck() -> None:
    fine, slow = noise(6000), held(noise(1000), 6)
    level = noise(6000, 1)
    level[3000:3040] = level[3000]
    assert learn(np.stack([fine, slow, level], 1)).stuck_after == (LEAST_STUCK, FACTOR * 6, FACTOR * 40)


def test_where_equal_readings_are_usual_nothing_is_stuck() -> None:
    n = 6000
    constant = np.full(n, 7.0)
    switch = np.random.default_rng(0).integers(0, 2, n).astype(float)
    setpoint = held(noise(12), n // 12)         # many values, each kept for long
    assert learn(np.stack([constant, switch, setpoint], 1)).stuck_after == (None, None, None)


def test_a_value_of_each_machine_s_own_is_not_stuck() -> None:
    entity_N = np.repeat(np.arange(50), 200)
    rated = noise(50)[entity_N]
    assert learn(np.stack([rated, noise(len(entity_N))], 1), entity_N).stuck_after == (None, LEAST_STUCK)


def test_readings_of_others_between_do_not_break_a_run() -> None:
    entity_N = np.tile([0, 1], 3000)
    x_N = np.where(entity_N == 0, held(noise(600), 10), noise(6000, 1))
    assert learn(x_N[:, None], entity_N).stuck_after == (FACTOR * 5,)


def test_one_machine_with_a_dead_sensor_does_not_blind_the_others() -> None:
    entity_N = np.repeat(np.arange(40), 200)
    x_NF = np.stack([noise(len(entity_N)), noise(len(entity_N), 1)], 1)
    x_NF[entity_N == 7] = [3.0, NAN]
    learnt = learn(x_NF, entity_N)
    assert (learnt.stuck_after[0], learnt.missing_after[1]) == (LEAST_STUCK, LEAST_MISSING)
    assert [f for f in found(learnt, batch(x_NF, entity_N)) if f[0] != "silent"] == [
        ("missing", 7 * 200 + LEAST_MISSING - 1, (1,)), ("stuck", 7 * 200 + LEAST_STUCK - 1, (0,)),
    ]


def test_too_few_readings_say_nothing() -> None:
    learnt = learn(noise(50)[:, None])
    assert (learnt.stuck_after, learnt.missing_after) == ((None,), (None,))


def test_how_long_a_value_is_usually_missing_decides_when_it_is_gone() -> None:
    n = 6000
    always_there, hiccups, alternate, rare, never_there = (noise(n, i) for i in range(5))
    hiccups[100:108] = NAN
    alternate[::2] = NAN
    rare[np.arange(n) % 1000 != 0] = NAN
    never_there[:] = NAN
    learnt = learn(np.stack([always_there, hiccups, alternate, rare, never_there], 1))
    assert learnt.missing_after == (LEAST_MISSING, FACTOR * 8, LEAST_MISSING, None, None)
    assert learnt.stuck_after[:3] == (LEAST_STUCK,) * 3
    assert learnt.stuck_after[3:] == (None, None)


def test_limits_are_the_operators_to_give() -> None:
    learnt = learn(noise(500)[:, None])
    assert (learnt.low, learnt.high) == ((None,), (None,))


def test_silence_is_a_multiple_of_the_usual_interval() -> None:
    x_NF = noise(1000)[:, None]
    assert learn(x_NF, timestamp_ms_N=1000 * np.arange(1000)).silent_after_seconds == 60
    minutes = 60_000 * np.arange(1000)
    minutes[500:] += 86_400_000                 # a day of standstill is no usual interval
    assert learn(x_NF, timestamp_ms_N=minutes).silent_after_seconds == 20 * 60


def test_the_slowest_entity_decides_what_silence_is() -> None:
    entity_N = np.r_[np.zeros(900), np.ones(100)]
    stamp_N = np.r_[1000 * np.arange(900), 600_000 * np.arange(100)].astype(np.int64)
    assert learn(noise(1000)[:, None], entity_N, stamp_N).silent_after_seconds == 20 * 600


def test_the_time_between_two_recordings_is_no_interval() -> None:
    entity_N = np.repeat([0, 1, 2], 50)
    stamp_N = 1000 * np.arange(150) + 10**10 * entity_N
    assert learn(noise(150)[:, None], entity_N, stamp_N).silent_after_seconds == 60


@pytest.mark.parametrize(
    "stamps",
    [np.full(500, NO_TIME), np.full(500, 1_764_000_000_000), np.where(np.arange(500) < 15, np.arange(500), NO_TIME)],
)
def test_without_times_nothing_is_silent(stamps: np.ndarray) -> None:
    assert learn(noise(500)[:, None], timestamp_ms_N=stamps.astype(np.int64)).silent_after_seconds is None


@given(st.integers(0, 10_000))
def test_what_was_learnt_from_is_without_fault(seed: int) -> None:
    rng = np.random.default_rng(seed)
    entity_N = rng.integers(0, 4, 1500)
    x_NF = np.stack([
        noise(1500, seed),
        rng.integers(0, 30, 1500),                              # coarse
        np.round(np.cumsum(rng.normal(size=1500)) / 3),         # coarse and slow
        np.where(rng.random(1500) < 0.4, NAN, rng.normal(size=1500)),
        entity_N.astype(float),
    ], 1)
    readings = batch(x_NF, entity_N)
    assert found(quality.learn(readings, list("abcde")), readings) == []


def recorded(path: Path) -> tuple[Batch, list[str]]:
    names = [name for name in files.table(path).columns if name not in ("anomaly", "changepoint", "datetime")]
    return files.read(path, ReadingSchema(tuple(names)), Entities())[0], names


def normal(path: Path) -> np.ndarray:
    """By reading, whether it is labelled normal."""
    return files.read(path, ReadingSchema(("anomaly",)), Entities())[0].x_BF[:, 0] == 0


@recordings
def test_a_normal_pump_has_no_faults_and_a_frozen_sensor_is_one() -> None:
    for path in sorted((DATA / "valve1").glob("*.csv")):
        readings, names = recorded(path)
        normal_B = normal(path)
        past = Batch(*(column[:400] for column in (
            readings.x_BF, readings.entity_B, readings.timestamp_ms_B, readings.partition_B, readings.offset_B
        )))
        learnt = quality.learn(past, names)
        assert learnt.silent_after_seconds == 60
        assert [f for f in found(learnt, readings) if normal_B[f[1]]] == [], path
        f = names.index("Current")
        assert learnt.stuck_after[f] is not None
        readings.x_BF[700:, f] = readings.x_BF[700, f]
        assert ("stuck", 699 + learnt.stuck_after[f], (f,)) in found(learnt, readings)


@recordings
def test_a_normal_server_has_no_faults() -> None:
    for name in ("asd-a/omi-1", "smd1/machine-1-6"):
        past, names = recorded(DATA / f"{name}.train.csv.gz")
        readings, _ = recorded(DATA / f"{name}.csv.gz")
        normal_B = normal(DATA / f"{name}.csv.gz")
        learnt = quality.learn(past, names)
        assert sum(after is not None for after in learnt.stuck_after) > len(names) / 2
        assert found(learnt, past) == []
        assert [f for f in found(learnt, readings) if normal_B[f[1]]] == []
