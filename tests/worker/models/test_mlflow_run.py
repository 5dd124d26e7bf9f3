"""What MLflow is told of a version, and what of MLflow's registry needs no server to be seen."""

from __future__ import annotations

import base64
import json
import socket
from pathlib import Path

import pytest

from tests import factory
from worker.errors import RegistryError
from worker.models import artifact, mlflow_run
from worker.models.artifact import GateResult, Losses
from worker.models.mlflow_registry import MlflowRegistry
from worker.models.mlflow_run import Figure
from worker.models.registry import Registry, opened


def test_parameters_and_figures_of_a_manifest(tmp_path: Path) -> None:
    settings = {"epochs": 4, "hidden": [8, 8], "start": None, "objective": {"kl_weight": 0.1}}
    record = artifact.TrainingRecord(rows=100, seed=1, settings=settings)
    looks = tuple(
        Losses(epoch=at, train_reconstruction=1, train_kl=2, held_reconstruction=3, held_kl=4, held_total=5 / at)
        for at in (1.0, 2.4)
    )
    gates = (
        GateResult(name="finite", value=None, bound="all numbers", passed=True),
        GateResult(name="alert_rate", value=0.5, bound="≤ 0.02", passed=False),
    )
    registry = factory.publish(
        tmp_path, training=record, losses=looks, gates=gates, figures={"error.°C/min": 0.25, "held_loss": 2.0}
    )
    told = json.loads(registry.read("v1", "manifest.json"))
    params = mlflow_run.params(told)
    assert params["settings.epochs"] == "4"
    assert params["settings.hidden"] == "8, 8"
    assert params["settings.objective.kl_weight"] == "0.1"
    assert "settings.start" not in params
    assert params["shape.window"] == "1"
    figures = list(mlflow_run.figures(told))
    assert figures[:3] == [Figure("error._C_min", 0.25), Figure("held_loss", 2.0), Figure("threshold", 4.0)]
    assert [f for f in figures if f.name.startswith("gate.")] == [
        Figure("gate.finite.passed", 1.0), Figure("gate.alert_rate", 0.5), Figure("gate.alert_rate.passed", 0.0)
    ]
    assert [f for f in figures if f.name == "loss.held_total"] == [
        Figure("loss.held_total", 5.0, 1), Figure("loss.held_total", 5 / 2.4, 2)
    ]


def test_pictures_of_a_report_are_files() -> None:
    page = "".join(
        f'<img src="data:image/svg+xml;base64,{base64.b64encode(svg).decode()}" alt="{said}">'
        for said, svg in (("Error by feature", b"<svg>1"), ("A reading", b"<svg>2"), ("A reading", b"<svg>3"))
    )
    assert mlflow_run.pictures(page.encode()) == {
        "error-by-feature.svg": b"<svg>1", "a-reading.svg": b"<svg>2", "a-reading-2.svg": b"<svg>3"
    }


def test_nothing_of_a_store_is_left_in_mlflows_registry() -> None:
    """place is of the URL and the name alone; every other call is answered anew."""
    calls = {name for name in vars(Registry) if not name.startswith("_")} - {"place"}
    assert calls - vars(MlflowRegistry).keys() == set()


def test_the_url_says_which_registry_it_is(tmp_path: Path) -> None:
    pytest.importorskip("mlflow", reason="needs the extra mlflow")
    assert type(opened(str(tmp_path), "m")) is Registry
    assert type(opened("memory://models", "m")) is Registry
    assert type(opened("mlflow+https://plant.example:5000", "m")) is MlflowRegistry


@pytest.mark.parametrize("url", ["mlflow+https://me:secret@host", "mlflow+http://", "mlflow+http://host?token=secret"])
def test_a_password_has_no_place_in_the_url(url: str) -> None:
    with pytest.raises(RegistryError, match="MLFLOW_TRACKING_PASSWORD") as refused:
        opened(url, "m")
    assert "secret" not in str(refused.value)


def test_a_server_that_is_not_there_is_named() -> None:
    pytest.importorskip("mlflow", reason="needs the extra mlflow")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))        # and nobody listens
        url = f"mlflow+http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(RegistryError) as refused:
            opened(url, "m").writable()
    assert f"registry {url}/m: cannot write (Connection refused); see that" in str(refused.value)
