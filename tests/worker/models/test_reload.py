"""From one version to the next: what is kept, what goes, and a look in the midst of it."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from pathlib import Path

import pytest

from tests import factory
from tests.worker.models.service import Service
from worker.detection.detector import Detector, Observer
from worker.errors import RegistryError
from worker.models import reload, shadow_time
from worker.models.guard import BLOCK, Guard
from worker.models.reload import Champion, Models
from worker.models.shadow import Shadow


def promote(service: Service, folder: Path, version: str) -> weakref.ref[Detector]:
    """Makes it serve, and takes its first batch."""
    factory.publish(folder, version)
    service.models.look()
    service.turn(1)
    assert service.models.current.version == version
    return weakref.ref(service.models.current.detector)


def guards(detector: Detector) -> int:
    return sum(isinstance(observer, Guard) for observer in detector.observers)


def test_a_version_goes_when_no_guard_needs_it_any_more(tmp_path: Path) -> None:
    service = Service(factory.publish(tmp_path), guard_readings=100 * BLOCK)
    first = weakref.ref(service.models.current.detector)
    second = promote(service, tmp_path, "v2")
    gc.collect()
    assert first() is not None                  # the guard still asks it
    third = promote(service, tmp_path, "v3")
    gc.collect()
    assert [version() is not None for version in (first, second, third)] == [False, True, True]


def test_a_guard_that_has_finished_lets_go_and_is_taken_away(tmp_path: Path) -> None:
    service = Service(factory.publish(tmp_path), guard_readings=2 * BLOCK)
    first = weakref.ref(service.models.current.detector)
    promote(service, tmp_path, "v2")
    gc.collect()
    assert first() is not None
    service.turn(2)
    gc.collect()
    assert first() is None
    service.models.look()
    assert guards(service.models.current.detector) == 0


class Looked(Models):
    """Its other thread looks at the very moment in which a newer version comes to serve."""

    held: Champion | None = None
    looker: threading.Thread | None = None
    guarded: bool | None = None

    @property
    def _current(self) -> Champion | None:
        return self.held

    @_current.setter
    def _current(self, champion: Champion | None) -> None:
        if champion is not None and self.held is not None:
            self.guarded = guards(champion.detector) == 1
            self.looker = threading.Thread(target=self.look)
            self.looker.start()
            self.looker.join(0.5)               # as long as it wants, or until it has to wait for this one
        self.held = champion


@pytest.mark.parametrize("shadow", [None, "challenger"])
def test_a_look_while_a_version_is_taken(tmp_path: Path, shadow: str | None) -> None:
    registry = factory.publish(tmp_path)
    factory.publish(tmp_path, "v3", champion=False)
    registry.point("challenger", "v3")
    service = Service(registry, Looked, shadow=shadow)
    service.models.look()
    before = service.models.current.detector
    factory.publish(tmp_path, "v2")
    service.models.look()
    assert service.models.take()
    assert isinstance(service.models, Looked)
    assert service.models.looker is not None
    service.models.looker.join(30)
    assert service.models.guarded               # before anybody saw it serve
    assert not service.models.take()            # it was not loaded once more

    def lookers(detector: Detector) -> list[type[Observer]]:
        return [type(observer) for observer in detector.observers if isinstance(observer, Guard | Shadow)]

    assert lookers(before) == []
    assert lookers(service.models.current.detector) == [Guard, Shadow][: 1 + bool(shadow)]


def test_how_long_a_version_was_in_the_shadow_is_told_in_the_registry(tmp_path: Path) -> None:
    registry = factory.publish(tmp_path)
    factory.publish(tmp_path, "v2", champion=False)
    registry.point("challenger", "v2")
    service = Service(registry, shadow="challenger")
    assert shadow_time.of(registry, "v2") == (0, 0, 0, 0)
    service.models.look()
    service.turn(1)
    time.sleep(0.05)
    service.turn(2, faulty=0.5)
    service.models.close()
    seen = shadow_time.of(registry, "v2")
    assert seen.readings == 2 * BLOCK
    assert seen.alarms == service.sample("shadow_anomalies_total", model_version="v2") > 0
    assert seen.alike == service.sample("shadow_agreements_total", model_version="v2")
    assert 0.05 <= seen.seconds < 30
    assert registry.versions() == ["v1", "v2"]                      # what was noted is no version


def test_stretches_of_several_workers_count_the_time_once(tmp_path: Path) -> None:
    registry = factory.publish(tmp_path)
    told = [(0, 3_600_000), (1_800_000, 5_400_000), (2_000_000, 3_000_000), (9_000_000, 9_600_000)]
    for number, (since, until) in enumerate(told):
        stretch = shadow_time.Stretch("v1", f"worker-{number}", shadow_time.Told(since, until, 10, 1, 9))
        stretch.note(registry)
        stretch.note(registry)                                      # once more: it takes the place of the first
    registry.note("v1", "torn", b"{")
    assert shadow_time.of(registry, "v1") == (6000.0, 40, 4, 36)


def test_no_right_to_write_costs_the_time_in_the_shadow_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = factory.publish(tmp_path)
    factory.publish(tmp_path, "v2", champion=False)
    registry.point("challenger", "v2")
    service = Service(registry, shadow="challenger")

    def refuses(*_: object) -> None:
        raise RegistryError("read-only")

    monkeypatch.setattr(registry, "note", refuses)
    monkeypatch.setattr(reload, "NOTE_SECONDS", 0.0)
    for seed in range(3):
        service.models.look()
        assert len(service.turn(seed).anomaly_score_B) == BLOCK
    assert service.sample("errors_total", stage="shadow", type="RegistryError") == 1    # said once
