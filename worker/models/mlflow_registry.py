"""Model versions and aliases in an MLflow registry: ZMU_MODEL__REGISTRY=mlflow+https://host:5000.

    registered model <name>, with its aliases
    a model version tagged zmu.version        one of ours: {model.safetensors, manifest.json, report.html}
    its run                                   where it comes from: parameters, metrics, the report's plots

The model version is made last, when all its files are there and its run has ended: until then no reader takes it for
one. MLflow numbers its versions; ours keep their names, which the tag holds. Nothing is unpickled here either.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from worker.errors import ModelError, RegistryError
from worker.models import mlflow_client, mlflow_run
from worker.models.registry import (
    ALIAS,
    MANIFEST,
    MAX_FILE_BYTES,
    MAX_NOTE_BYTES,
    REPORT,
    VERSION,
    Registry,
    require_sizes,
)

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

TAG = "zmu.version"
NOTE = "zmu.shadow."
PLOTS = "plots"
PAGE = 1000                             # versions asked for at once
METRICS_AT_ONCE, PARAMS_AT_ONCE = 1000, 100             # MLflow takes no more
ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")     # the second of an alias that is not there


class MlflowRegistry(Registry):
    """The same calls, answered by an MLflow server. It is found, and lets us in, by MLflow's own environment.

    Raises RegistryError where the URL is none of a server's, or MLflow's client is not installed.
    """

    def __init__(self, url: str, name: str) -> None:
        self.url, self.name = url, name
        self._server = url.removeprefix("mlflow+").rstrip("/")
        parts = urlsplit(self._server)
        if not parts.hostname or parts.username is not None or parts.query:
            raise RegistryError(
                f"registry mlflow+{parts.scheme}://…{parts.hostname or ''}: not of the form mlflow+https://host:port; "
                "a password goes into MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            )
        self._client = mlflow_client.connect(self._server, url)

    @property
    def folder(self) -> str | None:
        return None

    def versions(self) -> list[str]:
        with self._asking("list"):
            return sorted(self._ours())

    def aliases(self) -> dict[str, str]:
        from mlflow.exceptions import MlflowException

        with self._asking("list"):
            try:
                named = self._client.get_registered_model(self.name).aliases
            except MlflowException as error:
                if error.error_code in ABSENT:
                    return {}
                raise
            by_number = {str(found.version): version for version, found in self._ours().items()}
        return {
            alias: by_number[str(number)]
            for alias, number in sorted(named.items())
            if ALIAS.fullmatch(alias) and str(number) in by_number
        }

    def resolve(self, alias: str) -> str | None:
        from mlflow.exceptions import MlflowException

        if not ALIAS.fullmatch(alias):
            return None
        with self._asking("read"):
            try:
                found = self._client.get_model_version_by_alias(self.name, alias)
            except MlflowException as error:
                if error.error_code in ABSENT:
                    return None
                raise
        version = str(found.tags.get(TAG, ""))
        if not VERSION.fullmatch(version):
            raise ModelError(
                f"alias {alias!r} in {self.place} names version {found.version}, which zmu-training did not publish: "
                f"it has no tag {TAG}; `zmu-training models promote` names one that has"
            )
        return version

    def read(self, version: str, file: str) -> bytes:
        found = self._required(version, file)
        with self._asking("read"):
            number = str(found.version)
            content = mlflow_client.fetched(self._server, self.name, number, file, MAX_FILE_BYTES[file])
        if content is None:
            raise ModelError(f"{self.place}/{version} has no {file}; `zmu-training models list` shows the versions")
        return content

    def publish(self, version: str, files: Mapping[str, bytes]) -> None:
        """Its run tells where it comes from, and ends as FAILED where there is no version in the end."""
        require_sizes(files)
        with self._asking("write"):
            if self._found(version) is not None:
                raise RegistryError(f"{self.place}/{version} is there already; versions never change")
            run = self._client.create_run(
                self._experiment(), run_name=version, tags={TAG: version, "mlflow.source.name": "zmu-training"}
            )
            try:
                self._track(run.info.run_id, files)
                self._client.set_terminated(run.info.run_id, "FINISHED")
                self._register(version, run.info.run_id, run.info.artifact_uri)
            except BaseException:
                with contextlib.suppress(Exception):    # what went wrong first is what is told
                    self._client.set_terminated(run.info.run_id, "FAILED")
                raise

    def point(self, alias: str, version: str) -> None:
        assert ALIAS.fullmatch(alias), alias
        with self._asking("write"):
            found = self._found(version)
            if found is None:
                raise ModelError(
                    f"{self.place} has no version {version!r}; `zmu-training models list` shows the versions"
                )
            self._client.set_registered_model_alias(self.name, alias, str(found.version))

    def note(self, version: str, name: str, content: bytes) -> None:
        """A tag of the model version."""
        with self._asking("write"):
            found = self._found(version)
            if found is None:
                raise RegistryError(f"{self.place} has no version {version!r} any more to note {name} of")
            self._client.set_model_version_tag(self.name, str(found.version), f"{NOTE}{name}", content.decode())

    def notes(self, version: str) -> list[bytes]:
        with self._asking("read"):
            found = self._found(version)
        tags = found.tags if found is not None else {}
        contents = [value.encode() for tag, value in sorted(tags.items()) if tag.startswith(NOTE)]
        return [content for content in contents if len(content) <= MAX_NOTE_BYTES]

    def writable(self) -> None:
        """Makes the registered model and the experiment where they are not there yet."""
        with self._asking("write"):
            self._ensure_model()
            probe = f"zmu.probe.{secrets.token_hex(4)}"
            self._client.set_registered_model_tag(self.name, probe, "")
            self._client.delete_registered_model_tag(self.name, probe)
            place = self._client.get_experiment(self._experiment()).artifact_location
        if urlsplit(place).scheme in ("", "file"):
            raise RegistryError(
                f"registry {self.place}: the server tells its clients to keep files in {place}, each on its own "
                "machine, where a worker does not find them; start it with --serve-artifacts and "
                "--artifacts-destination, and name a new experiment in MLFLOW_EXPERIMENT_NAME: an old one keeps its "
                "place"
            )

    def _experiment(self) -> str:
        """Its id; made where it is not there yet. MLflow's own setting, else the model's name, says which."""
        from mlflow.environment_variables import MLFLOW_EXPERIMENT_NAME

        name = MLFLOW_EXPERIMENT_NAME.get() or self.name
        found = self._client.get_experiment_by_name(name)
        return str(found.experiment_id if found is not None else self._client.create_experiment(name))

    def _ensure_model(self) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(self.name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _track(self, run_id: str, files: Mapping[str, bytes]) -> None:
        from mlflow.entities import Metric, Param

        manifest = json.loads(files[MANIFEST])
        now_ms = time.time_ns() // 1_000_000
        params = [Param(name, value) for name, value in mlflow_run.params(manifest).items()]
        metrics = [Metric(f.name, f.value, now_ms, f.step) for f in mlflow_run.figures(manifest)]
        for start in range(0, len(params), PARAMS_AT_ONCE):
            self._client.log_batch(run_id, params=params[start : start + PARAMS_AT_ONCE])
        for start in range(0, len(metrics), METRICS_AT_ONCE):
            self._client.log_batch(run_id, metrics=metrics[start : start + METRICS_AT_ONCE])
        with tempfile.TemporaryDirectory(prefix="zmu-") as name:
            folder = Path(name)
            for file, content in files.items():
                (folder / file).write_bytes(content)
            pictures = mlflow_run.pictures(files.get(REPORT, b""))
            if pictures:
                (folder / PLOTS).mkdir()
            for file, content in pictures.items():
                (folder / PLOTS / file).write_bytes(content)
            self._client.log_artifacts(run_id, name)

    def _register(self, version: str, run_id: str, source: str) -> None:
        self._ensure_model()
        self._client.create_model_version(self.name, source, run_id, tags={TAG: version})

    def _ours(self, also: str = "") -> dict[str, ModelVersion]:
        """By name; where two have one (two requests of which one was a repetition), the first."""
        found: list[ModelVersion] = []
        token = None
        while True:
            page = self._client.search_model_versions(f"name='{self.name}'{also}", PAGE, page_token=token)
            found += page
            token = page.token
            if not token:
                break
        found.sort(key=lambda entry: -int(entry.version))
        return {e.tags[TAG]: e for e in found if e.status == "READY" and VERSION.fullmatch(e.tags.get(TAG, ""))}

    def _found(self, version: str) -> ModelVersion | None:
        if not VERSION.fullmatch(version):
            raise ModelError(f"{version!r} is no name of a version in {self.place}")
        return self._ours(f" and tags.`{TAG}`='{version}'").get(version)

    def _required(self, version: str, file: str) -> ModelVersion:
        if file not in MAX_FILE_BYTES:
            raise ModelError(f"{file!r} is no file of a version in {self.place}")
        with self._asking("read"):
            found = self._found(version)
        if found is None:
            raise ModelError(f"{self.place}/{version} has no {file}; `zmu-training models list` shows the versions")
        return found

    @contextlib.contextmanager
    def _asking(self, doing: str) -> Iterator[None]:
        """Turns what MLflow's client raises into one message that names the place and the settings."""
        try:
            yield
        except (RegistryError, ModelError):
            raise
        except Exception as error:
            raise RegistryError(
                f"registry {self.place}: cannot {doing} ({mlflow_client.cause(error)}); see that an MLflow server "
                "answers at ZMU_MODEL__REGISTRY, and that MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or "
                "MLFLOW_TRACKING_TOKEN, let this user in"
            ) from error
