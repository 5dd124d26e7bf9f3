"""A client that reaches no broker leaves nothing behind: a worker may wait for its broker for days."""

from __future__ import annotations

import gc
import logging
import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.errors import KafkaTimeoutError

from deploy.demo.ports import free_port
from worker.kafka.brokers import opened


def held() -> tuple[set[str], int]:
    """Threads of kafka-python, and open files."""
    gc.collect()
    threads = {thread.name for thread in threading.enumerate() if thread.name.startswith("kafka-io-nobody")}
    return threads, len(os.listdir("/proc/self/fd"))


@pytest.fixture
def unlogged() -> Iterator[None]:
    """What is logged of a failed connection holds its socket, and pytest keeps all that is logged."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.usefixtures("unlogged")
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize("kind", [KafkaAdminClient, KafkaConsumer, KafkaProducer])
def test_a_client_that_reaches_nobody_leaves_no_thread_and_no_file(kind: Any) -> None:
    nobody = f"localhost:{free_port()}"

    def attempt() -> None:
        with pytest.raises(KafkaTimeoutError):
            opened(kind, bootstrap_servers=nobody, client_id="nobody", bootstrap_timeout_ms=200)

    attempt()
    before = held()
    attempt()
    assert held() == before
    assert before[0] == set()
