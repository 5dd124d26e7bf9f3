"""The name under which a replica writes its transactions."""

from __future__ import annotations

import os
import re
import socket
import uuid

from worker.settings import Settings

_ORDINAL = re.compile(r".+-\d{1,5}")


def transactional_id(group_id: str, asked: str | None, host: str, in_kubernetes: bool) -> str:
    """Stable where the replica's name is, unique elsewhere.

    A stable one lets a restarted replica end at once what its predecessor left open. Two at work under one name
    would end each other's transactions, so that only the pod of a StatefulSet (`name-0`) is taken at its name:
    nowhere else does a host's name promise that one worker runs there.

    asked: what the operator has set, or None.
    """
    if asked is not None:
        return asked
    stable = in_kubernetes and _ORDINAL.fullmatch(host)
    return f"{group_id}-{host if stable else uuid.uuid4().hex}"


def transactional_id_of(settings: Settings) -> str:
    """Of this process."""
    return transactional_id(
        settings.input.group_id,
        settings.output.transactional_id,
        socket.gethostname(),
        in_kubernetes="KUBERNETES_SERVICE_HOST" in os.environ,
    )
