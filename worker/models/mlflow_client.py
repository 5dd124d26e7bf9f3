"""The way to an MLflow server: MLflow's own client, made to speak as the rest of the program does."""

from __future__ import annotations

import logging
import os
import re
from typing import TYPE_CHECKING

from worker.errors import RegistryError
from worker.models import inside

if TYPE_CHECKING:
    from mlflow import MlflowClient

# Set in the environment, MLflow's own way of being set, where the operator has set nothing else.
DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",             # its 7 are minutes: a worker looks again soon enough
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",   # stdout is the command's
    "MLFLOW_DISABLE_TELEMETRY": "true",                 # nothing of a plant goes to others
}
CHUNK_BYTES = 2**20


def connect(server: str, setting: str) -> MlflowClient:
    """server: http or https URL, asked nothing yet. Raises RegistryError where the client is not installed."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    try:
        from mlflow import MlflowClient
    except ImportError as error:
        raise RegistryError(
            f"registry {setting!r} is MLflow's, and its client is not installed ({error}); pip install 'zmu[mlflow]'"
        ) from None
    logger = logging.getLogger("mlflow")
    logger.handlers.clear()                             # its lines go where ours go
    logger.propagate = True
    logger.setLevel(logging.WARNING)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)     # says each retry; we say what came of it
    return MlflowClient(tracking_uri=server, registry_uri=server)


def fetched(server: str, name: str, number: str, path: str, most_bytes: int) -> bytes | None:
    """One file of a model version, through the server, whatever store it keeps it in; None where it has none such.

    In memory, and no more than most_bytes: a worker may have no disk to speak of. Raises ModelError for a larger one.
    """
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    asked = {"name": name, "version": number, "path": path}
    answer = http_request(
        get_default_host_creds(server), "/model-versions/get-artifact", "GET", params=asked, stream=True,
        retry_codes=frozenset(), raise_on_status=False,
    )
    with answer:
        if answer.status_code == 404:
            return None
        answer.raise_for_status()
        content = bytearray()
        for chunk in answer.iter_content(CHUNK_BYTES):
            content += chunk
            inside.require_size(path, len(content), most_bytes)
    return bytes(content)


def cause(error: BaseException) -> str:
    """What lies at the bottom of it, in a line that is the same each time: MLflow's wrap it in several others'."""
    at: BaseException | None = error
    while at is not None:
        if isinstance(at, OSError) and at.strerror:
            return at.strerror
        inner = next((a for a in (getattr(at, "reason", None), *at.args) if isinstance(a, BaseException)), None)
        at = inner or at.__cause__ or at.__context__
    said = re.sub(r"\s+", " ", f"{type(error).__name__}: {error}")
    return re.sub(r" at 0x[0-9a-f]+", "", said)[:300]
