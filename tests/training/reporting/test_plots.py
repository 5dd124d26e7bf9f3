"""The report's pictures say in plain text what they show."""

from __future__ import annotations

import base64
import re

import numpy as np

from training.reporting import plots
from worker.models.artifact import Losses


def texts(uri: str) -> list[str]:
    svg = base64.b64decode(uri.removeprefix("data:image/svg+xml;base64,")).decode()
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def test_powers_of_ten_are_numbers() -> None:
    score_H = np.geomspace(1e-3, 200, 5000)
    shown = texts(plots.scores(score_H))
    assert {"0.01", "1", "100", "threshold", "anomaly score"} <= set(shown)
    assert not [text for text in shown if "$" in text or "\\" in text]


def test_a_share_beyond_the_axis_is_told() -> None:
    shown = texts(plots.feature_errors(["$x$", "flow"], np.array([24.0, 0.2]), np.array([2.0, 1.0])))
    assert "12" in shown
    assert {"$x$", "flow"} <= set(shown)
    assert "0.2" in shown                               # of the axis


def test_the_same_looks_give_the_same_bytes() -> None:
    figures = ((1.0, 3.0, 2.0, 3.1, 2.1, 5.2), (2.0, 2.0, 2.5, 2.4, 2.6, 5.0))
    looks = [Losses(**dict(zip(Losses.model_fields, each, strict=True))) for each in figures]
    first = plots.losses(looks, 1)
    assert first == plots.losses(looks, 1)
    assert texts(first).count("held out") == 1
