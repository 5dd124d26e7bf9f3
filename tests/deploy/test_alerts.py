"""The alerts fire when they must and not otherwise, ask for what exists, and lead to a page that says what to do."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.promql import DEPLOY, RULES, SCRAPE_LABELS, Alert, alerts, grouped, rules, selectors, served
from tests.documents import ROOT, blocks

UNIT_TESTS = sorted((Path(__file__).parent / "alerts").glob("*.yml"))
each_alert = pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert.name)


def tool(name: str, package: str) -> str:
    if shutil.which(name) is None:
        pytest.skip(f"{name} (Debian's package {package}) is not installed")
    return name


def done(*command: str) -> None:
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def cases() -> list[dict[str, Any]]:
    """What the unit tests expect: an expression of ALERTS and its samples."""
    return [
        case
        for path in UNIT_TESTS
        for test in yaml.safe_load(path.read_text())["tests"]
        for case in test["promql_expr_test"]
    ]


def sections() -> dict[str, str]:
    """Text by heading of the runbook's parts."""
    parts = re.split(r"^## (.+)$", (ROOT / "docs/runbook.md").read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_promtool_accepts_the_rules() -> None:
    done(tool("promtool", "prometheus"), "check", "rules", *map(str, sorted(RULES.glob("*.yml"))))


@pytest.mark.parametrize("path", UNIT_TESTS, ids=lambda path: path.stem)
def test_alerts_fire_when_they_must(path: Path) -> None:
    done(tool("promtool", "prometheus"), "test", "rules", str(path))


@each_alert
def test_an_alert_is_tried_firing_and_quiet(alert: Alert) -> None:
    """Where a test expects no alert at all, or none of this name, it must load the alert's rules to count."""
    fires = [sample["labels"] for case in cases() for sample in case["exp_samples"]]
    assert any(f'alertname="{alert.name}"' in labels for labels in fires), "no unit test has it fire"
    quiet = [
        case["expr"]
        for path in UNIT_TESTS
        for loaded in [yaml.safe_load(path.read_text())]
        if any(name.endswith(f"/{alert.file}") for name in loaded["rule_files"])
        for test in loaded["tests"]
        for case in test["promql_expr_test"]
        if not case["exp_samples"] and ("alertname" not in case["expr"] or alert.name in case["expr"])
    ]
    assert quiet, "no unit test has it quiet"


@each_alert
def test_an_alert_says_what_is_wrong_and_what_to_do(alert: Alert) -> None:
    assert alert.annotations.keys() == {"summary", "description", "runbook_url"}
    assert alert.labels["severity"] in ("page", "ticket")
    page, _, anchor = alert.annotations["runbook_url"].partition("#")
    assert page == "docs/runbook.md"
    assert anchor == alert.name.lower()
    section = sections()[alert.name]
    assert "**Look**" in section
    assert "**Do**" in section


def test_the_runbooks_command_makes_links_of_it(tmp_path: Path) -> None:
    (command,) = (b.text for b in blocks(ROOT / "docs/runbook.md") if b.language == "sh")
    copy = tmp_path / RULES.relative_to(ROOT)
    shutil.copytree(RULES, copy)
    subprocess.run(["bash", "-euc", command], cwd=tmp_path, check=True)
    links = re.findall(r"runbook_url: (\S+)", "".join(path.read_text() for path in copy.glob("*.yml")))
    assert len(links) == len(alerts())
    assert all(re.fullmatch(r"https://docs\.example\.com/zmu/runbook\.html#zmu\w+", link) for link in links)


def test_the_runbook_names_no_alert_that_is_none() -> None:
    assert {name for name in sections() if name.startswith("Zmu")} == {alert.name for alert in alerts()}


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.get("alert") or rule["record"])
def test_series_labels_and_their_values_exist(rule: dict[str, Any]) -> None:
    known = served()
    recorded = {other["record"] for other in rules() if "record" in other}
    read = list(selectors(rule["expr"]))
    named = set(re.findall(r"\bzmu:\w+(?::\w+)?", rule["expr"]))
    assert named <= recorded
    assert read or named or "up{" in rule["expr"]
    code = "".join(p.read_text() for folder in ("worker", "training") for p in (ROOT / folder).rglob("*.py"))
    for name, chosen in read:
        assert name in known, f"{name} is served by neither program"
        if name != "zmu_model_info":                 # its labels are the model's facts, set when one is loaded
            assert chosen.keys() <= known[name] | SCRAPE_LABELS, name
        for label in chosen.keys() & {"stage", "result", "kind"}:
            assert f'"{chosen[label]}"' in code, f"{label} is never {chosen[label]}"
    possible = SCRAPE_LABELS | set().union(*(known[name] for name, _ in read))
    possible |= {"name", "version"} if any(name == "zmu_model_info" for name, _ in read) else set()
    assert grouped(rule["expr"]) <= possible


def test_the_latency_objective_is_an_edge_of_the_histogram() -> None:
    from worker.metrics import Metrics

    metrics = Metrics()
    edges = {
        sample.labels["le"]
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == "zmu_end_to_end_latency_seconds_bucket"
    }
    asked = {chosen["le"] for rule in rules() for _, chosen in selectors(rule["expr"]) if "le" in chosen}
    assert asked
    assert asked <= edges


def test_alertmanagers_example_routes_pages_apart() -> None:
    example = DEPLOY / "prometheus" / "alertmanager.yml"
    document = yaml.safe_load(example.read_text())
    names = {alert.name for alert in alerts()}
    for rule in document["inhibit_rules"]:
        for matcher in [*rule["source_matchers"], *rule["target_matchers"]]:
            pattern = re.search(r'"(.*)"', matcher)
            assert pattern
            assert any(re.fullmatch(pattern[1], name) for name in names), f"no alert is {pattern[1]}"
    amtool = tool("amtool", "prometheus-alertmanager")
    done(amtool, "check-config", str(example))
    for severity, receiver in ("page", "pages"), ("ticket", "tickets"):
        routed = subprocess.run(
            [amtool, "config", "routes", "test", f"--config.file={example}", f"severity={severity}"],
            capture_output=True, text=True, check=True,
        )
        assert routed.stdout.strip() == receiver


def test_alertmanager_takes_the_receivers_that_the_example_suggests(tmp_path: Path) -> None:
    filled = re.sub(r"^    # ", "    ", (DEPLOY / "prometheus" / "alertmanager.yml").read_text(), flags=re.MULTILINE)
    assert {"pagerduty_configs", "slack_configs"} <= {k for r in yaml.safe_load(filled)["receivers"] for k in r}
    (tmp_path / "alertmanager.yml").write_text(filled)
    done(tool("amtool", "prometheus-alertmanager"), "check-config", str(tmp_path / "alertmanager.yml"))
