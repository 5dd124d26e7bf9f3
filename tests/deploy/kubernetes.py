"""A real Kubernetes API server with its etcd: nothing runs in it, but what it is sent it reads, defaults and admits.

Neither comes as a package for Python or Debian, so Go builds them from their modules (some ten minutes, once):

    python -m tests.deploy.kubernetes

Folder: ZMU_TEST_KUBERNETES, or one in the user's cache.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from deploy.demo.ports import free_port
from tests.programs import until

VERSION = "1.35.4"
TOKEN = "the-admin-of-a-test"
PROGRAMS = {
    "etcd": """package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }
""",
    "kube-apiserver": """package main

import (
	"os"

	"k8s.io/component-base/cli"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
)

func main() { os.Exit(cli.Run(app.NewAPIServerCommand())) }
""",
}


def folder() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return Path(os.environ.get("ZMU_TEST_KUBERNETES", cache / "zmu" / f"kubernetes-{VERSION}"))


def is_built() -> bool:
    return all((folder() / name).exists() for name in PROGRAMS)


def build() -> None:
    """Its module replaces its parts by folders that are no part of it; here, by the modules that they are elsewhere."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        (place / "go.mod").write_text("module kubernetes.test\n\ngo 1.25.0\n")
        told = go("mod", "download", "-json", f"k8s.io/kubernetes@v{VERSION}", cwd=place)
        theirs = Path(json.loads(told)["GoMod"]).read_text()
        parts = re.findall(r"^\s(\S+) => \./staging/", theirs, re.MULTILINE)
        etcd = re.search(r"go\.etcd\.io/etcd/server/v3 (\S+)", theirs)
        assert etcd is not None
        (place / "go.mod").write_text("\n".join([
            "module kubernetes.test", "go 1.25.0", f"require k8s.io/kubernetes v{VERSION}",
            f"require go.etcd.io/etcd/server/v3 {etcd[1]}",
            *(f"replace {part} => {part} v0{VERSION[1:]}" for part in parts), "",
        ]))
        for program, source in PROGRAMS.items():
            (place / program).mkdir()
            (place / program / "main.go").write_text(source)
        go("mod", "tidy", cwd=place)
        folder().mkdir(parents=True, exist_ok=True)
        flags = f"-s -w -X k8s.io/component-base/version.gitVersion=v{VERSION}"
        for program in PROGRAMS:
            go("build", "-ldflags", flags, "-o", str(folder() / program), f"./{program}", cwd=place)


def go(*arguments: str, cwd: Path) -> str:
    environment = os.environ | {"GOFLAGS": "-mod=mod"}
    done = subprocess.run(["go", *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


class Cluster(NamedTuple):
    url: str
    certificate: Path
    kubeconfig: Path

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, dict[str, Any]]:
        """Status and answer of the API, as its admin."""
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        trusted = ssl.create_default_context(cafile=str(self.certificate))
        trusted.check_hostname = False
        try:
            with urllib.request.urlopen(request, timeout=30, context=trusted) as answer:
                return answer.status, as_object(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, as_object(error.read())

    def make(self, path: str, body: object) -> dict[str, Any]:
        status, answer = self.ask("POST", path, body)
        assert status == 201, answer
        return answer

    def items(self, path: str) -> list[dict[str, Any]]:
        status, answer = self.ask("GET", path)
        assert status == 200, answer
        return list(answer["items"])


def as_object(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = text.decode()
    return found if isinstance(found, dict) else {"said": found}


@contextlib.contextmanager
def cluster(place: Path) -> Iterator[Cluster]:
    """Its data and certificates lie in place, which is empty."""
    tokens, key, certificate = place / "tokens.csv", place / "key.pem", place / "apiserver" / "apiserver.crt"
    tokens.write_text(f"{TOKEN},admin,1,system:masters\n")
    subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
    client, peer, port = free_port(), free_port(), free_port()
    url, store = f"https://127.0.0.1:{port}", f"http://127.0.0.1:{client}"
    etcd = [
        "--data-dir", str(place / "etcd"), "--listen-client-urls", store, "--advertise-client-urls", store,
        "--listen-peer-urls", f"http://127.0.0.1:{peer}", "--unsafe-no-fsync",
    ]
    server = [
        "--etcd-servers", store, "--bind-address", "127.0.0.1", "--secure-port", str(port),
        "--cert-dir", str(place / "apiserver"), "--token-auth-file", str(tokens), "--authorization-mode", "RBAC",
        "--service-account-issuer", url, "--service-account-key-file", str(key),
        "--service-account-signing-key-file", str(key), "--service-cluster-ip-range", "10.0.0.0/24",
    ]
    with running("etcd", etcd, place), running("kube-apiserver", server, place):
        kubeconfig = place / "kubeconfig"
        found = Cluster(url, certificate, kubeconfig)
        until(lambda: certificate.exists() and is_ready(found), 90, (place / "kube-apiserver.log").read_text)
        kubeconfig.write_text(yaml.safe_dump({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {
                "server": url, "certificate-authority": str(certificate), "tls-server-name": "kubernetes",
            }}],
            "users": [{"name": "admin", "user": {"token": TOKEN}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
        }))
        yield found


def is_ready(found: Cluster) -> bool:
    try:
        return found.ask("GET", "/readyz")[0] == 200
    except OSError:
        return False


@contextlib.contextmanager
def running(program: str, arguments: list[str], place: Path) -> Iterator[None]:
    with (place / f"{program}.log").open("w") as told:
        process = subprocess.Popen([folder() / program, *arguments], stdout=told, stderr=told)
        try:
            yield
        finally:
            process.terminate()
            process.wait(30)


if __name__ == "__main__":
    if shutil.which("go") is None:
        sys.exit("go is not installed")
    build()
    print(folder())
