"""/metrics, /healthz and /readyz, served beside the loop by one small thread."""

from __future__ import annotations

import base64
import contextlib
import hmac
import json
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from worker.errors import SettingsError
from worker.settings import HttpSettings

if TYPE_CHECKING:
    from wsgiref.types import StartResponse

Check = Callable[[], tuple[bool, dict[str, object]]]
PATIENCE_SECONDS = 10.0                 # with a client that says nothing


class HttpServer:
    """Answers until closed. `alive` and `ready` return yes or no and the facts behind it, shown as JSON.

    Raises SettingsError where the address cannot be taken, or the certificate not be used.
    """

    def __init__(self, settings: HttpSettings, registry: CollectorRegistry, alive: Check, ready: Check) -> None:
        metrics = make_wsgi_app(registry)
        checks = {"/healthz": alive, "/readyz": ready}
        wanted = _basic(settings)

        def app(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
            path = environ.get("PATH_INFO")
            if path == "/metrics":
                if wanted is not None and not _admits(environ.get("HTTP_AUTHORIZATION", ""), wanted):
                    challenge = [("WWW-Authenticate", 'Basic realm="zmu"'), ("Content-Type", "text/plain")]
                    start_response("401 Unauthorized", challenge)
                    return [b"/metrics wants a user and a password\n"]
                exposition: Iterable[bytes] = metrics(environ, start_response)
                return exposition
            check = checks.get(str(path))
            if check is None:
                start_response("404 Not Found", [("Content-Type", "text/plain; charset=utf-8")])
                return [b"/metrics /healthz /readyz\n"]
            yes, facts = check()
            status = "200 OK" if yes else "503 Service Unavailable"
            start_response(status, [("Content-Type", "application/json")])
            return [json.dumps({"ok": yes, **facts}).encode() + b"\n"]

        certificate = None
        if settings.ssl_certfile is not None and settings.ssl_keyfile is not None:
            certificate = _Certificate(settings.ssl_certfile, settings.ssl_keyfile)
        try:
            self._server = _Server(settings.host, settings.port, certificate)
        except OSError as error:
            host = f"[{settings.host}]" if ":" in settings.host else settings.host
            raise SettingsError(
                f"cannot listen on {host}:{settings.port} ({error.strerror}); "
                "set ZMU_HTTP__PORT to a free port (0 takes any), and ZMU_HTTP__HOST to an address of this machine"
            ) from None
        self._server.set_app(app)
        self.port: int = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, name="http", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _basic(settings: HttpSettings) -> bytes | None:
    """The credentials that let one in (RFC 7617); None where everyone may."""
    if settings.username is None:
        return None
    return base64.b64encode(f"{settings.username}:{settings.secret}".encode())


def _admits(header: str, wanted: bytes) -> bool:
    scheme, _, given = header.partition(" ")
    return scheme.lower() == "basic" and hmac.compare_digest(given.strip().encode("latin-1"), wanted)


class _Certificate:
    """Of the server, and its key: as they lie on disk now, for they are renewed while we run."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._files = certificate, key
        try:
            self._stamp, self._context = self._stamps(), self._loaded()
        except OSError as error:            # ssl.SSLError is one
            raise SettingsError(
                f"ZMU_HTTP__SSL_CERTFILE={certificate} and ZMU_HTTP__SSL_KEYFILE={key} cannot be used "
                f"({error.strerror or error}); name PEM files of a certificate and its key, without a password"
            ) from None

    def _loaded(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # Without a password, OpenSSL would ask for that of a sealed key on the terminal.
        context.load_cert_chain(*self._files, password="")
        return context

    def _stamps(self) -> list[int]:
        return [os.stat(path).st_mtime_ns for path in self._files]

    def secured(self, connection: socket.socket) -> ssl.SSLSocket:
        """Shakes hands at the first read: a client that says nothing keeps only its own thread waiting."""
        # Half written, the old one serves on, and the new one is tried at the next connection.
        with contextlib.suppress(OSError):
            found = self._stamps()
            if found != self._stamp:
                self._context = self._loaded()
                self._stamp = found
        return self._context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)


class _Server(ThreadingWSGIServer):
    """Listens on IPv4 or IPv6, as the address is. Raises OSError."""

    def __init__(self, host: str, port: int, certificate: _Certificate | None) -> None:
        self._certificate = certificate
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        # Names mean IPv4 where they mean both, as `localhost` does: probes ask there.
        found.sort(key=lambda one: one[0] != socket.AF_INET and ":" not in host)
        self.address_family, _, _, _, address = found[0]
        super().__init__(address[:2], _Quiet)     # type: ignore[arg-type]

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, client = super().get_request()
        return (self._certificate.secured(connection) if self._certificate else connection), client

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that breaks off, or speaks no TLS, is its own affair."""


class _Quiet(WSGIRequestHandler):
    timeout = PATIENCE_SECONDS

    def log_message(self, format: str, *args: object) -> None:
        """A line a scrape would drown the log."""
