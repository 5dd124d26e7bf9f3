"""House rules that a reader of one file cannot see broken: who imports whom, what is described, what is named how."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

import training.settings
from tests.documents import registries, series
from worker.cli import variables
from worker.metrics import Metrics

ROOT = Path(__file__).parents[1]
LINES = 300
LONG: set[str] = set()              # files longer than that, each with a reason beside it

# Rooms of pure arithmetic.
PURE = ("worker/detection", "worker/incidents", "worker/faults")

# design.md: names that dashboards, alerts and scripts are written against. Kind and labels, without the prefix.
CONTRACT: dict[str, tuple[str, tuple[str, ...]]] = {
    "records_consumed_total": ("counter", ("topic", "partition")),
    "consumed_bytes_total": ("counter", ("topic",)),
    "records_scored_total": ("counter", ("model_version",)),
    "anomalies_total": ("counter", ("severity",)),
    "events_produced_total": ("counter", ("topic",)),
    "records_dead_lettered_total": ("counter", ("reason",)),
    "errors_total": ("counter", ("stage", "type")),
    "commits_total": ("counter", ("result",)),
    "transactions_total": ("counter", ("result",)),
    "rebalances_total": ("counter", ("kind",)),
    "model_reloads_total": ("counter", ("result",)),
    "batches_total": ("counter", ("reason",)),
    "stage_duration_seconds": ("histogram", ("stage",)),
    "batch_records": ("histogram", ()),
    "end_to_end_latency_seconds": ("histogram", ()),
    "anomaly_score": ("histogram", ("model_version",)),
    "consumer_lag_records": ("gauge", ("topic", "partition")),
    "consumer_time_lag_seconds": ("gauge", ("topic", "partition")),
    "last_record_processed_timestamp_seconds": ("gauge", ()),
    "last_poll_timestamp_seconds": ("gauge", ()),
    "inflight_records": ("gauge", ()),
    "assigned_partitions": ("gauge", ()),
    "entities_tracked": ("gauge", ()),
    "model_loaded_timestamp_seconds": ("gauge", ()),
    "threshold": ("gauge", ()),
    "drift_statistic": ("gauge", ("feature",)),
    "device_memory_bytes": ("gauge", ()),
    "build_info": ("info", ()),
    "model_info": ("info", ()),
    "training_last_success_timestamp_seconds": ("gauge", ()),
    "training_duration_seconds": ("gauge", ()),
    "training_validation_loss": ("gauge", ()),
    "training_runs_total": ("counter", ("result",)),
    "training_promotions_total": ("counter", ("result",)),
}


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> set[str]:
    """Modules that a file names in any import, also inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            found |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return found


def top(modules: set[str]) -> set[str]:
    return {module.split(".")[0] for module in modules}


def reached(start: str, graph: dict[str, set[str]]) -> set[str]:
    """Everything that importing a module of ours brings in, step by step."""
    seen: set[str] = set()
    ahead = [start]
    while ahead:
        module = ahead.pop()
        if module not in seen:
            seen.add(module)
            ahead += graph.get(module, ())
    return seen


def test_worker_never_imports_training() -> None:
    assert [name_of(p) for p in sources("worker") if "training" in top(imports(p))] == []


def test_neither_program_imports_what_lies_around_it() -> None:
    outside = {"deploy", "tests", "docs"}
    assert [name_of(p) for p in sources("worker", "training") if outside & top(imports(p))] == []


def test_only_the_ports_of_the_worker_import_kafka() -> None:
    found = {name_of(p) for p in sources("worker") if "kafka" in top(imports(p))}
    outside = {name for name in found if not name.startswith("worker.kafka.")}
    assert outside == {"worker.delivery.work"}     # its errors only


def test_training_reads_kafka_through_the_worker() -> None:
    assert {name_of(p) for p in sources("training") if "kafka" in top(imports(p))} == set()


@pytest.mark.parametrize("module", sorted(map(name_of, sources(*PURE))))
def test_arithmetic_reaches_neither_kafka_nor_prometheus(module: str) -> None:
    graph = {name_of(path): imports(path) for path in sources("worker")}
    assert module in graph
    assert top(reached(module, graph)).isdisjoint({"kafka", "prometheus_client", "socket", "http", "wsgiref"})


def test_the_packages_themselves_are_empty() -> None:
    assert [p for p in sources("worker", "training") if p.name == "__init__.py" and p.read_text().strip()] == []


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("training.__main__", ("worker.http", "wsgiref.simple_server", "worker.daemon")),
        ("worker.__main__", ("torch", "kafka", "matplotlib", "training")),
        ("worker.daemon", ("matplotlib", "training", "pandas", "scipy", "opentelemetry")),
    ],
)
def test_a_program_does_not_load_what_it_does_not_use(module: str, absent: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print(*sorted(set(sys.modules) & set({absent!r})))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""


def leaves(model: type[BaseModel]) -> Iterator[tuple[str, str, str]]:
    """Environment variable, type as text, description."""
    for variable, field in variables(model):
        yield variable, str(field.annotation), field.description or ""


def test_every_setting_is_described() -> None:
    assert [variable for variable, _, text in leaves(training.settings.Settings) if len(text) < 10] == []


UNITS = {"seconds": "_SECONDS", "milliseconds": "_MS", "bytes": "_BYTES", "minutes": "_MINUTES", "hours": "_HOURS"}


def test_a_setting_with_a_unit_has_it_in_its_name_and_in_its_text() -> None:
    wrong = []
    for variable, kind, text in leaves(training.settings.Settings):
        if "int" not in kind and "float" not in kind:
            continue
        said = {UNITS[word] for word in re.findall(r"[a-z]+", text.lower()) if word in UNITS}
        named = {ending for ending in UNITS.values() if variable.endswith(ending)}
        if said != named:
            wrong.append((variable, text))
    assert wrong == []


def test_the_metrics_of_the_contract_are_there() -> None:
    found = {
        s.name.removeprefix("zmu_"): (s.kind, s.labels)
        for registry in registries()
        for s in series(registry)
    }
    assert {name: found.get(name) for name in CONTRACT} == CONTRACT


def test_no_label_holds_what_the_data_choose() -> None:
    for registry in registries():
        for s in series(registry):
            assert {"entity", "sensor", "key", "message"}.isdisjoint(s.labels), s.name


def test_a_score_of_exactly_1_ends_a_bucket() -> None:
    (score,) = (s for s in series(Metrics().registry) if s.name == "zmu_anomaly_score")
    assert 1.0 in score.buckets


def test_no_file_is_long() -> None:
    files = sources("worker", "training", "deploy", "tests", "docs")
    lines = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in files}
    assert {name for name, number in lines.items() if number > LINES} == LONG


def test_no_file_is_a_drawer() -> None:
    drawers = {"utils", "util", "helpers", "common", "misc", "manager"}
    assert [p for p in sources("worker", "training", "deploy", "tests") if p.stem in drawers] == []
