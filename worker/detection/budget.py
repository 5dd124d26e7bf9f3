"""How many alarms an operator puts up with, as the share of readings that the threshold is set by."""

from __future__ import annotations

from worker.errors import SettingsError
from worker.models.artifact import Manifest
from worker.settings import ModelSettings

DAY_SECONDS = 86_400
MOST = 0.49                             # of readings; a budget beyond it is none


def target_rate(settings: ModelSettings, manifest: Manifest) -> float | None:
    """Share of normal readings that may be in alarm; None: as trained. Raises SettingsError.

    An alarm lasts some readings, as many as those of held-out readings did.
    """
    if settings.alerts_per_day is None:
        return settings.target_rate
    if manifest.period_seconds is None:
        raise SettingsError(
            f"ZMU_MODEL__ALERTS_PER_DAY is {settings.alerts_per_day:g}, but version {manifest.version} was trained on "
            "readings without timestamps, so nobody knows how many make a day; set ZMU_MODEL__TARGET_RATE instead"
        )
    entities = max(len(manifest.entities), 1) if settings.alerts_per == "all" else 1
    readings_per_day = DAY_SECONDS / manifest.period_seconds * entities
    return min(settings.alerts_per_day * manifest.calibration.alarm_rows / readings_per_day, MOST)
