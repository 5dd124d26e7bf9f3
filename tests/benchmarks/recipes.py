"""What is compared in docs/detection.md: trainings by their settings, and one training's version treated otherwise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from worker.models.artifact import Manifest

Settings = Mapping[str, Any]


class Recipe(NamedTuple):
    """`training` says what is set, given the number of features. `after` changes the version before it is calibrated.

    Recipes that differ in `after` alone share their weights.
    """

    name: str
    training: Callable[[int], Settings]
    after: Callable[[Manifest], Mapping[str, Any]] | None = None


def _set(name: str, **training: Any) -> Recipe:
    return Recipe(name, lambda _: training)


def _textbook(features: int) -> Settings:
    """[0, 1], sigmoid, one reading, mean squared error + 1·KL. Times F, the mean is the sum and the weight is F."""
    return {"profile": "pointwise", "objective": {"kl_weight": float(features), "feature_weights": "equal"}}


def _chart(**changes: Any) -> Callable[[Manifest], Mapping[str, Any]]:
    return lambda m: {"chart": m.chart.model_copy(update=changes) if m.chart else None}


def _alarm(**changes: Any) -> Callable[[Manifest], Mapping[str, Any]]:
    return lambda m: {"alarm": m.alarm.model_copy(update=changes) if m.alarm else None}


def _defaults(_: int) -> Settings:
    return {}


# The most telling first: a run that is stopped has them.
RECIPES: tuple[Recipe, ...] = (
    Recipe("defaults", _defaults),
    _set("defaults, another seed", seed=2),     # how much is chance
    _set("z-chart, same after-treatment", kind="zchart"),
    _set("PCA, same after-treatment", kind="pca"),
    Recipe("no chart: each reading's own error", _defaults, lambda _: {"chart": None, "mean_scale": ()}),
    Recipe("chart without baseline", _defaults, _chart(baseline_weight=0.0)),
    Recipe("chart without spikes", _defaults, _chart(spikes=False)),
    Recipe("chart without lasting shifts", _defaults, _chart(slow_share=0.0)),
    Recipe("threshold fixed", _defaults, _alarm(rate=0.0)),
    Recipe("no alarm memory: over the threshold or not", _defaults, lambda _: {"alarm": None}),
    _set("profile pointwise", profile="pointwise"),
    Recipe("textbook: pointwise, mean error + 1·KL", _textbook),
    _set("profile machinery for all", profile="machinery"),
    _set("profile servers for all", profile="servers"),
    _set("kl_weight 0.1", objective={"kl_weight": 0.1}),
    _set("kl_weight 1", objective={"kl_weight": 1.0}),
    _set("window 1", window=1),
    _set("window 10", window=10),
    _set("window 20", window=20),
    _set("window 40", window=40),
    _set("family mixture", family="mixture"),
    _set("family flow", family="flow"),
    _set("family categorical", family="categorical"),
    _set("family bernoulli", family="bernoulli"),
    _set("sigma shared, kl_weight 1", objective={"sigma": "shared", "kl_weight": 1.0}),
    _set("free_bits 0.1", objective={"free_bits": 0.1}),
)
