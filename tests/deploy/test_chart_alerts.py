"""The chart's PrometheusRule: this project's alerts with its addresses and times, and those on the CronJob's runs."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.chart import CHART, kinds, named
from tests.deploy.promql import rules
from training.schedule import cron

DAY = 86400
pytestmark = pytest.mark.skipif(shutil.which("helm") is None, reason="helm is not installed")


def groups(*arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = kinds(named("production"), *arguments)["PrometheusRule"]["spec"]["groups"]
    return found


def promtool(*arguments: str) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool (Debian's package prometheus) is not installed")
    ran = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_rules_are_those_of_this_project() -> None:
    names = [rule.get("alert") or rule["record"] for group in groups() for rule in group["rules"]]
    ours = [rule.get("alert") or rule["record"] for rule in rules()]
    assert names[: len(ours)] == ours
    assert set(names[len(ours) :]) == {"ZmuTrainingFailing", "ZmuTrainingOverdue"}      # of the CronJob


def test_alerts_link_to_where_the_runbook_is_served() -> None:
    links = {rule["annotations"]["runbook_url"] for group in groups() for rule in group["rules"] if "alert" in rule}
    assert all(link.startswith("https://docs.example.com/zmu/runbook.html#zmu") for link in links)


def test_promtool_accepts_the_rules(tmp_path: Path) -> None:
    file = tmp_path / "rules.json"
    file.write_text(json.dumps({"groups": groups()}))
    promtool("check", "rules", str(file))


def test_a_training_is_overdue_after_two_of_the_schedules_intervals() -> None:
    """The default of either: who changes the one reads of the other beside it."""
    default = yaml.safe_load((CHART / "values.yaml").read_text())["training"]
    following = cron(default["schedule"])
    first = following(0, 0)
    assert default["overdueSeconds"] == 2 * (following(0, first) - first)


def test_the_time_given_is_that_of_every_alert_on_trainings() -> None:
    """Also of those on `zmu-training schedule`, which may run elsewhere."""

    def expressions(alert: str) -> list[str]:
        return [rule["expr"] for group in groups() for rule in group["rules"] if rule.get("alert") == alert]

    elsewhere, by_cronjob = expressions("ZmuTrainingOverdue")
    _, failing = expressions("ZmuTrainingFailing")
    assert elsewhere.count("> 172800") == 2
    assert "offset 172800s" in elsewhere
    assert by_cronjob.endswith("> 172800")
    assert "< 172800" in failing


def test_alerts_on_the_cronjob_fire_when_they_must(tmp_path: Path) -> None:
    """By the series of kube-state-metrics, which has three of a failed job: one for each condition it may be in."""
    jobs = [group for group in groups("--namespace", "plant") if group["name"] == "zmu-training-jobs"]
    (tmp_path / "rules.json").write_text(json.dumps({"groups": jobs}))
    (tmp_path / "tests.json").write_text(
        json.dumps({"rule_files": ["rules.json"], "evaluation_interval": "10m", "tests": [_retried(), _failed()]})
    )
    promtool("test", "rules", str(tmp_path / "tests.json"))


def _series(name: str, values: str, **labels: str) -> dict[str, str]:
    chosen = {"namespace": "plant", **labels}
    return {"series": name + "{" + ",".join(f'{k}="{v}"' for k, v in chosen.items()) + "}", "values": values}


def _expected(at: str, *names: str) -> dict[str, Any]:
    samples = [
        {"labels": f'ALERTS{{alertname="{name}",alertstate="firing",severity="ticket",{labels}}}', "value": 1}
        for name, labels in (
            ("ZmuTrainingFailing", 'namespace="plant"'),
            ("ZmuTrainingOverdue", 'namespace="plant",cronjob="plant-zmu-training"'),
        )
        if name in names
    ]
    return {"expr": 'ALERTS{alertstate="firing"}', "eval_time": at, "exp_samples": samples}


def _retried() -> dict[str, Any]:
    """A job whose second pod succeeded, and successes a day apart."""
    return {
        "interval": "5m",
        "input_series": [
            _series("kube_job_status_failed", "1x1200", job_name="plant-zmu-training-1", reason=""),
            _series("kube_job_status_start_time", "0x1200", job_name="plant-zmu-training-1"),
            _series("kube_cronjob_created", "0x1200", cronjob="plant-zmu-training"),
            _series("kube_cronjob_status_last_successful_time", f"0x288 {DAY}x900", cronjob="plant-zmu-training"),
        ],
        "promql_expr_test": [_expected("1h"), _expected("71h"), _expected("73h", "ZmuTrainingOverdue")],
    }


def _failed() -> dict[str, Any]:
    """Never a success. Another's failed job is none of ours."""
    return {
        "interval": "5m",
        "input_series": [
            *(
                _series("kube_job_failed", f"_x12 {int(condition == 'true')}x1200", job_name=job, condition=condition)
                for condition in ("true", "false", "unknown")
                for job in ("plant-zmu-training-1", "another-1")
            ),
            _series("kube_job_status_start_time", "3600x1200", job_name="plant-zmu-training-1"),
            _series("kube_job_status_start_time", "190000x1200", job_name="another-1"),
            _series("kube_cronjob_created", "0x1200", cronjob="plant-zmu-training"),
        ],
        "promql_expr_test": [
            _expected("1h"),
            _expected("3h", "ZmuTrainingFailing"),
            _expected("47h", "ZmuTrainingFailing"),
            _expected("52h", "ZmuTrainingOverdue"),
        ],
    }
