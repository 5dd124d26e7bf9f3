"""The served model: the alias's version, looked at every so often, taken over between two batches."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

import torch

from worker import device
from worker.detection.budget import target_rate
from worker.detection.detector import Detector
from worker.errors import ModelError, RegistryError
from worker.heartbeat import Heartbeat
from worker.metrics import Metrics
from worker.models import aliases, artifact
from worker.models.artifact import Artifact
from worker.models.drift import LEAST_READINGS, Drift
from worker.models.guard import Before, Guard, Rate
from worker.models.registry import Registry
from worker.models.shadow import Shadow
from worker.models.shadow_time import NOTE_SECONDS
from worker.settings import ModelSettings

Features = tuple[str, ...]
GUARD, SHADOW_TIME = "guard", "shadow time"     # in place of an alias, where refusals are kept


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
        self._lock = threading.Lock()           # of what serves and who looks on: the loop and the thread change it
        self._current: Champion | None = None
        self._next: Champion | None = None
        self._refusals: dict[str, str] = {}     # by alias, the one that was said
        self._barred: dict[str, str] = {}       # version that the guard took out of service → the one before it
        self._shadow: Shadow | None = None
        self._noted = time.monotonic()
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
        if self._next is None:                  # the loop asks at every turn
            return False
        with self._lock:
            taken, before = self._next, self.current
            kept = tuple(o for o in before.detector.observers if not isinstance(o, Shadow | Guard))
            before.detector.observers = kept    # a guard holds the version before, and that one's must not hold another
            if self._barred.keys().isdisjoint({taken.version, before.version}):
                self._watch_over(taken, before)
            self._current, self._next = taken, None     # in this order: whoever looks finds it in one of both
        self._announce(taken)
        return True

    def close(self) -> None:
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)        # no longer: a store that hangs must not keep the program

    def look(self) -> None:
        """One look at the aliases. A version that is refused is named once, tried again at every look (a slow store may
        show its files late), and the old one stays.
        """
        self._look_at(self._settings.alias, self._look_at_champion)
        if self._settings.shadow is not None:
            self._look_at(self._settings.shadow, self._look_at_shadow)
            if time.monotonic() - self._noted >= NOTE_SECONDS:
                self._note_shadow()
        else:
            self._attach()

    def _look_at(self, alias: str, looked: Callable[[], None]) -> None:
        try:
            looked()
            self._refusals.pop(alias, None)
        except ModelError as error:
            if str(error) != self._refusals.get(alias):
                self._refusals[alias] = str(error)
                self._metrics.model_refused(error, kept=self.current.version)
        except RegistryError as error:
            self._metrics.survived("reload", error)

    def _look_at_champion(self) -> None:
        version = champion_version(self._registry, self._settings.alias)
        with self._lock:
            barred = version in self._barred
            if not barred:
                self._barred.clear()            # somebody has moved the alias: what he promotes is tried again
            newer = version != (self._next or self.current).version
        if barred:
            self._move_alias_back(version)
        elif newer:
            self._next = self._load(version)

    def _look_at_shadow(self) -> None:
        """A shadow is looked on with by whichever version serves; where both are one, there is none."""
        version = self._registry.resolve(self._settings.shadow or "")
        if version in (None, self.current.version):
            self._note_shadow()
            self._shadow = None
        elif self._shadow is None or self._shadow.version != version:
            self._note_shadow()
            self._shadow = Shadow(version or "", self._load(version or "").detector, self._metrics)
        self._attach()

    def _note_shadow(self) -> None:
        """Whoever promotes it may ask how long it has been one. No right to write costs that, and no more."""
        shadow, self._noted = self._shadow, time.monotonic()
        if shadow is None:
            return
        try:
            shadow.stretch.note(self._registry)
            self._refusals.pop(SHADOW_TIME, None)
        except (ModelError, RegistryError) as error:
            if self._refusals.get(SHADOW_TIME) != str(error):
                self._refusals[SHADOW_TIME] = str(error)
                self._metrics.survived("shadow", error)

    def _attach(self) -> None:
        """The shadow looks on with what serves, and a guard that has finished no longer does."""
        with self._lock:
            detector = self.current.detector
            kept = tuple(
                o for o in detector.observers
                if not isinstance(o, Shadow) and not (isinstance(o, Guard) and o.finished)
            )
            detector.observers = (*kept, self._shadow) if self._shadow is not None else kept

    def _watch_over(self, new: Champion, before: Champion) -> None:
        factor = self._settings.guard_factor
        if not factor:
            return
        most = min(factor * new.detector.target_rate, 1.0)

        def trip(share: float) -> None:
            with self._lock:
                self._barred[new.version] = before.version
                self._next = before
            self._metrics.rolled_back(new.version, before.version, share, most)

        rate = next((o for o in before.detector.observers if isinstance(o, Rate)), Rate())
        unheard = Before(before.detector, rate.value, self._metrics)
        new.detector.observers += (Guard(most, unheard, self._settings.guard_readings, trip),)

    def _move_alias_back(self, version: str) -> None:
        """So that other workers and a restart serve the one before as well."""
        if self._refusals.get(GUARD) == version:
            return                              # tried, and said
        try:
            aliases.roll_back_to(self._registry, self._settings.alias, version, self._barred[version])
        except (ModelError, RegistryError) as error:
            self._refusals[GUARD] = version
            self._metrics.alias_moved_back(error)
        else:
            self._metrics.alias_moved_back(None)

    def _watch(self) -> None:
        while not self._closing.wait(self._settings.reload_seconds):
            try:
                self.look()
            except Exception as error:      # this thread must outlive whatever a store or a file does
                self._metrics.survived("reload", error)
        self._note_shadow()

    def _load(self, version: str) -> Champion:
        loaded = artifact.load(self._registry, version, self._device)
        self._require_features(loaded)
        rate = target_rate(self._settings, loaded.manifest)
        detector = Detector(loaded, rate, withhold=self._settings.warm_up == "withhold")
        window, reference = self._settings.drift_readings, loaded.manifest.reference
        detector.observers = (Rate(),)
        if window and reference is not None:
            detector.observers += (Drift(reference, window, least=min(window, LEAST_READINGS)),)
        return Champion(version, detector)

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
        drift = next((o for o in champion.detector.observers if isinstance(o, Drift)), None)
        self._metrics.drifts(manifest.features, drift)
        self._attach()
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
