"""The daemon's shell: connect, serve /metrics and health, run the loop until told to stop, leave in order."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Callable
from typing import TypeVar

from worker import compiled, device, log, signals, threads, tracing
from worker.delivery.assembly import Parts, checkpoint
from worker.delivery.checkpoint import Stopped
from worker.errors import BrokerError, BrokerUnreachable, UserError
from worker.heartbeat import Heartbeat
from worker.http import HttpServer
from worker.kafka.needs import ensure_incidents, require_topics_of
from worker.loop import Loop
from worker.metrics import Metrics
from worker.models.registry import opened
from worker.models.reload import Models
from worker.settings import Settings
from worker.watchdog import Watchdog

Answer = TypeVar("Answer")

SWITCH_SECONDS = 0.0005                 # until kafka-python's threads get their turn; by default Python keeps them 5 ms


class Daemon:
    def __init__(self, settings: Settings, parts: Parts | None = None) -> None:
        self._settings, self._parts = settings, parts or Parts()
        self._metrics = Metrics(tracing.opened(settings))
        self._heartbeat = Heartbeat(settings.watchdog_seconds)
        self._metrics.ready_by(lambda: self._readiness()[0])
        self._stop = signals.Stop()
        self._ready: Callable[[], dict[str, object]] = lambda: {"model": False, "assigned": False, "output": False}

    def run(self, until_drained: bool) -> int:
        """Returns the exit code. Raises UserError for what is wrong before the first record."""
        settings, metrics = self._settings, self._metrics
        chosen = device.choose(settings.device)
        compiled.choose(settings.core)
        threads.choose(settings.threads)
        with contextlib.ExitStack() as leaving:
            leaving.enter_context(signals.handled(self._stop))
            leaving.callback(metrics.tracing.close)
            server = HttpServer(settings.http, metrics.registry, self._alive, self._readiness)
            leaving.callback(server.close)
            logger = log.get("worker")
            logger.info("listening", host=settings.http.host, port=server.port, paths="/metrics /healthz /readyz")
            models = Models(
                opened(settings.model.registry, settings.model.name),
                settings.model,
                settings.input.features,
                chosen,
                metrics,
            )
            if not models.first(self._heartbeat, self._stop.is_set, self._stop.wait):
                return 0                    # told to stop while there was no model
            self._heartbeat.beat()              # a first load of any length is no stuck loop: it counts from here
            leaving.callback(Watchdog(self._heartbeat).close)
            leaving.callback(models.close)
            if not self._answered(lambda: require_topics_of(settings) and ensure_incidents(settings)):
                return 0                    # … or no broker
            source = self._answered(lambda: self._parts.source(settings))
            if source is None:
                return 0
            leaving.callback(source.close)
            output = self._answered(lambda: self._parts.output(settings))
            if output is None:
                return 0
            leaving.callback(output.close)
            final = checkpoint(settings, source, output, metrics, self._heartbeat, self._stop.is_set)
            store = None
            if settings.state.snapshot_seconds:
                store = self._parts.store(settings, final, self._heartbeat)
                leaving.callback(store.close)
                if self._answered(store.ensure) is None:
                    return 0
            loop = Loop(settings, source, final, models, store, metrics, self._heartbeat, self._stop.is_set)
            self._ready = lambda: {
                "model": models.current.version,
                "assigned": source.joined,
                "output": final.writable,
            }
            sys.setswitchinterval(SWITCH_SECONDS)
            gc.collect()
            gc.freeze()                     # what lives as long as the process need not be walked again and again
            about = {"topic": settings.input.topic, "group": settings.input.group_id}
            logger.info("started", **about, core=compiled.kind(), threads=threads.most())
            if why := compiled.missed():
                logger.info("python does what the compiled core would do several times faster", why=why)
            try:
                loop.run_until_drained() if until_drained else loop.run()
            except (Stopped, BrokerError) as error:
                logger.error("left with work undone; it will be done at the next start", why=str(error))
                return 1
            logger.info("drained", until_drained=until_drained)
            return 0

    def _answered(self, ask: Callable[[], Answer]) -> Answer | None:
        """Asked again for as long as the broker is away; None where told to stop meanwhile."""
        pause = 0.5
        while not self._stop.is_set():
            self._heartbeat.beat()
            try:
                return ask()
            except BrokerUnreachable as error:
                self._metrics.survived("connect", error)
                self._stop.wait(pause)
                pause = min(2 * pause, 10.0)
        return None

    def _alive(self) -> tuple[bool, dict[str, object]]:
        return self._heartbeat.alive, {"last_turn_seconds_ago": round(self._heartbeat.age_seconds, 3)}

    def _readiness(self) -> tuple[bool, dict[str, object]]:
        facts = self._ready()
        return all(facts.values()), facts


def check(settings: Settings) -> list[str]:
    """What `run` would need, tried without reading a record: one line for each part. Raises UserError."""
    tracing.opened(settings).close()
    chosen = device.choose(settings.device)
    compiled.choose(settings.core)
    threads.choose(settings.threads)
    registry = opened(settings.model.registry, settings.model.name)
    at_once = settings.model.model_copy(update={"wait_seconds": 0.0})
    models = Models(registry, at_once, settings.input.features, chosen, Metrics())
    faults: list[UserError] = []
    why = compiled.missed()
    lines = [f"device    {chosen}", f"core      {compiled.kind()}{why and f' ({why})'}, threads: {threads.most()}"]
    try:
        models.first(Heartbeat(settings.watchdog_seconds))
        manifest = models.current.detector.manifest
        place = f"{registry.place}/{manifest.version}"
        lines.append(f"model     {place} ({manifest.kind}, {len(manifest.features)} features)")
        models.close()
    except UserError as error:
        faults.append(error)
    try:
        require_topics_of(settings)
        lines.append(f"kafka     {settings.kafka.bootstrap_servers}: topics and rights are there")
    except UserError as error:
        faults.append(error)
    if faults:
        raise UserError("\n".join(map(str, faults)))
    return lines
