"""zmu-worker: the commands. What each needs is imported when it runs, so that --help answers at once."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from pydantic import Field
from pydantic_settings import CliPositionalArg

from worker import cli, log


class Run(cli.Command):
    summary: ClassVar[str] = "score the input topic until stopped; SIGTERM and SIGINT drain and leave with 0"
    until_drained: bool = Field(False, description="Leave with 0 once everything present at start is scored.")

    def run(self) -> int:
        from worker.daemon import Daemon

        log.configure(self.log)
        return Daemon(self).run(self.until_drained)


class Check(cli.Command):
    summary: ClassVar[str] = "validate the settings, reach the broker, load the model; 0, or 2 and what is wrong"

    def run(self) -> int:
        from worker.daemon import check

        log.configure(self.log.model_copy(update={"level": "error"}))
        # kafka-python speaks of each of its tries; what came of them all, and what to mend, is told in the end.
        for handler in logging.getLogger().handlers:
            handler.addFilter(lambda record: not record.name.startswith("kafka."))
        print("\n".join([*check(self), "ok"]))
        return 0


class Score(cli.Command):
    summary: ClassVar[str] = "score recordings (CSV, JSON lines, Parquet) without Kafka; a row for every reading"
    files: CliPositionalArg[list[Path]] = Field(description="Recordings.")
    output_file: Path | None = Field(None, description="Where to write (also --output FILE). Default: stdout.")
    renamed: ClassVar[dict[str, str]] = {"--output": "--output-file"}    # --output alone is a section of settings

    def run(self) -> int:
        from worker import device
        from worker.detection.budget import target_rate
        from worker.detection.detector import Detector
        from worker.errors import UserError
        from worker.models.artifact import load
        from worker.models.registry import opened
        from worker.models.reload import champion_version
        from worker.recordings.score import say_refused, score_files

        log.configure(self.log)
        registry = opened(self.model.registry, self.model.name)
        loaded = load(registry, champion_version(registry, self.model.alias), device.choose(self.device))
        rate = target_rate(self.model, loaded.manifest)
        detector = Detector(loaded, rate, withhold=self.model.warm_up == "withhold")
        try:
            if self.output_file is None:
                refused = score_files(self.files, detector, self.input, sys.stdout)
                sys.stdout.flush()
            else:
                with self.output_file.open("w", newline="") as out:
                    refused = score_files(self.files, detector, self.input, out)
        except BrokenPipeError:             # whoever reads us has seen enough; nothing may be said to it at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except OSError as error:
            raise UserError(f"--output {self.output_file}: {error.strerror}; name a file that can be written") from None
        say_refused(refused)
        return 0


class Explain(cli.Command):
    summary: ClassVar[str] = "score one reading again, with what came before it: EVENT_ID or TOPIC/PARTITION/OFFSET"
    reading: CliPositionalArg[str] = Field(description="An event_id, or topic/partition/offset[/row].")
    version: str = Field("", description="Version or alias. Default: the event's; without one, what is served.")
    history: int = Field(
        20_000, ge=0, description="Records of the partition before it that are read, at most. 0: it alone."
    )
    html_file: Path | None = Field(
        None, description="Where to draw actual against expected of every feature (also --html FILE)."
    )
    renamed: ClassVar[dict[str, str]] = {"--html": "--html-file"}

    def run(self) -> int:
        from worker import device, explain, explained
        from worker.detection.budget import target_rate
        from worker.detection.detector import Detector
        from worker.errors import written
        from worker.models.artifact import load
        from worker.models.registry import opened
        from worker.models.reload import champion_version

        log.configure(self.log)
        found = explain.wanted(self, self.reading)
        model = found.event.model if found.event is not None else None
        registry = opened(self.model.registry, model.name if model else self.model.name)
        version = self.version or (model.version if model else self.model.alias)
        if version == self.model.alias:
            version = champion_version(registry, version)
        loaded = load(registry, registry.resolve(version) or version, device.choose(self.device))
        rate = target_rate(self.model, loaded.manifest)
        detector = Detector(loaded, rate, withhold=self.model.warm_up == "withhold")
        told = explain.explain(self, found, detector, self.history)
        print("\n".join(explained.lines(told)))
        if self.html_file is not None:
            written(self.html_file, explained.page(told), "--html")
        return 1 if told.verdict == "different" else 0


class Config(cli.Command):
    summary: ClassVar[str] = "print the effective settings, secrets masked"

    def run(self) -> int:
        for name, value in cli.effective(self):
            print(f"{name} = {value}")
        return 0


def main(argv: Sequence[str] | None = None) -> int:
    commands: dict[str, type[cli.Command]] = {
        "run": Run, "check": Check, "score": Score, "explain": Explain, "config": Config
    }
    return cli.main("zmu-worker", commands, argv)


if __name__ == "__main__":
    sys.exit(main())
