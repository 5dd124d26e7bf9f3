"""The simulated pumps are physics, repeatable, and their faults show where they should and nowhere else."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest

from deploy.demo import plant
from deploy.demo.faults import F64, KINDS, SENSORS, Fault, lasting, random_faults
from deploy.demo.feed import Pace, readings
from deploy.demo.pumps import FULL_SPEED_F, Pumps
from tests import kafka
from worker.errors import SettingsError

START_MS = 1_764_000_000_000
TICKS = 600
LAST_MS = START_MS + TICKS * 1000
IN_THE_PUMP = ("bearing_wear", "cavitation", "blocked_valve")


def run(*faults: Fault, seed: int = 1, ticks: int = TICKS) -> F64:
    """x_TEF of three pumps, a second apart."""
    pumps = Pumps(3, seed, START_MS)
    pumps.inject(faults)
    return np.array([pumps.step().x_EF for _ in range(ticks)])


def during(kind: str, sensor: str | None = None) -> Fault:
    """A fault of pump-2 from second 200 to 400."""
    return Fault(kind, "pump-2", START_MS + 200_000, START_MS + 400_000, sensor)    # type: ignore[arg-type]


def moved(x_TEF: F64, sound_TEF: F64) -> set[tuple[str, str]]:
    """Pumps and sensors that differ anywhere."""
    differs_EF = ~((x_TEF == sound_TEF) | (np.isnan(x_TEF) & np.isnan(sound_TEF))).all(axis=0)
    return {(f"pump-{pump + 1}", SENSORS[sensor]) for pump, sensor in zip(*np.nonzero(differs_EF), strict=True)}


def test_same_seed_same_readings() -> None:
    np.testing.assert_array_equal(run(seed=5), run(seed=5))
    assert not np.array_equal(run(seed=5), run(seed=6))


def test_ticks_are_an_interval_apart() -> None:
    pumps = Pumps(2, 1, START_MS, interval_seconds=0.1)
    assert [pumps.step().timestamp_ms - START_MS for _ in range(4)] == [0, 100, 200, 300]
    assert pumps.next_ms == START_MS + 400


def test_sensors_follow_the_affinity_laws() -> None:
    """Over all duty levels: flow ~ speed, pressure ~ speed², and power, read from the current, ~ speed³."""
    x_BF = run(ticks=3000).reshape(-1, len(SENSORS)) / FULL_SPEED_F
    column = {name: x_BF[:, at] for at, name in enumerate(SENSORS)}
    power_B = (column["current"] - 0.25) / 0.75
    for quantity_B, exponent in ((column["flow"], 1), (column["pressure"], 2), (power_B, 3)):
        slope = np.polyfit(np.log(column["speed"]), np.log(np.clip(quantity_B, 0.01, None)), 1)[0]
        assert slope == pytest.approx(exponent, abs=0.15)
    correlation_FF = np.corrcoef(x_BF.T)
    driven = [at for at, name in enumerate(SENSORS) if name != "temperature"]
    assert correlation_FF[np.ix_(driven, driven)].min() > 0.8


def test_temperature_lags_power() -> None:
    x_TF = run(ticks=3000)[:, 0]
    temperature_T, current_T = x_TF[:, SENSORS.index("temperature")], x_TF[:, SENSORS.index("current")]
    by_lag = [np.corrcoef(temperature_T[lag:], current_T[: len(current_T) - lag])[0, 1] for lag in range(60)]
    assert 3 <= int(np.argmax(by_lag)) <= 40
    assert max(by_lag) > by_lag[0] + 0.1


def test_every_duty_level_is_visited() -> None:
    speed_TE = run(ticks=3000)[:, :, SENSORS.index("speed")] / 2900
    for level in (0.6, 0.75, 0.9, 1.0):
        assert (np.abs(speed_TE - level) < 0.04).mean() > 0.1


@pytest.mark.parametrize("kind", IN_THE_PUMP)
def test_a_pump_s_fault_shows_in_its_sensors_only(kind: str) -> None:
    fault = during(kind)
    sound_TEF, x_TEF = run(), run(fault)
    assert moved(x_TEF, sound_TEF) == {("pump-2", sensor) for sensor in fault.sensors}
    np.testing.assert_array_equal(x_TEF[:200], sound_TEF[:200])


@pytest.mark.parametrize("kind", IN_THE_PUMP)
def test_a_pump_s_fault_is_plain_in_its_first_sensor(kind: str) -> None:
    """By more than the sensor's own noise can do: 8 σ on average over the fault's second half."""
    fault = during(kind)
    change_T = (run(fault) - run())[300:400, 1, SENSORS.index(fault.sensors[0])]
    noise = {"vibration_1": 0.05, "flow": 0.01, "pressure": 0.008}[fault.sensors[0]]
    assert abs(change_T.mean()) > 8 * noise * FULL_SPEED_F[SENSORS.index(fault.sensors[0])]


def test_wear_grows_and_leaves_with_the_new_bearing() -> None:
    change_T = (run(during("bearing_wear")) - run())[:, 1, SENSORS.index("vibration_1")]
    quarters = [change_T[start : start + 50].mean() for start in range(200, 400, 50)]
    assert quarters == sorted(quarters)
    assert (change_T[400:] == 0).all()


def test_a_stuck_sensor_holds_its_value() -> None:
    sound_TEF, x_TEF = run(), run(during("stuck", "pressure"))
    assert moved(x_TEF, sound_TEF) == {("pump-2", "pressure")}
    held_T = x_TEF[200:400, 1, SENSORS.index("pressure")]
    assert (held_T == sound_TEF[200, 1, SENSORS.index("pressure")]).all()


def test_a_spike_adds_to_one_sensor() -> None:
    sound_TEF, x_TEF = run(), run(during("spike", "current"))
    assert moved(x_TEF, sound_TEF) == {("pump-2", "current")}
    np.testing.assert_allclose((x_TEF - sound_TEF)[200:400, 1, SENSORS.index("current")], 0.6 * 22.0)


def test_a_dropped_out_sensor_reads_null() -> None:
    pumps = Pumps(3, 1, START_MS)
    pumps.inject([Fault("dropout", "pump-2", START_MS, START_MS + 1000, "flow")])
    first, second = (readings(pumps.entities, pumps.step()) for _ in range(2))
    assert [reading.values["flow"] is None for reading in first] == [False, True, False]
    assert all(value is not None for reading in second for value in reading.values.values())
    assert sum(value is None for reading in first for value in reading.values.values()) == 1


def test_readings_never_tell_of_faults() -> None:
    pumps = Pumps(1, 1, START_MS)
    pumps.inject([Fault("cavitation", "pump-1", START_MS, LAST_MS)])
    (reading,) = readings(pumps.entities, pumps.step())
    assert tuple(reading.values) == SENSORS


def test_random_faults_take_turns() -> None:
    entities = ("pump-1", "pump-2", "pump-3")
    faults = list(islice(random_faults(entities, 3, START_MS, 10), 200))
    assert faults == list(islice(random_faults(entities, 3, START_MS, 10), 200))
    assert {fault.kind for fault in faults} == set(KINDS)
    for entity in entities:
        own = [fault for fault in faults if fault.entity == entity]
        assert all(earlier.end_ms < later.start_ms for earlier, later in pairwise(own))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("cavitation", "need KIND@PUMP"),
        ("rust@pump-1:1+1", "unknown fault 'rust'"),
        ("stuck@pump-1:1+1", "needs the sensor"),
        ("stuck/colour@pump-1:1+1", "unknown sensor 'colour'"),
        ("cavitation/flow@pump-1:1+1", "needs no sensor"),
        ("cavitation@pump-1:1+0", "a fault lasts"),
    ],
)
def test_a_fault_that_cannot_be_is_explained(text: str, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        plant.parsed_fault(text, START_MS)


def test_a_fault_is_read_from_the_command_line() -> None:
    fault = plant.parsed_fault("stuck/pressure@pump-3:30+15.5", START_MS)
    assert fault == Fault("stuck", "pump-3", START_MS + 30_000, START_MS + 45_500, "pressure")


def test_an_unknown_pump_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown pump 'pump-9': there are pump-1, pump-2, pump-3"):
        run(lasting("cavitation", "pump-9", START_MS))


def test_pace_keeps_to_the_speed() -> None:
    now = 100.0
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        nonlocal now
        slept.append(seconds)
        now += seconds

    pace = Pace(10, clock=lambda: now, sleep=sleep)
    for timestamp_ms in (0, 1000, 1000, 3000):
        pace.wait_for(timestamp_ms)
    assert slept == pytest.approx([0.1, 0.2])
    unhurried = Pace(math.inf, clock=lambda: now, sleep=sleep)
    unhurried.wait_for(0)
    unhurried.wait_for(10**9)
    assert len(slept) == 2


def test_the_plant_writes_history_then_lives(
    broker: str, topic: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZMU_KAFKA__BOOTSTRAP_SERVERS", broker)
    name = topic(partitions=4)
    labels = tmp_path / "faults.jsonl"
    arguments = ["--topic", name, "--pumps", "3", "--history-seconds", "50", "--seconds", "2", "--interval-seconds"]
    arguments += ["0.5", "--fault", "dropout/flow@pump-2:1+1", "--labels", str(labels)]
    assert plant.main(arguments) == 0

    records = kafka.contents(broker, name)
    assert len(records) == 3 * (100 + 4)
    for entity in (b"pump-1", b"pump-2", b"pump-3"):
        own = [record for record in records if record.key == entity]
        assert len({record.partition for record in own}) == 1
        stamps = [json.loads(record.value)["timestamp"] for record in own]
        assert np.diff(stamps).tolist() == [500] * 103
        assert [record.timestamp for record in own] == stamps
    nulls = [record for record in records if json.loads(record.value)["flow"] is None]
    (label,) = map(json.loads, labels.read_text().splitlines())
    assert [record.key for record in nulls] == [b"pump-2"] * 2
    assert {json.loads(r.value)["timestamp"] for r in nulls} == {label["start_ms"], label["start_ms"] + 500}
    assert label["kind"] == "dropout"
    assert label["sensors"] == ["flow"]


def test_the_plant_names_a_topic_that_is_not_there(
    broker: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZMU_KAFKA__BOOTSTRAP_SERVERS", broker)
    assert plant.main(["--seconds", "1", "--topic", "never-made"]) == 2
    assert "no topic 'never-made'" in capsys.readouterr().err
