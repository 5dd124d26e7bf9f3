"""The served model: the alias's version, looked at every so often, taken over between two batches."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

import torch

from worker import artifact, device
from worker.artifact import Artifact
from worker.budget import target_rate
from worker.detector import Detector
from worker.errors import ModelError, RegistryError
from worker.heartbeat import Heartbeat
from worker.metrics import Metrics
from worker.registry import Registry
from worker.settings import ModelSettings

Features = tuple[str, ...]


class Champion(NamedTuple):
    """A version that passed every check, ready to score."""

    version: str
    detector: Detector


class Models:
    """Loads the alias's version, and newer ones on a thread of its own, so that the loop never waits for a store."""

    def __init__(
        self,
        registry: Registry,
        settings: ModelSettings,
        features: Features | None,
        device: torch.device,
        metrics: Metrics,
    ) -> None:
        self._registry, self._settings, self._features = registry, settings, features
        self._device, self._metrics = device, metrics
        self._current: Champion | None = None
        self._next: Champion | None = None
        self._refusal: str | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="models", daemon=True)

    def first(
        self,
        heartbeat: Heartbeat,
        stopping: Callable[[], bool] = lambda: False,
        sleep: Callable[[float], object] = time.sleep,
    ) -> bool:
        """Loads the first model, waiting for one as long as the settings say; False where told to stop before.

        Raises ModelError, RegistryError.
        """
        waited = 0.0
        while self._current is None:
            heartbeat.beat()
            try:
                self._current = self._load(champion_version(self._registry, self._settings.alias))
            except (ModelError, RegistryError) as error:
                if waited >= self._settings.wait_seconds:
                    raise
                if not waited:
                    self._metrics.survived("load", error)
                pause = min(2.0, self._settings.wait_seconds - waited)
                sleep(pause)
                waited += pause
                if stopping():
                    return False
        self._announce(self._current)
        self._thread.start()
        return True

    @property
    def current(self) -> Champion:
        assert self._current is not None, "first() comes first"
        return self._current

    def take(self) -> bool:
        """Between two batches: makes a newer champion current. Returns whether there was one."""
        taken, self._next = self._next, None
        if taken is None:
            return False
        self._current = taken
        self._announce(taken)
        return True

    def close(self) -> None:
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def look(self) -> None:
        """One look at the alias. A version that is refused is named once, tried again at every look (a slow store may
        show its files late), and the old one stays.
        """
        try:
            version = champion_version(self._registry, self._settings.alias)
            if version != (self._next or self.current).version:
                self._next = self._load(version)
            self._refusal = None
        except ModelError as error:
            if str(error) != self._refusal:
                self._refusal = str(error)
                self._metrics.model_refused(error, kept=self.current.version)
        except RegistryError as error:
            self._metrics.survived("reload", error)

    def _watch(self) -> None:
        while not self._closing.wait(self._settings.reload_seconds):
            try:
                self.look()
            except Exception as error:      # this thread must outlive whatever a store or a file does
                self._metrics.survived("reload", error)

    def _load(self, version: str) -> Champion:
        loaded = artifact.load(self._registry, version, self._device)
        self._require_features(loaded)
        rate = target_rate(self._settings, loaded.manifest)
        return Champion(version, Detector(loaded, rate, withhold=self._settings.warm_up == "withhold"))

    def _require_features(self, loaded: Artifact) -> None:
        wanted = self._current.detector.manifest.features if self._current else self._features
        found = loaded.manifest.features
        if wanted is None or found == tuple(wanted):
            return
        missing, extra = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
        said = f"it lacks {missing}, and has {extra} besides" if missing or extra else "in another order"
        raise ModelError(
            f"{self._registry.place}/{loaded.manifest.version} has other features than "
            f"{'the served model' if self._current else 'ZMU_INPUT__FEATURES'}: {said}; train it on the same, "
            "or restart the worker with the new ones"
        )

    def _announce(self, champion: Champion) -> None:
        manifest = champion.detector.manifest
        self._metrics.model_loaded(
            manifest.name,
            champion.version,
            manifest.sha256,
            manifest.kind,
            champion.detector.threshold,
            champion.detector.target_rate,
            str(self._device),
        )
        self._metrics.device_memory(device.memory_bytes(self._device, champion.detector.weights_bytes))


def champion_version(registry: Registry, alias: str) -> str:
    """The version that the alias names. Raises ModelError where there is none."""
    version = registry.resolve(alias)
    if version is None:
        found = registry.versions()
        said = f"versions: {', '.join(found[-5:])}" if found else "it holds no version"
        raise ModelError(
            f"no model {alias!r} in {registry.place} ({said}); "
            "publish one with zmu-training run, or name another in ZMU_MODEL__REGISTRY and ZMU_MODEL__NAME"
        )
    return version
