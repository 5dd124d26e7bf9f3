"""The documents say what the code does: pages made from it are up to date, names in them exist."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
from pathlib import Path
from uuid import UUID

import jsonschema
import pytest

import training.settings
from tests.documents import PAGES, README, ROOT, Block, blocks, made, registries, series, table
from tests.factory import records
from worker.cli import variables
from worker.codec.events import dead_letter
from worker.kafka import damage
from worker.metrics import Metrics
from worker.records import REASONS, Refusal, event_id

DOCS = ROOT / "docs"


@pytest.mark.parametrize("page", made)
def test_a_page_made_from_the_code_is_up_to_date(page: str) -> None:
    assert (DOCS / page).read_text() == made[page](), "run: python docs/make.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if not target.startswith("https://"):
            assert (page.parent / target.split("#")[0]).exists(), target


def test_named_settings_exist() -> None:
    known = {name for name, _ in variables(training.settings.Settings)}
    sections = {name.rsplit("__", 1)[0] for name in known if "__" in name}
    for page in PAGES:
        for name in re.findall(r"\bZMU_[A-Z0-9_]*[A-Z0-9]", page.read_text()):
            assert name in known | sections, f"{page.name}: {name}"


def test_the_readme_gives_the_true_defaults() -> None:
    fields = dict(variables(training.settings.Settings))
    for name, default, _ in table(README, "setting | default"):
        value = fields[name.strip("`")].get_default(call_default_factory=True)
        assert default.strip("`") == ("" if value is None else str(value)), name


def test_named_metrics_exist() -> None:
    known: set[str] = set()
    for registry in registries():
        for s in series(registry):
            endings = ("_bucket", "_sum", "_count") if s.kind == "histogram" else ()
            known |= {s.name, *(s.name + ending for ending in endings)}
    places = [*PAGES, *(p for p in (ROOT / "deploy").rglob("*") if p.suffix in (".json", ".yaml", ".yml"))]
    for place in places:
        for name in re.findall(r"\bzmu_[a-z_]*[a-z]", place.read_text()):
            assert name in known, f"{place.name}: {name}"


def test_the_codes_of_dead_letters() -> None:
    """Every code that the decoder gives is explained, and no other."""
    given: set[str] = set()
    for path in (ROOT / "worker/codec").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            name = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if isinstance(node, ast.Call) and name in ("Refused", "Refusal", "rows.refuse"):
                code = node.args[0 if name == "Refused" else 1]
                if isinstance(code, ast.Constant):
                    given.add(str(code.value))
    assert "invalid_json" in given
    given.add(damage.CODE)              # of whole batches, which no decoder sees
    assert {row[0].strip("`") for row in table(DOCS / "events.md", "code")} == given


def test_the_headers_of_dead_letters() -> None:
    (record,) = records([b"junk"])
    headers = [name for name, _ in dead_letter("dlq", Refusal(record, "wrong_type", "why", "pressure", (3,))).headers]
    assert [row[0].strip("`") for row in table(DOCS / "events.md", "header")] == headers


def test_the_fields_of_the_event() -> None:
    schema = json.loads((DOCS / "event.schema.json").read_text())
    described = [row[0].strip("`") for row in table(DOCS / "events.md", "field")]
    assert described == list(schema["$defs"]["Event"]["properties"])


def test_the_event_in_the_readme() -> None:
    (block,) = (b for b in blocks(README) if b.language == "json")
    event = json.loads(block.text)
    jsonschema.validate(event, json.loads((DOCS / "event.schema.json").read_text()))
    source = event["source"]
    assert UUID(event["event_id"]) == event_id(source["topic"], source["partition"], source["offset"])
    shares = [part["share"] for part in event["contributions"]]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) <= 1.000001
    assert event["anomaly_score"] > 1


def test_json_blocks_are_json() -> None:
    for page in PAGES:
        for block in blocks(page):
            if block.language == "json":
                json.loads(block.text)


def make_targets() -> list[str]:
    lines = [line for block in blocks(README) if block.language == "sh" for line in block.text.splitlines()]
    return [line for line in lines if line.startswith("make ")]


@pytest.mark.parametrize("command", [*make_targets(), "make demo ARGS=--forever"])
def test_make_knows_its_targets(command: str) -> None:
    if shutil.which("make") is None:
        pytest.skip("there is no make here")
    done = subprocess.run([*command.split(), "-n"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_no_block_is_left_untried() -> None:
    """The sections are tried by tests/integration/test_readme.py, tests/deploy/test_scrape.py and test_alerts.py."""
    sections = ("From zero to your own topic", "Recordings")

    def tried(block: Block) -> bool:
        match block.language:
            case "sh":
                return block.section in (*sections, "Runbook") or block.text.strip() in make_targets()
            case "toml":
                return block.section in sections
            case "yaml":
                return block.section == "Metrics and health"
            case language:
                return language in ("python", "json", "text")

    assert [b for page in PAGES for b in blocks(page) if not tried(b)] == []


def test_every_reason_of_a_dead_letter_is_told_and_counted_from_the_start() -> None:
    page = (DOCS / "events.md").read_text()
    told = re.findall(r"^\| `(\w+)` \| ", page[page.index("| code | what was wrong |") :], re.MULTILINE)
    assert tuple(told) == REASONS
    source = "".join(file.read_text() for file in (ROOT / "worker").rglob("*.py"))
    said = set(re.findall(r'Refused\(\s*"(\w+)"', source))
    assert len(said) >= 9
    assert said <= set(REASONS)
    served = Metrics().registry
    for reason in REASONS:
        assert served.get_sample_value("zmu_records_dead_lettered_total", {"reason": reason}) == 0
