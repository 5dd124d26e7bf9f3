"""Figures of detection: small cases by hand, and the definition written out row by row."""

from __future__ import annotations

import math

import numpy as np
import pytest

from training.evaluation.detection_metrics import Confusion, Events, volume_under_pr

HALF = math.sqrt(0.5)                   # degree of a row beside an event, in a buffer of width 2


def labels(text: str) -> np.ndarray:
    """`.` normal, `x` anomalous."""
    return np.array([mark == "x" for mark in text])


def test_counts_and_rates_by_hand() -> None:
    confusion = Confusion.of(labels(".xx.x..."), labels("xx..x..."))
    assert confusion == (2, 1, 1, 4)
    assert confusion.f1 == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert confusion.false_alarm_rate == pytest.approx(1 / 5)
    assert confusion.missed_rate == pytest.approx(1 / 3)
    assert confusion.always_on == (3, 5, 0, 0)
    assert Confusion.pooled([confusion, Confusion(10, 0, 0, 5)]) == (12, 1, 1, 9)


def test_rates_of_nothing_are_no_numbers() -> None:
    assert math.isnan(Confusion.of(labels("xx"), labels("x.")).false_alarm_rate)
    calm = Confusion.of(labels(".."), labels(".."))
    assert math.isnan(calm.f1)
    assert math.isnan(calm.missed_rate)


def test_events_at_the_ends_and_delays_of_those_found() -> None:
    events = Events.of(labels("xx..x.xxx"))
    assert len(events) == 3
    assert events.first_V.tolist() == [0, 4, 6]
    assert events.last_V.tolist() == [1, 4, 8]
    #                           the last event is found at its third row; an alarm between events is none of theirs
    assert events.delays(labels(".xx..x..x")) == [1, 2]
    assert events.delays(labels(".........")) == []
    assert Events.of(labels("....")).delays(labels("xxxx")) == []


def test_volume_without_a_buffer_is_the_area_under_precision_and_recall() -> None:
    score_N = np.array([0.9, 0.8, 0.1, 0.2])
    # Alarms at 0.9: recall 0. At 0.8: recall 1/2, precision 1/2. At 0.2: recall 1/2. At 0.1: recall 1, precision 1/2.
    assert volume_under_pr(score_N, labels(".xx."), window=0) == pytest.approx(0.5 * 0.5 + 0.5 * 0.5)
    assert volume_under_pr(np.array([0.1, 0.9, 0.8, 0.2]), labels(".xx."), window=0) == pytest.approx(1.0)


def test_volume_with_a_buffer_by_hand() -> None:
    # Widths 0 and 1 reach no row beside the event; width 2 reaches one on either side, to the degree √½.
    soft, hard = np.array([HALF, HALF, 2 * HALF, 2 * HALF]), np.array([0, 1, 1, 2])
    recall = np.minimum((soft + hard) / (2 + soft / 2), 1)
    precision = (soft + hard) / np.array([1, 2, 3, 4])
    area = np.sum(np.diff(np.r_[0, recall]) * precision)
    found = volume_under_pr(np.array([0.9, 0.8, 0.1, 0.2]), labels(".xx."), window=2)
    assert found == pytest.approx((0.5 + 0.5 + area) / 3, abs=1e-12)
    assert found == pytest.approx(0.60048, abs=1e-5)


def test_events_whose_buffers_meet_are_one() -> None:
    """Width 2: the buffers of two events with two rows between touch no common row; with one row between, they do."""
    apart, met = labels(".x..x."), labels(".x.x..")
    first_only = np.array([0.0, 1.0, 0.0, 0.0, 0.0, 0.0])

    def recall_at_the_top(label_N: np.ndarray) -> float:
        """One alarm in the first event: precision 1, so that the area up to it is the recall."""
        rest = volume_under_pr(first_only, label_N, window=2, thresholds=1)
        return rest * 3                                     # over widths 0, 1 and 2

    half_found = 1 / 2 * 1 / 2                              # half of the rows, in half of the events
    assert recall_at_the_top(apart) == pytest.approx(3 * half_found)
    assert recall_at_the_top(met) == pytest.approx(2 * half_found + 1 / 2)


@pytest.mark.parametrize("text", ["....", "xxxx"])
def test_volume_of_rows_all_alike_is_no_number(text: str) -> None:
    assert math.isnan(volume_under_pr(np.arange(4.0), labels(text)))


def test_volume_depends_on_the_order_of_scores_only() -> None:
    rng = np.random.default_rng(3)
    score_N, label_N = rng.normal(size=900), np.repeat(rng.random(45) < 0.2, 20)
    assert volume_under_pr(np.exp(3 * score_N) + 7, label_N) == volume_under_pr(score_N, label_N)


@pytest.mark.parametrize("seed", range(12))
def test_volume_as_the_definition_says_it(seed: int) -> None:
    """Many events, some at the ends, buffers that overlap, and scores with ties."""
    rng = np.random.default_rng(seed)
    rows = int(rng.integers(20, 120))
    label_N = rng.random(rows) < rng.uniform(0.05, 0.4)
    label_N[0], label_N[5] = seed % 2 == 0, False
    score_N = np.round(rng.random(rows) + 0.3 * label_N, seed % 3 + 1)
    assert volume_under_pr(score_N, label_N, window=20, thresholds=15) == pytest.approx(
        by_definition(score_N, label_N, 20, 15), abs=1e-12
    )


def by_definition(score_N: np.ndarray, label_N: np.ndarray, window: int, thresholds: int) -> float:
    rows = len(score_N)
    events = [(int(a), int(b)) for a, b in zip(Events.of(label_N).first_V, Events.of(label_N).last_V, strict=True)]
    descending = sorted(score_N.tolist(), reverse=True)
    ranks = [int(rank) for rank in np.linspace(0, rows - 1, thresholds)]
    total = 0.0
    for width in range(window + 1):
        degree = [1.0 if label else 0.0 for label in label_N]
        for row in range(rows):
            if not label_N[row]:
                distances = [max(first - row, row - last) for first, last in events]
                reached = [math.sqrt(1 - d / width) for d in distances if d <= width // 2]
                degree[row] = min(1.0, sum(reached))
        spans: list[list[int]] = []
        for first, last in events:
            start, stop = max(first - width // 2, 0), min(last + width // 2, rows - 1)
            if spans and start <= spans[-1][1]:
                spans[-1][1] = stop
            else:
                spans.append([start, stop])
        before = 0.0
        for rank in ranks:
            alarm = [score >= descending[rank] for score in score_N]
            found = sum(d for d, a in zip(degree, alarm, strict=True) if a)
            hard = sum(1 for label, a in zip(label_N, alarm, strict=True) if a and label)
            touched = sum(any(alarm[start : stop + 1]) for start, stop in spans) / len(spans)
            recall = min(found / ((label_N.sum() + label_N.sum() + found - hard) / 2), 1.0) * touched
            total += (recall - before) * found / sum(alarm)
            before = recall
    return total / (window + 1)
