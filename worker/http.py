"""/metrics, /healthz and /readyz, served beside the loop by one small thread."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from worker.errors import SettingsError
from worker.settings import HttpSettings

if TYPE_CHECKING:
    from wsgiref.types import StartResponse

Check = Callable[[], tuple[bool, dict[str, object]]]


class HttpServer:
    """Answers until closed. `alive` and `ready` return yes or no and the facts behind it, shown as JSON.

    Raises SettingsError where the address cannot be taken.
    """

    def __init__(self, settings: HttpSettings, registry: CollectorRegistry, alive: Check, ready: Check) -> None:
        metrics = make_wsgi_app(registry)
        checks = {"/healthz": alive, "/readyz": ready}

        def app(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
            path = environ.get("PATH_INFO")
            if path == "/metrics":
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

        try:
            self._server = make_server(
                settings.host, settings.port, app, server_class=ThreadingWSGIServer, handler_class=_Quiet
            )
        except OSError as error:
            raise SettingsError(
                f"cannot listen on {settings.host}:{settings.port} ({error.strerror}); "
                "set ZMU_HTTP__PORT to a free port (0 takes any)"
            ) from None
        self.port: int = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, name="http", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """A line a scrape would drown the log."""
