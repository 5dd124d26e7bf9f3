from __future__ import annotations

import json

import jsonschema
import msgspec
import pytest
from pydantic import ValidationError

from tests.incident_plant import FEATURES, LIKELY, START_MS, Plant, Row, at, run, said
from worker.codec.incidents import incident_message
from worker.incidents.incidents import Incident, Incidents
from worker.records import LATEST_MS, event_id
from worker.settings import IncidentSettings

ANOMALIES = [2.0] * 3


@pytest.mark.parametrize(
    ("scores", "opens_at"),
    [
        ([2, 2, 2], 2),
        ([2, 0, 2, 0, 2], 4),                   # 3 of the last 5
        ([2, 2, 0, 0, 0, 2, 0, 2, 2], 8),       # the first two are too long ago
        ([2, 0, 0, 2, 0, 0, 2, 0, 0, 2], None),
        ([1, 1, 1, 1, 1], None),                # at the threshold is not above it
    ],
)
@pytest.mark.parametrize("at_once", [True, False])
def test_opens_when_m_of_the_last_n_readings_are_anomalous(
    scores: list[float], opens_at: int | None, at_once: bool
) -> None:
    plant, rows = Plant(), run("pump-1", 0, scores)
    told = plant.feed(rows) if at_once else [incident for row in rows for incident in plant.feed([row])]
    assert [(incident.state, incident.opened_at) for incident in told] == (
        [] if opens_at is None else [("open", at(opens_at))]
    )


def test_normal_readings_count_one_by_one_also_in_a_batch_without_anomalies() -> None:
    plant = Plant()
    assert [*plant.feed(run("pump-1", 0, [2, 2])), *plant.feed(run("pump-1", 2, [0, 0, 0]))] == []
    assert plant.feed(run("pump-1", 5, [2])) == []
    assert [*plant.feed(run("pump-1", 6, [0] * 40)), *plant.feed(run("pump-1", 46, [2, 2]))] == []


def test_an_opening_says_what_led_to_it() -> None:
    (told,) = Plant().feed(
        [
            *run("pump-1", 0, [2, 0, 0]),       # too long ago
            Row("fan", 3, 2.0),
            *run("pump-1", 4, [0, 0, 2]),
            Row("pump-1", 7, 4.5, (0, 1, 0, 0, 0, 0, 3)),
            Row("pump-1", 8, 3.0),
        ]
    )
    ids = [event_id("readings", 0, offset) for offset in range(9)]
    assert told.entity == "pump-1"
    assert told.incident_id == told.group_id == event_id("readings", 0, 8, kind="incident")
    assert (told.first_event_id, told.last_event_id) == (ids[6], ids[8])
    assert told.source.offset == 8
    assert (told.opened_at, told.updated_at, told.closed_at) == (at(8), at(8), None)
    assert (told.readings, told.peak_score, told.severity, told.reopened) == (3, 4.5, "warning", 0)
    assert [(part.feature, part.share) for part in told.features] == [("vibration", 0.75), ("pressure", 0.25)]


def test_at_most_five_features_are_named_and_their_shares_are_of_all() -> None:
    (told,) = Plant().feed(run("pump-1", 0, ANOMALIES, parts=(1, 2, 3, 4, 5, 6, 7)))
    assert [part.feature for part in told.features] == ["vibration", "level", "speed", "current", "temperature"]
    assert sum(part.share for part in told.features) == pytest.approx(25 / 28)


def test_an_anomaly_without_contributions_names_none() -> None:
    (told,) = Plant().feed(run("pump-1", 0, ANOMALIES, parts=(0,) * 7))
    assert told.features == ()


def test_it_stays_open_while_anomalies_come_and_closes_after_the_quiet_gap() -> None:
    plant = Plant()
    assert said(plant.feed(run("pump-1", 0, [*ANOMALIES, *[0] * 58, 2, *[0, 2] * 20]))) == ["open"]
    assert plant.feed([Row("pump-1", 160.999, 0)]) == []
    (told,) = plant.feed([Row("pump-1", 161, 0)])
    assert (told.state, told.closed_at, told.updated_at) == ("close", at(161), at(161))
    assert told.readings == 24
    assert told.last_event_id == event_id("readings", 0, 101)
    assert plant.feed(run("pump-1", 162, [0] * 500)) == []


def test_a_late_anomaly_does_not_turn_time_back() -> None:
    plant = Plant()
    told = plant.feed([*run("pump-1", 100, ANOMALIES), Row("pump-1", 43, 2), Row("pump-1", 161.999, 0)])
    assert said(told) == ["open"]
    (close,) = plant.feed([Row("pump-1", 162, 0)])
    assert (close.closed_at, close.readings) == (at(162), 4)


def test_what_led_to_the_last_incident_does_not_open_the_next() -> None:
    plant = Plant({"cool_down_seconds": 0})
    first, close = plant.feed([*run("pump-1", 0, ANOMALIES), *run("pump-1", 62, [2, 2])])
    assert (close.state, close.closed_at) == ("close", at(62))
    (second,) = plant.feed(run("pump-1", 64, [2]))
    assert (second.state, second.readings, second.opened_at) == ("open", 3, at(64))
    assert second.incident_id != first.incident_id


@pytest.mark.parametrize(("later", "same"), [(99, True), (100, False)])
def test_an_opening_while_it_cools_down_opens_the_same_incident_again(later: float, same: bool) -> None:
    plant = Plant({"open_after": 1})
    opened, _ = plant.feed([Row("pump-1", 0, 4), Row("pump-1", 60, 0)])
    (again,) = plant.feed([Row("pump-1", 60 + later, 2)])
    assert again.state == "open"
    assert again.closed_at is None
    assert (again.incident_id == opened.incident_id) is same
    assert (again.reopened, again.readings, again.peak_score) == ((1, 2, 4) if same else (0, 1, 2))
    assert again.opened_at == (opened.opened_at if same else again.updated_at)
    assert again.first_event_id == (opened.first_event_id if same else again.last_event_id)


def test_a_rise_in_severity_is_told_at_once_by_peak() -> None:
    (told,) = (plant := Plant()).feed(run("pump-1", 0, [*ANOMALIES, 4.99]))
    assert told.severity == "warning"
    (worse,) = plant.feed(run("pump-1", 4, [5.0, 5.1, 2]))
    assert (worse.state, worse.severity, worse.peak_score, worse.readings) == ("update", "critical", 5.0, 5)


def test_a_rise_in_severity_is_told_at_once_by_length() -> None:
    plant = Plant()
    assert said(plant.feed(run("pump-1", 0, [2] * 602))) == ["open"]
    (worse,) = plant.feed(run("pump-1", 602, [2] * 5))
    assert (worse.state, worse.severity, worse.updated_at) == ("update", "critical", at(602))


@pytest.mark.parametrize(
    ("row", "news"),
    [
        (Row("pump-1", 22, 4.0), True),                                     # twice the peak
        (Row("pump-1", 21, 4.0), False),                                    # too soon after the last record
        (Row("pump-1", 22, 3.9), False),
        (Row("pump-1", 22, 2.1, (9, 1, 0, 0, 0, 0, 0)), True),              # another feature leads at a new peak
        (Row("pump-1", 22, 1.9, (9, 1, 0, 0, 0, 0, 0)), False),             # not at the peak
    ],
)
def test_what_an_update_is_worth(row: Row, news: bool) -> None:
    plant = Plant()
    plant.feed(run("pump-1", 0, ANOMALIES))
    told = plant.feed([row])
    assert said(told) == (["update"] if news else [])
    assert [incident.peak_score for incident in told] == ([row.score] if news else [])


def test_an_entity_that_stopped_sending_is_closed_by_the_time_of_its_partition() -> None:
    plant = Plant()
    opened, _ = plant.feed([*run("pump-1", 0, ANOMALIES), *run("pump-2", 0, ANOMALIES)])
    assert plant.quiet(0, 10) == []
    plant.feed([Row("pump-2", 61, 2), Row("pump-3", 1000, 0, partition=1)])
    assert plant.quiet(1, 1000) == plant.quiet(0, 69.999) == []
    (told,) = plant.quiet(0, 70)
    assert (told.state, told.entity, told.closed_at) == ("close", "pump-1", at(62))
    assert told.incident_id == opened.incident_id
    assert plant.quiet(0, 1000)[0].entity == "pump-2"
    assert plant.quiet(0, 2000) == []


def test_what_was_told_of_a_silent_entity_is_not_told_again() -> None:
    plant = Plant()
    plant.feed(run("pump-1", 0, ANOMALIES))
    assert said([*plant.quiet(0, 2), *plant.quiet(0, 62)]) == ["close"]
    assert plant.feed([Row("pump-1", 90, 0), *run("pump-1", 91, [2, 2])]) == []
    (again,) = plant.feed([Row("pump-1", 93, 2)])
    assert (again.state, again.reopened, again.readings) == ("open", 1, 6)
    assert [*plant.quiet(0, 93), *plant.feed([Row("pump-1", 94, 2)]), *plant.quiet(0, 94)] == []
    assert said(plant.quiet(0, 154)) == ["close"]


def test_an_entity_that_only_sent_late_had_its_incident_open_all_the_while() -> None:
    plant = Plant()
    (opened,) = plant.feed(run("pump-1", 0, ANOMALIES))
    assert said([*plant.quiet(0, 2), *plant.quiet(0, 62)]) == ["close"]
    (again,) = plant.feed(run("pump-1", 3, [0, 2, 2]))
    assert (again.state, again.incident_id, again.reopened, again.readings) == ("open", opened.incident_id, 0, 4)
    assert again.closed_at is None
    assert said([*plant.quiet(0, 63), *plant.quiet(0, 122), *plant.quiet(0, 123)]) == ["close"]


def test_an_entity_whose_clock_is_late_is_not_taken_for_silent() -> None:
    plant, told = Plant(), []
    for second in range(100):
        told += plant.feed([Row("pump-1", second - 900, 2), Row("pump-2", second, 0)])
        told += plant.quiet(0, second)
    assert said(told) == ["open"]


def test_a_clock_that_begins_anew_only_puts_off_the_end() -> None:
    plant = Plant()
    plant.feed(run("pump-1", 0, ANOMALIES))
    assert [*plant.quiet(0, 5000), *plant.quiet(0, 1), *plant.quiet(0, 60.999)] == []
    assert said(plant.quiet(0, 61)) == ["close"]


def test_an_entity_about_to_be_forgotten_leaves_nothing_open() -> None:
    plant = Plant()
    plant.feed([*run("pump-1", 0, ANOMALIES), *run("pump-2", 0, ANOMALIES[:2]), *run("pump-3", 0, ANOMALIES)])
    plant.quiet(0, 0)
    plant.feed([Row("pump-3", 50, 2)])
    assert [incident.entity for incident in plant.quiet(0, 60)] == ["pump-1"]
    (told,) = plant.incidents.close(plant.states, plant.entities, "readings", plant.codes(0))
    assert (told.entity, told.state, told.closed_at) == ("pump-3", "close", at(110))
    assert plant.incidents.close(plant.states, plant.entities, "readings", plant.codes(0)) == []
    assert not plant.states["incident_open"].any()


def test_a_clock_that_was_set_right_leaves_nothing_open() -> None:
    plant = Plant()
    year_9999 = (LATEST_MS - START_MS) / 1000
    told = plant.feed([*[Row("pump-1", year_9999, 2)] * 3, Row("pump-1", 0, 0), *run("pump-1", 1, ANOMALIES)])
    assert said(told) == ["open", "close", "open"]
    assert told[1].closed_at == "9999-12-31T23:59:59.999Z"
    assert told[2].incident_id != told[0].incident_id
    late = plant.feed([Row("pump-1", -3600, 0), Row("pump-1", 4, 2)])       # late, but no other clock
    assert late == []


def test_a_clock_that_was_never_set_is_as_good_as_any() -> None:
    (told,) = Plant().feed(run("pump-1", -START_MS / 1000, ANOMALIES))
    assert (told.opened_at, told.reopened, told.source.offset) == ("1970-01-01T00:00:02.000Z", 0, 2)
    assert told.group_id == told.incident_id


@pytest.mark.parametrize("at_once", [1, 3, 7])
def test_incidents_that_open_together_share_the_id_of_the_first(at_once: int) -> None:
    plant = Plant({"open_after": 1})
    rows = [
        Row("pump-1", 0, 2), Row("pump-2", 20, 2, partition=1), Row("pump-3", 30, 2), Row("pump-4", -30, 2),
        Row("pump-5", 31, 2), Row("pump-6", 61, 2), Row("pump-7", 61.001, 2),
    ]
    told = [incident for i in range(0, 7, at_once) for incident in plant.feed(rows[i : i + at_once])]
    own = [incident.incident_id for incident in told]
    assert [own.index(incident.group_id) for incident in told] == [0, 0, 0, 0, 4, 4, 6]


def test_an_entity_s_last_incident_is_no_group_for_its_next() -> None:
    plant = Plant({"open_after": 1, "close_after_seconds": 20, "cool_down_seconds": 0})
    told = plant.feed([Row("pump-1", 0, 2), Row("pump-1", 20, 2)])
    assert said(told) == ["open", "close", "open"]
    assert told[2].group_id == told[2].incident_id != told[0].incident_id


def test_without_a_window_there_are_no_groups() -> None:
    told = Plant({"group_window_seconds": 0}).feed([*run("pump-1", 0, ANOMALIES), *run("pump-2", 0, ANOMALIES)])
    assert [incident.group_id for incident in told] == [incident.incident_id for incident in told]


def test_an_incident_goes_on_with_a_model_of_other_features() -> None:
    plant = Plant()
    plant.feed(run("pump-1", 0, ANOMALIES))
    other = Incidents(LIKELY, ("temperature", "voltage", "pressure"), critical_score=5.0)
    other.renumber(plant.states, plant.codes(0), FEATURES)
    (told,) = other.close(plant.states, plant.entities, "readings", plant.codes(0))
    assert told.state == "close"
    assert [(part.feature, part.share) for part in told.features] == [("pressure", 0.6), ("temperature", 0.3)]


def test_records_are_as_the_schema_and_cloudevents_say() -> None:
    plant = Plant({"open_after": 1, "update_seconds": 0})
    told = plant.feed([Row("pump-1", second, score) for second, score in ((0, 2), (1, 6), (61, 0), (62, 9), (63, 20))])
    told += [*plant.quiet(0, 70), *plant.quiet(0, 999)]
    assert said(told) == ["open", "update", "close", "open", "update", "close"]
    schema = msgspec.json.schema(Incident)
    messages = [incident_message("sensor-incidents", incident) for incident in told]
    for message, incident in zip(messages, told, strict=True):
        assert message.value is not None
        assert (message.topic, message.key) == ("sensor-incidents", b"pump-1")
        jsonschema.validate(json.loads(message.value), schema, format_checker=jsonschema.FormatChecker())
        assert msgspec.json.decode(message.value, type=Incident) == incident
        headers = dict(message.headers)
        assert headers["ce_type"] == b"io.zmu.incident.v1"
        assert headers["ce_source"] == b"kafka:readings/0"
        assert headers["ce_time"] == incident.updated_at.encode()
        assert headers["ce_specversion"] == b"1.0"
        assert headers["content-type"] == b"application/json"
    assert len({dict(message.headers)["ce_id"] for message in messages}) == len(messages)


def test_settings_under_which_nothing_could_open_are_refused() -> None:
    with pytest.raises(ValidationError, match="no incident could open"):
        IncidentSettings(open_after=4, open_within=3)
