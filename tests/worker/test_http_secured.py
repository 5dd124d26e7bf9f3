"""/metrics and health over TLS, behind a password, and on the address that was asked for; by real clients."""

from __future__ import annotations

import base64
import http.client
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydantic import ValidationError

from tests.certificates import Authority
from worker.errors import SettingsError
from worker.http import HttpServer
from worker.metrics import Metrics
from worker.settings import HttpSettings

HOSTS = "DNS:localhost,IP:127.0.0.1,IP:::1"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("pki"))


@contextmanager
def serving(**settings: object) -> Iterator[HttpServer]:
    given = HttpSettings.model_validate({"host": "127.0.0.1", "port": 0, **settings})
    server = HttpServer(given, Metrics().registry, lambda: (True, {}), lambda: (True, {}))
    try:
        yield server
    finally:
        server.close()


def files(authority: Authority, name: str = "server", **signed: str) -> dict[str, Path]:
    pem = authority.sign(name, HOSTS, **signed)
    return {"ssl_certfile": pem.with_suffix(".crt"), "ssl_keyfile": pem.with_suffix(".key")}


def status(connection: http.client.HTTPConnection, path: str, headers: dict[str, str] | None = None) -> int:
    try:
        connection.request("GET", path, headers=headers or {})
        return connection.getresponse().status
    finally:
        connection.close()


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def test_tls_is_the_only_way_in_where_there_is_a_certificate(authority: Authority) -> None:
    trusting = ssl.create_default_context(cafile=authority.certificate)
    with serving(**files(authority)) as server:
        secured = http.client.HTTPSConnection("localhost", server.port, timeout=5, context=trusting)
        assert [status(secured, path) for path in ("/metrics", "/healthz", "/readyz", "/")] == [200, 200, 200, 404]
        with pytest.raises(ssl.SSLCertVerificationError):
            status(http.client.HTTPSConnection("localhost", server.port, timeout=5), "/metrics")
        with pytest.raises((http.client.BadStatusLine, ConnectionError)):
            status(http.client.HTTPConnection("localhost", server.port, timeout=5), "/metrics")
        old = ssl.create_default_context(cafile=authority.certificate)
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        assert status(http.client.HTTPSConnection("localhost", server.port, timeout=5, context=old), "/healthz") == 200


def test_a_client_that_says_nothing_keeps_nobody_waiting(authority: Authority) -> None:
    trusting = ssl.create_default_context(cafile=authority.certificate)
    with serving(**files(authority)) as server, socket.create_connection(("127.0.0.1", server.port)):
        secured = http.client.HTTPSConnection("localhost", server.port, timeout=5, context=trusting)
        assert status(secured, "/healthz") == 200


def test_a_renewed_certificate_is_taken(authority: Authority, tmp_path: Path) -> None:
    def shown(port: int) -> str:
        return ssl.get_server_certificate(("127.0.0.1", port), timeout=5)

    now = {name: tmp_path / path.name for name, path in files(authority).items()}
    for name, path in files(authority).items():
        shutil.copy(path, now[name])
    newer = files(authority, "newer")
    with serving(**now) as server:
        before = shown(server.port)
        now["ssl_certfile"].write_text("half")
        assert shown(server.port) == before
        for name, path in newer.items():
            shutil.copy(path, now[name])
        assert shown(server.port).strip() == newer["ssl_certfile"].read_text().strip() != before.strip()


@pytest.mark.parametrize("how", ["password", "password_file"])
def test_metrics_behind_a_password_and_health_open(how: str, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("sesämé\n")
    given = {"password": "sesämé", "password_file": tmp_path / "password"}[how]
    with serving(username="prometheus", **{how: given}) as server:
        client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
        client.request("GET", "/metrics")
        refused = client.getresponse()
        assert (refused.status, refused.headers["WWW-Authenticate"]) == (401, 'Basic realm="zmu"')
        assert b"zmu_" not in refused.read()
        assert status(client, "/metrics", basic("prometheus", "sesämé")) == 200
        for wrong in basic("prometheus", "sesame"), basic("", ""), {"Authorization": "Bearer x"}, {"Authorization": ""}:
            assert status(client, "/metrics", wrong) == 401
        assert [status(client, path) for path in ("/healthz", "/readyz")] == [200, 200]


@pytest.mark.parametrize(
    ("host", "reached", "not_reached"),
    [("127.0.0.1", ["127.0.0.1"], ["::1"]), ("::1", ["::1"], ["127.0.0.1"]), ("::", ["::1", "127.0.0.1"], [])],
)
def test_it_listens_where_it_is_told(host: str, reached: list[str], not_reached: list[str]) -> None:
    if not has_ipv6():
        pytest.skip("no IPv6 here")
    with serving(host=host) as server:
        for address in reached:
            assert status(http.client.HTTPConnection(address, server.port, timeout=5), "/healthz") == 200
        for address in not_reached:
            with pytest.raises(OSError, match="refused"):
                status(http.client.HTTPConnection(address, server.port, timeout=5), "/healthz")


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"host": "192.0.2.1"}, "ZMU_HTTP__HOST"),
        ({"ssl_certfile": "/absent.crt", "ssl_keyfile": "/absent.key"}, "No such file"),
    ],
)
def test_what_cannot_be_served_is_said(settings: dict[str, str], says: str) -> None:
    with pytest.raises(SettingsError, match=says), serving(**settings):
        pass


def test_a_sealed_key_is_refused_and_never_asked_for(authority: Authority) -> None:
    with pytest.raises(SettingsError, match="without a password"), serving(**files(authority, "sealed", password="pw")):
        pass


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"ssl_certfile": "a.crt"}, "go together"),
        ({"username": "prometheus"}, "go together"),
        ({"password": "x"}, "go together"),
        ({"username": "prometheus", "password_file": "/absent"}, "ZMU_HTTP__PASSWORD_FILE=/absent cannot be read"),
    ],
)
def test_half_a_pair_of_settings_is_refused(settings: dict[str, str], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        HttpSettings.model_validate(settings)


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here")
def test_curl(authority: Authority) -> None:
    with serving(**files(authority), username="prometheus", password="sesame") as server:
        url = f"https://localhost:{server.port}/metrics"
        curl = ["curl", "--silent", "--fail", "--noproxy", "*", "--cacert", str(authority.certificate)]
        assert subprocess.run([*curl, url], capture_output=True, check=False).returncode == 22
        told = subprocess.run([*curl, "--user", "prometheus:sesame", url], capture_output=True, text=True, check=True)
        assert "zmu_build_info" in told.stdout
