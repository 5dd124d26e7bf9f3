"""Settings of delivery that do not go together."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from worker.settings import InputSettings, KafkaSettings, OutputSettings, Settings


def test_exactly_once_reads_committed_records_only() -> None:
    output = OutputSettings(delivery="exactly-once")
    assert Settings(output=output).input.isolation_level == "read_committed"
    with pytest.raises(ValidationError, match="ZMU_INPUT__ISOLATION_LEVEL=read_committed"):
        Settings(output=output, input=InputSettings(isolation_level="read_uncommitted"))


def test_the_watchdog_waits_for_kafka_s_calls() -> None:
    slow = KafkaSettings(request_timeout_ms=60_000)
    with pytest.raises(ValidationError, match=r"ZMU_WATCHDOG_SECONDS=120 .* set it to 190 or more"):
        Settings(kafka=slow)
    assert Settings(kafka=slow, watchdog_seconds=190).watchdog_seconds == 190
