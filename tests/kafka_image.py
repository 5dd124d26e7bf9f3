"""A container image of Kafka where no image registry can be reached: the embedded broker's JRE and jars, and the
few C libraries and the shell that they need, from this machine. It reads the same KAFKA_… variables as apache/kafka's
image does, by Kafka's own wrapper.
"""

from __future__ import annotations

import hashlib
import io
import re
import subprocess
import tarfile
import tempfile
from pathlib import Path

import docker

from deploy.demo.jars import KAFKA_VERSION, java, kafka_jars

REPOSITORY = "zmu-test-kafka"
_ENTRY = """\
#!/bin/sh
set -e
export CLUSTER_ID="${CLUSTER_ID:-5L6g3nShT-eMCtK--X86sw}"
export CLASSPATH="/opt/kafka/libs/*"
java="java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xmx384m"
$java kafka.docker.KafkaDockerWrapper setup --default-configs-dir /etc/kafka/docker \\
    --mounted-configs-dir /mnt/shared/config --final-configs-dir /opt/kafka/config
exec $java kafka.Kafka /opt/kafka/config/server.properties
"""


def built(client: docker.DockerClient) -> str:
    """The image's tag; made with `docker import` where it is not there yet. Linux with glibc only."""
    recipe = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:8]
    tag = f"{KAFKA_VERSION}-{recipe}"
    if client.images.list(name=f"{REPOSITORY}:{tag}"):
        return f"{REPOSITORY}:{tag}"
    with tempfile.NamedTemporaryFile(suffix=".tar") as file:
        with tarfile.open(fileobj=file, mode="w") as tar:
            _fill(tar)
        file.flush()
        client.api.import_image_from_file(
            file.name,
            repository=REPOSITORY,
            tag=tag,
            changes=['ENTRYPOINT ["/bin/sh", "/entry"]', "EXPOSE 9092", "ENV PATH=/opt/java/bin:/bin"],
        )
    return f"{REPOSITORY}:{tag}"


def _fill(tar: tarfile.TarFile) -> None:
    home = java().parent.parent
    tar.add(home, "opt/java")
    for jar in kafka_jars():
        _add(tar, jar, f"opt/kafka/libs/{jar.name}")
    shell = Path("/bin/sh").resolve()
    _add(tar, shell, "bin/sh")
    for library in sorted(_libraries(shell, java(), *home.glob("lib/**/*.so"))):
        _add(tar, Path(library).resolve(), library.lstrip("/"))
    for folder in ("opt/kafka/config", "etc/kafka/docker", "mnt/shared/config", "tmp"):
        entry = tarfile.TarInfo(folder)
        entry.type, entry.mode = tarfile.DIRTYPE, 0o1777
        tar.addfile(entry)
    _write(tar, "entry", _ENTRY)
    # The wrapper wants defaults to copy; with KAFKA_… variables given, it uses those instead.
    for name in ("server.properties", "log4j2.yaml", "tools-log4j2.yaml"):
        _write(tar, f"etc/kafka/docker/{name}", "")


def _libraries(*programs: Path) -> set[str]:
    """Of the system, as `ldd` finds them: all but those of the JRE itself and of a desktop."""
    found = subprocess.run(["ldd", *map(str, programs)], capture_output=True, text=True, check=False).stdout
    paths = re.findall(r"(?:=> |^\t)(/\S+) \(0x", found, re.MULTILINE)
    return {path for path in paths if "java-runtime" not in path and not re.search(r"/libX|libxcb", path)}


def _add(tar: tarfile.TarFile, source: Path, name: str) -> None:
    info = tar.gettarinfo(source, name)
    info.type, info.linkname, info.size = tarfile.REGTYPE, "", source.stat().st_size     # no hard links across names
    with source.open("rb") as content:
        tar.addfile(info, content)


def _write(tar: tarfile.TarFile, name: str, text: str) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(text.encode()), 0o644
    tar.addfile(info, io.BytesIO(text.encode()))
