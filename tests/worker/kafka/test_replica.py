"""Whose transactions are whose."""

from __future__ import annotations

import pytest

from worker.kafka.replica import transactional_id


def test_what_the_operator_says_counts() -> None:
    assert transactional_id("g", "mine", "zmu-worker-0", in_kubernetes=True) == "mine"


def test_a_pod_of_a_stateful_set_keeps_its_name() -> None:
    assert transactional_id("g", None, "zmu-worker-0", in_kubernetes=True) == "g-zmu-worker-0"
    assert transactional_id("g", None, "zmu-worker-12", in_kubernetes=True) == "g-zmu-worker-12"


@pytest.mark.parametrize(
    ("host", "in_kubernetes"), [("zmu-worker-7d9f8b6c5d-x2x4z", True), ("worker", True), ("station-3", False)]
)
def test_elsewhere_it_is_unique(host: str, in_kubernetes: bool) -> None:
    drawn = {transactional_id("g", None, host, in_kubernetes) for _ in range(100)}
    assert len(drawn) == 100
    assert all(name.startswith("g-") for name in drawn)
