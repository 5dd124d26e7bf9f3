"""Why a broker does not let us in. kafka-python only says that no answer came, and drops what a broker says before it
closes a connection; so the door is tried once more by hand: TCP, TLS, one request, the login.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator
from typing import Any

from kafka.errors import KafkaError, for_code
from kafka.net.sasl import get_sasl_mechanism
from kafka.protocol.metadata import ApiVersionsRequest
from kafka.protocol.parser import KafkaProtocol
from kafka.protocol.sasl import SaslAuthenticateRequest, SaslHandshakeRequest

from worker.errors import BrokerError

PATIENCE_SECONDS = 5.0


class Refused(Exception):
    """The broker is there and does not let us in; trying again will not mend it."""


def refusal(options: dict[str, Any]) -> str | None:
    """What the first broker that can be reached has against us and how to mend it; None where it is not known.

    options: of kafka-python's clients, as brokers.client_options makes them.
    """
    for server in options["bootstrap_servers"]:
        host, _, port = server.rpartition(":")
        try:
            _enter(host.strip("[]"), int(port), options)
        except Refused as why:
            return f"Kafka at {server} {why}"
        except (OSError, ValueError, KafkaError, IndexError):
            continue
    return None


def tls_context(options: dict[str, Any]) -> ssl.SSLContext:
    """As kafka-python makes it of the same options. Raises BrokerError where a file of theirs is not to be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = options["ssl_check_hostname"]
    authority, certificate, key = options["ssl_cafile"], options["ssl_certfile"], options["ssl_keyfile"]
    if authority:
        try:
            context.load_verify_locations(authority)
        except OSError as error:            # ssl.SSLError is one
            raise BrokerError(
                f"ZMU_KAFKA__SSL_CAFILE={authority} cannot be used ({error.strerror or error}); name a PEM file of the "
                "authority behind the brokers' certificates"
            ) from None
    else:
        context.load_default_certs()
    if certificate:
        try:
            context.load_cert_chain(certificate, key, options["ssl_password"])
        except OSError as error:
            raise BrokerError(
                f"ZMU_KAFKA__SSL_CERTFILE={certificate} and ZMU_KAFKA__SSL_KEYFILE={key} cannot be used "
                f"({error.strerror or error}); name PEM files of a certificate and of its key, and give the key's "
                "password in ZMU_KAFKA__SSL_PASSWORD if it has one"
            ) from None
    return context


def _enter(host: str, port: int, options: dict[str, Any]) -> None:
    plain = socket.create_connection((host, port), PATIENCE_SECONDS)
    with plain, _secured(plain, host, options) as connection:
        talk = _Talk(connection, options["client_id"])
        if options["security_protocol"].startswith("SASL"):
            _log_in(talk, host, options)
        else:
            talk.ask(ApiVersionsRequest(version=0))     # a certificate of ours is refused only when we read


@contextlib.contextmanager
def _secured(plain: socket.socket, host: str, options: dict[str, Any]) -> Iterator[socket.socket]:
    if not options["security_protocol"].endswith("SSL"):
        yield plain
        return
    context = tls_context(options)
    try:
        with context.wrap_socket(plain, server_hostname=host) as secured:
            yield secured
    except ssl.SSLCertVerificationError as error:
        raise Refused(_mistrusted(error.verify_message)) from None
    except ssl.SSLEOFError:
        raise                               # whoever is away behind a balancer closes so, too
    except ssl.SSLError as error:
        raise Refused(_unheard(error.reason or str(error))) from None


def _mistrusted(said: str) -> str:
    if "expired" in said:
        return "shows a certificate that has expired; renew it there, and see this machine's clock"
    if "mismatch" in said or "not valid for" in said:
        return (
            f"shows a certificate for another name ({said}); name the broker in ZMU_KAFKA__BOOTSTRAP_SERVERS as its "
            "certificate does, or give it one for this name"
        )
    return (
        f"shows a certificate that is not trusted ({said}); set ZMU_KAFKA__SSL_CAFILE to the PEM file of the authority "
        "that signed it"
    )


def _unheard(said: str) -> str:
    if "WRONG_VERSION" in said or "RECORD_LAYER" in said:
        return (
            f"does not speak TLS there ({said}); see ZMU_KAFKA__SECURITY_PROTOCOL, and the port in "
            "ZMU_KAFKA__BOOTSTRAP_SERVERS"
        )
    return (
        f"does not take this client's certificate ({said}); set ZMU_KAFKA__SSL_CERTFILE and ZMU_KAFKA__SSL_KEYFILE to "
        "one that an authority of the broker's has signed"
    )


def _log_in(talk: _Talk, host: str, options: dict[str, Any]) -> None:
    name = options["sasl_mechanism"]
    offered = talk.ask(SaslHandshakeRequest(version=1, mechanism=name))
    if offered.error_code:
        raise Refused(
            f"does not know the login {name}; set ZMU_KAFKA__SASL_MECHANISM to one that it has: "
            f"{', '.join(sorted(offered.mechanisms))}"
        )
    mechanism = get_sasl_mechanism(name)(host=host, **options)
    while not mechanism.is_done():
        answer = talk.ask(SaslAuthenticateRequest(version=0, auth_bytes=mechanism.auth_bytes()))
        if answer.error_code:
            raise Refused(
                f"refused the login of {options['sasl_plain_username']!r} by {name} "
                f"({for_code(answer.error_code).__name__}); see ZMU_KAFKA__USERNAME, ZMU_KAFKA__PASSWORD or "
                "ZMU_KAFKA__PASSWORD_FILE, and ZMU_KAFKA__SASL_MECHANISM"
            )
        mechanism.receive(answer.auth_bytes)


class _Talk:
    """One request, one answer."""

    def __init__(self, connection: socket.socket, client_id: str) -> None:
        self._connection, self._protocol = connection, KafkaProtocol(client_id=client_id)

    def ask(self, request: Any) -> Any:
        """Raises OSError where the broker closes the connection instead."""
        self._protocol.send_request(request)
        self._connection.sendall(self._protocol.send_bytes())
        while data := self._connection.recv(65_536):
            for _, answer in self._protocol.receive_bytes(data):
                return answer
        raise ConnectionError("closed")
