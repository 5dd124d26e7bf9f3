"""zmu-training: the commands. What each needs is imported when it runs."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field
from pydantic_settings import CliPositionalArg

from training.settings import Duration, Place, Settings
from worker import cli, log


class Run(Settings):
    summary: ClassVar[str] = "train once: from the input topic, or from --source FILE …; publish a version"
    source: list[Path] = Field([], description="Recordings (CSV, JSON lines, Parquet) to learn from in Kafka's place.")

    def run(self) -> int:
        from training import ranks
        from training.history.freshness import TooLittleNew
        from training.job import run
        from training.progress import Progress
        from worker.errors import TrainingError

        log.configure(self.log)
        with ranks.joined(self.device):
            speaks = ranks.first()
            try:
                outcome = run(self, self.source, Progress() if speaks else Progress(io.StringIO()))
            except TooLittleNew as why:
                if speaks:
                    print(f"skipped: {why}")
                return 0
        if not speaks:
            return 0
        print(outcome.summary)
        if outcome.promotion == "refused":
            raise TrainingError(
                f"version {outcome.manifest.version} is not promoted:\n  " + "\n  ".join(outcome.reasons)
            )
        return 0


class Schedule(Settings):
    summary: ClassVar[str] = "train --every 6h, or by --cron '0 */6 * * *' (UTC), what is new; serves /metrics"
    every: str | None = Field(None, description="Time from one start to the next: 90m, 6h, 1d.")
    cron: str | None = Field(None, description="When to start, as five cron fields, UTC.")
    jitter: str | None = Field(
        None, description="Start up to so much later, by chance: 5m. For many models on one machine or broker."
    )

    def run(self) -> int:
        import signal

        from training import job, ranks, schedule
        from training.history import drift
        from training.metrics import Metrics
        from training.progress import Progress
        from worker import signals
        from worker.errors import SettingsError
        from worker.http import HttpServer
        from worker.models.registry import opened

        log.configure(self.log)
        if ranks.asked():
            raise SettingsError("schedule is one process; give torchrun `-m training run`, and let a CronJob repeat it")
        if (self.every is None) == (self.cron is None):
            raise SettingsError("give one of --every (such as 6h) and --cron (such as '0 */6 * * *')")
        next_run = schedule.every(self.every) if self.every is not None else schedule.cron(self.cron or "")
        stop, metrics = signals.Stop(), Metrics()
        progress = Progress(stopping=stop.is_set)
        registry = opened(self.model.registry, self.model.name)
        least = 1 if self.training.min_new is None else self.training.min_new
        settings = self.model_copy(update={"training": self.training.model_copy(update={"min_new": least})})
        runs = schedule.Schedule(
            lambda: job.run(settings, [], progress), next_run, metrics, stop,
            last_start=lambda: schedule.last_start(registry), jitter_seconds=schedule.jitter(self.jitter),
            drifted=schedule.DriftTrigger(lambda: drift.look(self), self.training.drift_bound, metrics),
            look_seconds=self.training.drift_look_seconds,
        )
        with signals.handled(stop, ring=(signal.SIGUSR1,)):
            server = HttpServer(
                self.http, metrics.registry, lambda: (True, runs.facts()), lambda: (not stop.is_set(), runs.facts())
            )
            try:
                log.get("training").info(
                    "listening", host=self.http.host, port=server.port, paths="/metrics /healthz /readyz"
                )
                runs.run()
            finally:
                server.close()
        log.get("training").info("stopped")
        return 0


class Evaluate(Settings):
    summary: ClassVar[str] = "how a version does on labelled recordings: F1, false alarms, missed, VUS-PR, delay"
    files: CliPositionalArg[list[Path]] = Field(description="Labelled recordings (CSV, JSON lines, Parquet).")
    version: str = Field("", description="Version or alias. Default: the one that ZMU_MODEL__ALIAS names.")
    label: str = Field("anomaly", description="Column of the labels: 0 is normal, above 0 is anomalous.")
    skip: int = Field(
        0, ge=0, description="First rows of each recording that are scored but not judged: those it was trained on."
    )
    json_file: Path | None = Field(None, description="Where to write the figures as JSON (also --json FILE).")
    plot_file: Path | None = Field(
        None, description="Where to draw scores against labels, .svg or .png (also --plot FILE)."
    )
    renamed: ClassVar[dict[str, str]] = {"--json": "--json-file", "--plot": "--plot-file"}

    def run(self) -> int:
        from training import models
        from training.evaluation import shown as evaluation_shown
        from training.evaluation.evaluate import evaluate
        from worker import device
        from worker.detection.budget import target_rate
        from worker.detection.detector import Detector
        from worker.models.artifact import load
        from worker.models.registry import opened
        from worker.recordings.score import say_refused

        log.configure(self.log)
        if self.plot_file is not None:
            from training.evaluation import plot as evaluation_plot

            evaluation_plot.require_picture(self.plot_file)
        registry = opened(self.model.registry, self.model.name)
        version = models.resolved(registry, self.version or self.model.alias)
        loaded = load(registry, version, device.choose(self.device))
        rate = target_rate(self.model, loaded.manifest)
        detector = Detector(loaded, rate, withhold=self.model.warm_up == "withhold")
        evaluation = evaluate(self.files, detector, self.input, self.label, self.skip)
        print(f"version {version}")
        evaluation_shown.table(evaluation, sys.stdout)
        say_refused(evaluation.refused)
        if self.json_file is not None:
            evaluation_shown.write_json(evaluation, detector.manifest, self.json_file)
        if self.plot_file is not None:
            evaluation_plot.draw(evaluation, self.plot_file)
        return 0


class Backtest(Settings):
    summary: ClassVar[str] = "what a version would have told of a range of the topic, or of files; nothing is produced"
    files: CliPositionalArg[list[Path]] = Field(
        [], description="Recordings (CSV, JSON lines, Parquet) in the topic's place."
    )
    from_time: Place | None = Field(
        None, description="Where the range starts (also --from): a time, or offsets by partition as JSON. Default: "
        "the topic's beginning."
    )
    to_time: Place | None = Field(None, description="Where it ends (also --to), itself not included. Default: now.")
    version: str = Field(
        "", description="Version or alias (also --model VERSION). Default: the one that ZMU_MODEL__ALIAS names."
    )
    json_file: Path | None = Field(None, description="Where to write all figures as JSON (also --json FILE).")
    html_file: Path | None = Field(None, description="Where to write a page for people (also --html FILE).")
    renamed: ClassVar[dict[str, str]] = {
        "--json": "--json-file", "--html": "--html-file", "--from": "--from-time", "--to": "--to-time",
        "--model": "--version",
    }

    def run(self) -> int:
        from training import models
        from training.evaluation import backtest, backtest_shown
        from training.history import history
        from training.progress import Progress
        from worker import device
        from worker.detection.budget import target_rate
        from worker.detection.detector import Detector
        from worker.errors import written
        from worker.models.artifact import load
        from worker.models.registry import opened

        log.configure(self.log)
        registry = opened(self.model.registry, self.model.name)
        loaded = load(registry, models.resolved(registry, self.version or self.model.alias), device.choose(self.device))
        rate = target_rate(self.model, loaded.manifest)
        detector = Detector(loaded, rate, withhold=self.model.warm_up == "withhold")
        progress = Progress()
        given = self.input.model_copy(update={"features": loaded.manifest.features})
        asked = self.training.model_copy(
            update={"start": self.from_time, "end": self.to_time, "max_age": None, "max_records": sys.maxsize}
        )
        settings = self.model_copy(update={"input": given, "training": asked})
        found = history.from_files(self.files, settings) if self.files else history.from_topic(settings, progress)
        with progress.bar("scoring", len(found)) as bar:
            tested = backtest.run(found, detector, settings, bar.advance)
        print("\n".join(backtest_shown.lines(tested)))
        if self.json_file is not None:
            written(self.json_file, backtest_shown.as_json(tested), "--json")
        if self.html_file is not None:
            written(self.html_file, backtest_shown.page(tested), "--html")
        return 0


class Models(Settings):
    summary: ClassVar[str] = "the registry: list · show VERSION · promote VERSION · rollback"
    action: CliPositionalArg[Literal["list", "show", "promote", "rollback"]] = Field(
        description="list: all versions. show: one. promote: serve one. rollback: serve again what was served before."
    )
    version: CliPositionalArg[str] = Field("", description="A version or an alias, for show and promote.")
    after_shadow: Duration | None = Field(
        None,
        description="promote: only what workers have had in the shadow for so long (ZMU_MODEL__SHADOW): 24h, 7d.",
    )

    def run(self) -> int:
        from training import durations, models
        from worker.models.registry import opened

        log.configure(self.log)
        registry, alias = opened(self.model.registry, self.model.name), self.model.alias
        match self.action:
            case "list":
                print("\n".join(models.listed(registry)))
            case "show":
                print("\n".join(models.shown(registry, self.version or alias)))
            case "promote":
                shadow_seconds = durations.seconds(self.after_shadow) if self.after_shadow else 0.0
                print(models.promoted(registry, alias, self.version, shadow_seconds))
            case "rollback":
                print(models.rolled_back(registry, alias))
        return 0


class Config(Settings):
    summary: ClassVar[str] = "print the effective settings, secrets masked"

    def run(self) -> int:
        for name, value in cli.effective(self):
            print(f"{name} = {value}")
        return 0


def main(argv: Sequence[str] | None = None) -> int:
    args = list(sys.argv[1:] if argv is None else argv)
    commands: dict[str, type[cli.Command]] = {
        "run": Run, "schedule": Schedule, "evaluate": Evaluate, "backtest": Backtest, "models": Models, "config": Config
    }
    return cli.main("zmu-training", commands, gathered(args))


def gathered(args: Sequence[str]) -> list[str]:
    """`--source A B --source C` as the one JSON list that the settings take: names may hold commas."""
    others: list[str] = []
    sources: list[str] = []
    taking = False
    for arg in args:
        if arg == "--source":
            taking = True
        elif arg.startswith("--source="):
            taking, sources = False, [*sources, arg.removeprefix("--source=")]
        elif taking and not arg.startswith("--"):
            sources.append(arg)
        else:
            taking = False
            others.append(arg)
    return [*others, "--source", json.dumps(sources)] if sources else others


if __name__ == "__main__":
    sys.exit(main())
