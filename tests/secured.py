"""A Kafka that lets nobody in unasked: SASL over TLS, mutual TLS, and ACLs by KRaft's StandardAuthorizer.

Tests manage it through a listener of its own, whose anonymous user may do everything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from kafka import KafkaAdminClient
from kafka.admin import (
    ACL,
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ResourcePattern,
    ResourcePatternFilter,
    ResourceType,
)

from deploy.demo.broker import EmbeddedBroker
from deploy.demo.ports import free_port
from tests.certificates import Authority

HOSTS = "DNS:localhost,IP:127.0.0.1"
Right = tuple[str, str, str]
"""Kind of resource (topic, group, transactional_id, cluster), its name, operation; a name with * is a prefix."""


class SecuredBroker:
    """Addresses by how one gets in: sasl, mutual; and with certificates that are not to be trusted: expired, elsewhere.

    users: password by user; each may log in by SCRAM-SHA-512 and by PLAIN.
    """

    def __init__(self, folder: Path, users: Mapping[str, str]) -> None:
        self.authority = Authority(folder / "pki")
        pem = {
            "SASL": self.authority.sign("broker", HOSTS),
            "EXPIRED": self.authority.sign("expired", HOSTS, days=-1),
            "ELSEWHERE": self.authority.sign("elsewhere", "DNS:kafka.example.com"),
        }
        pem["MUTUAL"] = pem["SASL"]
        host, ports = "localhost", {name: free_port() for name in ("OPEN", *pem, "CONTROLLER")}
        protocols = {"OPEN": "PLAINTEXT", "CONTROLLER": "PLAINTEXT", "SASL": "SASL_SSL"}
        listeners = [f"{name}://{host if name in pem else '127.0.0.1'}:{port}" for name, port in ports.items()]
        jaas = " ".join(f'user_{name}="{password}"' for name, password in users.items())
        store = {
            f"listener.name.{name.lower()}.ssl.{key}": value
            for name, path in pem.items()
            for key, value in {"keystore.type": "PEM", "keystore.location": str(path)}.items()
        }
        self._broker = EmbeddedBroker(
            folder / "kafka",
            port=ports["OPEN"],
            scram=users,
            properties={
                "listeners": ",".join(listeners),
                "advertised.listeners": ",".join(listeners[:-1]),
                "listener.security.protocol.map": ",".join(f"{n}:{protocols.get(n, 'SSL')}" for n in ports),
                "inter.broker.listener.name": "OPEN",
                "controller.quorum.voters": f"1@127.0.0.1:{ports['CONTROLLER']}",
                "ssl.truststore.type": "PEM",
                "ssl.truststore.location": str(self.authority.certificate),
                **store,
                "listener.name.mutual.ssl.client.auth": "required",
                "listener.name.mutual.ssl.principal.mapping.rules": "RULE:^CN=([^,]+).*$/$1/",
                "listener.name.sasl.sasl.enabled.mechanisms": "SCRAM-SHA-512,PLAIN",
                "listener.name.sasl.scram-sha-512.sasl.jaas.config":
                    "org.apache.kafka.common.security.scram.ScramLoginModule required;",
                "listener.name.sasl.plain.sasl.jaas.config":
                    f"org.apache.kafka.common.security.plain.PlainLoginModule required {jaas};",
                "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
                "super.users": "User:ANONYMOUS",
            },
        )
        self.address = {name.lower(): f"{host}:{ports[name]}" for name in pem}
        self.open = self._broker.bootstrap_servers

    def start(self) -> None:
        self._broker.start()
        self.admin = KafkaAdminClient(bootstrap_servers=self.open)

    def stop(self) -> None:
        self.admin.close()
        self._broker.close()

    def grant(self, user: str, rights: Iterable[Right]) -> None:
        made = self.admin.create_acls([_acl(user, right) for right in rights])
        assert not made["failed"], made

    def revoke(self, user: str, right: Right | None = None) -> None:
        """One right, or everything that the user may."""
        every = ResourcePatternFilter(ResourceType.ANY, None, ACLResourcePatternType.ANY)
        one = ACLFilter(f"User:{user}", "*", ACLOperation.ANY, ACLPermissionType.ANY, every)
        ((_, gone, _),) = self.admin.delete_acls([one if right is None else _acl(user, right)])
        assert right is None or gone


def _acl(user: str, right: Right) -> ACL:
    kind, name, operation = right
    pattern = ACLResourcePatternType.PREFIXED if name.endswith("*") else ACLResourcePatternType.LITERAL
    resource = ResourcePattern(ResourceType[kind.upper()], name.removesuffix("*"), pattern)
    return ACL(f"User:{user}", "*", ACLOperation[operation.upper()], ACLPermissionType.ALLOW, resource)
