"""A secured Kafka and the users of one test module: how each logs in, what each needs, what a message grants."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from tests.programs import worker_environment
from tests.secured import Right, SecuredBroker

PASSWORD = "correct-horse-battery"
KEY_PASSWORD = "staple-of-the-key"
METRICS_PASSWORD = "only-prometheus-knows"
SECRETS = (PASSWORD, KEY_PASSWORD, METRICS_PASSWORD)


class Login(NamedTuple):
    """How a user gets in: what the environment says."""

    user: str
    variables: Mapping[str, str]


class Site(NamedTuple):
    broker: SecuredBroker
    folder: Path

    def login(self, user: str, mechanism: str) -> Login:
        """mechanism: of SASL, or `mutual`, which goes by a certificate whose key is sealed."""
        common = {"ZMU_KAFKA__SSL_CAFILE": str(self.broker.authority.certificate)}
        if mechanism == "mutual":
            pem = self.broker.authority.sign(user, password=KEY_PASSWORD)
            return Login(user, common | {
                "ZMU_KAFKA__BOOTSTRAP_SERVERS": self.broker.address["mutual"],
                "ZMU_KAFKA__SECURITY_PROTOCOL": "SSL",
                "ZMU_KAFKA__SSL_CERTFILE": str(pem.with_suffix(".crt")),
                "ZMU_KAFKA__SSL_KEYFILE": str(pem.with_suffix(".key")),
                "ZMU_KAFKA__SSL_PASSWORD_FILE": str(self.secret("key-password", KEY_PASSWORD)),
            })
        return Login(user, common | {
            "ZMU_KAFKA__BOOTSTRAP_SERVERS": self.broker.address["sasl"],
            "ZMU_KAFKA__SECURITY_PROTOCOL": "SASL_SSL",
            "ZMU_KAFKA__SASL_MECHANISM": mechanism,
            "ZMU_KAFKA__USERNAME": user,
            "ZMU_KAFKA__PASSWORD_FILE": str(self.secret("password", PASSWORD)),
        })

    def secret(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text + "\n")
        return path

    def environment(self, login: Login, **changes: str) -> dict[str, str]:
        """Topics of the user's own: in-USER, out-USER, …"""
        named = {"input": f"in-{login.user}", "output": f"out-{login.user}", "dead": f"dead-{login.user}"}
        return {
            **worker_environment(login.variables["ZMU_KAFKA__BOOTSTRAP_SERVERS"], self.folder / "models", named),
            "ZMU_INPUT__GROUP_ID": f"group-{login.user}",
            "ZMU_INCIDENTS__TOPIC": f"incidents-{login.user}",
            **login.variables,
            **changes,
        }


def needed(user: str, exactly_once: bool) -> list[Right]:
    """The table of docs/security.md, for a worker whose topics are all there."""
    transactions: list[Right] = [("transactional_id", f"group-{user}-*", "write")] if exactly_once else []
    return [
        ("topic", f"in-{user}", "read"),
        ("group", f"group-{user}", "read"),
        ("topic", f"out-{user}", "write"),
        ("topic", f"dead-{user}", "write"),
        ("topic", f"incidents-{user}", "write"),
        ("topic", f"group-{user}-state", "read"),
        ("topic", f"group-{user}-state", "write"),
        *transactions,
    ]


def commands(text: str) -> Iterator[tuple[str, Right]]:
    """User and right of each line of kafka-acls.sh."""
    for line in text.splitlines():
        words = shlex.split(line) if "kafka-acls.sh --" in line else []
        if words:
            given = dict(pairwise(words))
            kind = next(kind for kind in ("topic", "group", "transactional-id") if f"--{kind}" in given)
            name = given[f"--{kind}"] + ("*" if given.get("--resource-pattern-type") == "prefixed" else "")
            assert "--add" in words
            yield (
                given["--allow-principal"].removeprefix("User:"),
                (kind.replace("-", "_"), name, given["--operation"].lower()),
            )
