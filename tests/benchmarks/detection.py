"""How detection depends on its parts: the table of docs/detection.md, on labelled recordings.

    python -m tests.benchmarks.detection --data FOLDER [--quick] [--only TEXT …] [--write]
        [--results FILE] [--versions FOLDER]

FOLDER holds valve1/ and other/ (SKAB: trained on the first 400 rows of each file), smd1/ and asd-a/ (trained on
NAME.train.csv.gz, judged on NAME.csv.gz). Every recipe of recipes.py is trained on each recording by training.job
and judged through the worker's detector. Finished rows are appended to --results as JSON lines, and not done again.
Trained versions are kept in --versions: after a change of chart, threshold or alarm, none is trained again. After a
change of what trains, empty it.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from tests.benchmarks.figures import machine
from tests.benchmarks.recipes import RECIPES, Recipe
from tests.documents import ROOT
from training import job
from training.evaluation.evaluate import Evaluation, evaluate
from training.evaluation.evaluate import Recording as Judged
from training.fitting import calibrate, dataset
from training.fitting.profiles import Profile
from training.history import history
from training.progress import Progress
from training.settings import Settings
from worker.detection.chart import MOST
from worker.detection.detector import Detector
from worker.errors import UserError
from worker.models import artifact
from worker.models.artifact import Artifact
from worker.models.registry import Registry
from worker.recordings import tables
from worker.settings import InputSettings, ModelSettings

PAGE = ROOT / "docs" / "detection.md"
BEGIN, END = "<!-- tests/benchmarks/detection.py -->\n", "<!-- end -->"
LABEL, NO_FEATURES = "anomaly", ("anomaly", "changepoint")
SKAB, SKAB_TRAINED = ("valve1", "other"), 400
SETS = ("SKAB", "smd1", "asd-a")
BY_PROFILE = {"profile", "window", "scaling", "output", "objective", "min_spread"}
QUICK = {
    "SKAB": ("valve1/0", "valve1/7", "valve1/14", "other/1", "other/7", "other/12"),
    "smd1": ("machine-1-7",),
    "asd-a": ("omi-2", "omi-5"),
}


class Recording(NamedTuple):
    of: str                             # one of SETS
    name: str
    train: Path
    test: Path
    skip: int

    @property
    def features(self) -> int:
        return len(set(tables.read_csv(self.train).columns) - {*NO_FEATURES, "datetime"})


def recordings(data: Path, scratch: Path, quick: bool) -> Iterator[Recording]:
    """SKAB's training parts are cut off into `scratch`."""
    for folder in SKAB:
        for test in sorted((data / folder).glob("*.csv"), key=lambda path: int(path.stem)):
            name = f"{folder}/{test.stem}"
            if not quick or name in QUICK["SKAB"]:
                train = scratch / f"{folder}-{test.name}"
                train.write_text("".join(test.read_text().splitlines(keepends=True)[: SKAB_TRAINED + 1]))
                yield Recording("SKAB", name, train, test, SKAB_TRAINED)
    for folder in ("smd1", "asd-a"):
        for train in sorted((data / folder).glob("*.train.csv.gz")):
            name = train.name.removesuffix(".train.csv.gz")
            if not quick or name in QUICK[folder]:
                yield Recording(folder, name, train, train.with_name(f"{name}.csv.gz"), 0)


class Bench:
    """Versions are kept in a folder and found again by what they were trained with; chart, threshold and alarm are
    always those of the code as it is.
    """

    def __init__(self, recordings: Sequence[Recording], versions: Path) -> None:
        self._recordings, self._versions = recordings, versions

    def row(self, recipe: Recipe) -> dict[str, Any]:
        """Figures by set, and CPU seconds of all trainings."""
        seconds = 0.0
        judged: dict[str, dict[str, Judged]] = {name: {} for name in SETS}
        for recording in self._recordings:
            version, trained_seconds = self.version(recipe, recording)
            seconds += trained_seconds
            found = evaluate([recording.test], Detector(version), InputSettings(), LABEL, recording.skip)
            (judged[recording.of][recording.name],) = found.recordings
        row: dict[str, Any] = {"recipe": recipe.name, "seconds": round(seconds, 1)}
        for name, parts in judged.items():
            whole = Evaluation(tuple(parts.values()))
            row[name] = {
                **whole.figures._asdict(),
                "always_on_f1": whole.always_on_f1,
                "random_vus_pr": whole.random_vus_pr,
                "recordings": {part: one.figures._asdict() for part, one in parts.items()},
            }
        return row

    def version(self, recipe: Recipe, recording: Recording) -> tuple[Artifact, float]:
        """Trained and calibrated, and the CPU seconds of its training."""
        training = {"rivals": False, **recipe.training(recording.features)}
        settings = Settings(input={"ignore": list(NO_FEATURES)}, training=training)
        data = dataset.prepare(history.from_files([recording.train], settings), settings.training)
        trained, seconds = self._trained(settings, recording, data.recipe)
        manifest = trained.manifest.model_copy(
            update={
                "chart": data.recipe.chart,
                "mean_scale": (data.recipe.chart.mean_std,) * recording.features if data.recipe.chart else (),
                "largest_deviation": (MOST,) * recording.features if data.recipe.chart else (),
                "alarm": data.recipe.alarm,
            }
        )
        if recipe.after is not None:
            manifest = manifest.model_copy(update=dict(recipe.after(manifest)))
        rate = settings.training.target_rate
        return (
            calibrate.with_calibration(Artifact(manifest, trained.model), data.held, rate, data.recipe.min_spread),
            seconds,
        )

    def _trained(self, settings: Settings, recording: Recording, recipe: Profile) -> tuple[Artifact, float]:
        weights_of = recipe._replace(chart=None, alarm=None), settings.training.model_dump(exclude=BY_PROFILE)
        key = hashlib.sha256(f"{recording.name} {weights_of}".encode()).hexdigest()[:16]
        registry = Registry(str(self._versions / key), settings.model.name)
        spent = self._versions / key / "cpu_seconds"
        if not spent.exists():
            begin = time.process_time()
            placed = settings.model_copy(update={"model": ModelSettings(registry=str(self._versions / key))})
            job.run(placed, [recording.train], Progress(io.StringIO()))
            spent.write_text(f"{time.process_time() - begin:.1f}")
        newest = registry.versions()[-1]
        return artifact.load(registry, newest, torch.device("cpu")), float(spent.read_text())


def head() -> str:
    columns = ["recipe", *(f"{name} {figure}" for name in SETS for figure in ("F1", "FAR %", "VUS-PR")), "CPU s"]
    return f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}\n"


def line(row: Mapping[str, Any]) -> str:
    if "failed" in row:
        return f"| {row['recipe']} | {row['failed']} |\n"
    cells = [row["recipe"]]
    for name in SETS:
        figures = row[name]
        cells += [f"{figures['f1']:.3f}", f"{100 * figures['false_alarm_rate']:.2f}", f"{figures['vus_pr']:.3f}"]
    return f"| {' | '.join([*cells, format(row['seconds'], '.0f')])} |\n"


def floors(row: Mapping[str, Any]) -> str:
    """What an alarm that never ends and random scores get on the same rows."""
    cells = [f"{row[name]['always_on_f1']:.3f} | 100 | {row[name]['random_vus_pr']:.3f}" for name in SETS]
    return f"| floors: always in alarm, random score | {' | '.join(cells)} | 0 |\n"


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    sound = [row for row in rows if "failed" not in row]
    return head() + "".join(map(line, rows)) + (floors(sound[0]) if sound else "")


def write(page: Path, text: str) -> None:
    """Between the page's markers."""
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    assert end, f"{page} has no place for the table"
    page.write_text(f"{before}{begin}{text}{end}{after}")


def main(args: Sequence[str] | None = None) -> int:
    said = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.detection", description=said)
    parser.add_argument("--data", type=Path, required=True, help="folder of valve1/, other/, smd1/ and asd-a/")
    parser.add_argument("--quick", action="store_true", help="six files of SKAB, one server of smd1, two of asd-a")
    parser.add_argument("--results", type=Path, help="JSON lines; what is in it is not done again")
    parser.add_argument("--versions", type=Path, help="where trained versions are kept, to be used again")
    parser.add_argument("--only", nargs="+", default=[""], help="recipes whose name holds one of these")
    parser.add_argument("--write", action="store_true", help="put the table into docs/detection.md")
    asked = parser.parse_args(args)
    kept = asked.results.read_text().splitlines() if asked.results and asked.results.exists() else []
    done = {row["recipe"]: row for row in map(json.loads, kept)}
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        bench = Bench(list(recordings(asked.data, scratch, asked.quick)), asked.versions or scratch / "versions")
        wanted = [recipe for recipe in RECIPES if any(text in recipe.name for text in asked.only)]
        sys.stdout.write(head())
        for recipe in wanted:
            if recipe.name not in done:
                try:
                    done[recipe.name] = bench.row(recipe)
                except UserError as error:              # one that cannot be trained must not end the others
                    done[recipe.name] = {"recipe": recipe.name, "failed": str(error)}
                if asked.results:
                    with asked.results.open("a") as out:
                        out.write(json.dumps(done[recipe.name]) + "\n")
            sys.stdout.write(line(done[recipe.name]))
            sys.stdout.flush()
    rows = [done[recipe.name] for recipe in wanted]
    sys.stdout.write(floors(rows[0]) if "failed" not in rows[0] else "")
    if asked.write:
        asked_for = " --quick" if asked.quick else ""
        made = f"`python -m tests.benchmarks.detection{asked_for} --data FOLDER --write`; {machine()}\n\n"
        write(PAGE, made + table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
