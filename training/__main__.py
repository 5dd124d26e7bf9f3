"""zmu-training: the commands. What each needs is imported when it runs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field
from pydantic_settings import CliPositionalArg

from training.settings import Settings
from worker import cli, log


class Run(Settings):
    summary: ClassVar[str] = "train once: from the input topic, or from --source FILE …; publish a version"
    source: list[Path] = Field([], description="Recordings (CSV, JSON lines, Parquet) to learn from in Kafka's place.")

    def run(self) -> int:
        from training.job import run
        from training.progress import Progress
        from worker.errors import TrainingError

        log.configure(self.log)
        outcome = run(self, self.source, Progress())
        print(outcome.summary)
        if outcome.promotion == "refused":
            raise TrainingError(
                f"version {outcome.manifest.version} is not promoted:\n  " + "\n  ".join(outcome.reasons)
            )
        return 0


class Schedule(Settings):
    summary: ClassVar[str] = "train at once and then --every 6h, or by --cron '0 */6 * * *' (UTC); serves /metrics"
    every: str | None = Field(None, description="Time from one start to the next: 90m, 6h, 1d.")
    cron: str | None = Field(None, description="When to start, as five cron fields, UTC.")

    def run(self) -> int:
        import threading

        from training import job, schedule
        from training.metrics import Metrics
        from training.progress import Progress
        from worker.errors import SettingsError
        from worker.http import HttpServer

        log.configure(self.log)
        if (self.every is None) == (self.cron is None):
            raise SettingsError("give one of --every (such as 6h) and --cron (such as '0 */6 * * *')")
        next_run = schedule.every(self.every) if self.every is not None else schedule.cron(self.cron or "")
        stop, metrics = threading.Event(), Metrics()
        progress = Progress(stopping=stop.is_set)
        runs = schedule.Schedule(lambda: job.run(self, [], progress), next_run, metrics, stop)
        with schedule.stopped_by_signals(stop):
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
        from training import evaluation_shown, models
        from training.evaluate import evaluate
        from worker import device
        from worker.artifact import load
        from worker.budget import target_rate
        from worker.detector import Detector
        from worker.registry import Registry
        from worker.score import say_refused

        log.configure(self.log)
        if self.plot_file is not None:
            from training import evaluation_plot

            evaluation_plot.require_picture(self.plot_file)
        registry = Registry(self.model.registry, self.model.name)
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


class Models(Settings):
    summary: ClassVar[str] = "the registry: list · show VERSION · promote VERSION · rollback"
    action: CliPositionalArg[Literal["list", "show", "promote", "rollback"]] = Field(
        description="list: all versions. show: one. promote: serve one. rollback: serve again what was served before."
    )
    version: CliPositionalArg[str] = Field("", description="A version or an alias, for show and promote.")

    def run(self) -> int:
        from training import models
        from worker.registry import Registry

        log.configure(self.log)
        registry, alias = Registry(self.model.registry, self.model.name), self.model.alias
        match self.action:
            case "list":
                print("\n".join(models.listed(registry)))
            case "show":
                print("\n".join(models.shown(registry, self.version or alias)))
            case "promote":
                print(models.promoted(registry, alias, self.version))
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
        "run": Run, "schedule": Schedule, "evaluate": Evaluate, "models": Models, "config": Config
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
