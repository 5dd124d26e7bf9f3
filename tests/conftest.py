"""One real Kafka for the whole test run, whatever the number of processes; it starts when a test first needs it."""

from __future__ import annotations

import fcntl
import json
import uuid
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

with warnings.catch_warnings():
    # kafka-python reads its protocol's schemas, on import, in a way that Python 3.11 and 3.12 call deprecated.
    warnings.simplefilter("ignore", DeprecationWarning)
    from kafka import KafkaAdminClient
    from kafka.admin import NewTopic

from tests import kafka

_used = pytest.StashKey[str]()


@pytest.fixture(scope="session")
def broker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Bootstrap servers."""
    shared = None
    if hasattr(request.config, "workerinput"):          # pytest-xdist: all workers share one broker
        shared = tmp_path_factory.getbasetemp().parent / "kafka"
    address, how = _shared(request.config, shared) if shared else _own(request.config)
    request.config.stash[_used] = how
    return address


@pytest.fixture(scope="session")
def admin(broker: str) -> Iterator[KafkaAdminClient]:
    client = KafkaAdminClient(bootstrap_servers=broker)
    yield client
    client.close()


@pytest.fixture
def topic(admin: KafkaAdminClient) -> Iterator[Callable[..., str]]:
    """make(partitions=1, name="t", **configs): a new topic of that name and something unique; gone after the test."""
    made: list[str] = []

    def make(partitions: int = 1, name: str = "t", **configs: object) -> str:
        unique = f"{name}-{uuid.uuid4().hex[:10]}"
        settings = {key.replace("_", "."): str(value) for key, value in configs.items()}
        admin.create_topics([NewTopic(unique, partitions, 1, topic_configs=settings)])
        made.append(unique)
        admin.wait_for_topics([unique])
        return unique

    yield make
    if made:
        admin.delete_topics(made)


def pytest_configure(config: pytest.Config) -> None:
    # kafka-python leaves to the garbage collector, which may come during any test, the socket of a refused
    # connection and the pair that would wake a client whose first connection fails.
    for left in (
        r"unclosed <socket.socket fd=\d+, family=\d+, type=1, proto=6, laddr=\('0.0.0.0', \d+\)>",
        r"unclosed <socket.socket fd=\d+, family=1, type=1, proto=0>",
    ):
        config.addinivalue_line("filterwarnings", f"ignore:{left}:ResourceWarning")


def pytest_report_header() -> str:
    return f"kafka: {kafka.chosen().how}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if _used in config.stash:
        terminalreporter.write_line(f"kafka used: {config.stash[_used]}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    output = getattr(session.config, "workeroutput", None)
    if output is not None and _used in session.config.stash:
        output["kafka"] = session.config.stash[_used]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object) -> None:
    how = getattr(node, "workeroutput", {}).get("kafka")
    if how:
        node.config.stash[_used] = how      # type: ignore[attr-defined]


def _own(config: pytest.Config) -> tuple[str, str]:
    started, address = kafka.started()
    config.add_cleanup(started.stop)
    return address, started.how


def _shared(config: pytest.Config, folder: Path) -> tuple[str, str]:
    """The process that comes first starts the broker, and stops it when every other has let go of it.

    Each holds a shared lock on `users` while it lives; the kernel lets go for one that dies.
    """
    folder.mkdir(exist_ok=True)
    users = (folder / "users").open("a")
    address_file = folder / "address"
    with (folder / "start").open("a") as start:
        fcntl.flock(start, fcntl.LOCK_EX)
        fcntl.flock(users, fcntl.LOCK_SH)
        if address_file.exists():
            config.add_cleanup(users.close)
            address, how = json.loads(address_file.read_text())
            return address, how
        started, address = kafka.started()
        address_file.write_text(json.dumps([address, started.how]))

    def stop() -> None:
        fcntl.flock(users, fcntl.LOCK_EX)
        users.close()
        started.stop()

    config.add_cleanup(stop)
    return address, started.how
