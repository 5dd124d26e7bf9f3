"""The daemon's shell: what begins when."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import factory
from worker import daemon
from worker.daemon import Daemon
from worker.detection.detector import Detector
from worker.heartbeat import Heartbeat
from worker.models import reload
from worker.settings import HttpSettings, ModelSettings, Settings
from worker.watchdog import Watchdog


def test_a_first_model_that_loads_for_long_is_no_stuck_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    factory.publish(tmp_path)
    settings = Settings(
        model=ModelSettings(registry=str(tmp_path)), http=HttpSettings(host="127.0.0.1", port=0)
    )
    now, seen = 0.0, []
    worker = Daemon(settings)
    worker._heartbeat = Heartbeat(10, lambda: now)

    class Slow(Detector):
        def __init__(self, *args: object, **named: object) -> None:
            nonlocal now
            super().__init__(*args, **named)  # type: ignore[arg-type]
            now += 100
            seen.append("loaded")

    class Noted(Watchdog):
        def __init__(self, heartbeat: Heartbeat) -> None:
            seen.append(heartbeat.fault or "watched")
            worker._stop.set()                  # no broker is needed for this
            super().__init__(heartbeat, end=lambda: seen.append("ended"))

    monkeypatch.setattr(reload, "Detector", Slow)
    monkeypatch.setattr(daemon, "Watchdog", Noted)
    assert worker.run(until_drained=True) == 0
    assert seen == ["loaded", "watched"]
