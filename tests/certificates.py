"""Certificates of one test: an authority, and what it signs, made by the `openssl` of this machine."""

from __future__ import annotations

import subprocess
from pathlib import Path

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")


class Authority:
    """Signs certificates into a folder: NAME.crt, NAME.key, and NAME.pem with both, a key store to Kafka."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.certificate, self._key = folder / f"{name}.crt", folder / f"{name}.key"
        subject = f"/CN={name}"
        _openssl("req", "-x509", *_KEY, "-nodes", "-keyout", self._key, "-out", self.certificate, "-subj", subject)

    def sign(self, name: str, hosts: str = "", days: int = 30, password: str = "") -> Path:
        """hosts: as in subjectAltName, `DNS:localhost,IP:127.0.0.1`. days: negative for one that has expired.

        password: of the key. Returns the path of NAME.pem; its neighbours bear the other endings.
        """
        path = self._folder / name
        request, extensions = path.with_suffix(".csr"), path.with_suffix(".ext")
        sealed = ("-passout", f"pass:{password}") if password else ("-nodes",)
        _openssl("req", "-new", *_KEY, *sealed, "-keyout", f"{path}.key", "-out", request, "-subj", f"/CN={name}")
        extensions.write_text(f"subjectAltName={hosts}\n" if hosts else "")
        _openssl(
            "x509", "-req", "-in", request, "-out", f"{path}.crt", "-CA", self.certificate, "-CAkey", self._key,
            "-CAcreateserial", "-days", str(days), "-extfile", extensions,
        )
        parts = [Path(f"{path}.key"), Path(f"{path}.crt"), self.certificate]
        path.with_suffix(".pem").write_text("".join(part.read_text() for part in parts))
        return path.with_suffix(".pem")


def _openssl(*args: object) -> None:
    done = subprocess.run(["openssl", *map(str, args)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"openssl {args}\n{done.stderr}"
