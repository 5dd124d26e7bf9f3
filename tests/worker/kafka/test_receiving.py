"""kafka-python's transport, made to take more at once: the same bytes and the same ends, in fewer pieces."""

from __future__ import annotations

import contextlib
import socket
import weakref
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaConnectionError
from kafka.net.transport import KafkaTCPTransport

from tests.programs import until
from worker.kafka.brokers import opened
from worker.kafka.receiving import COPIED_BYTES, Response, Wide


class Counting(socket.socket):
    pieces = 0

    def recv(self, *asked: int) -> bytes:
        data = super().recv(*asked)             # or an error: nothing is there
        self.pieces += 1
        return data


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, Counting]]:
    with socket.create_server(("127.0.0.1", 0)) as server, Counting() as ours:
        ours.connect(server.getsockname())
        theirs, _ = server.accept()
        ours.setblocking(False)
        with theirs:
            yield theirs, ours


def test_what_has_come_is_taken_in_few_pieces(ends: tuple[socket.socket, Counting]) -> None:
    theirs, ours = ends
    sent = bytes(range(256)) * 400
    theirs.sendall(sent)
    transport: Any = KafkaTCPTransport(None, ours)
    found = bytearray()
    until(lambda: bool(found.extend(Wide(transport).received()[0]) or len(found) == len(sent)), 5)
    assert found == sent
    assert ours.pieces < 10                     # kafka-python's own way: 26
    assert Wide(transport).received() == (b"", None)            # nothing there: no end, and no waiting


def test_the_end_of_a_connection_is_an_error_as_ever(ends: tuple[socket.socket, Counting]) -> None:
    theirs, ours = ends
    theirs.sendall(b"last")
    theirs.close()
    transport = KafkaTCPTransport(None, ours)
    found: list[tuple[bytes, Exception | None]] = []
    until(lambda: bool(found.append(Wide(transport).received()) or found[-1][1]), 5)
    assert b"".join(received for received, _ in found) == b"last"
    assert isinstance(found[-1][1], KafkaConnectionError)


def test_a_transport_that_nobody_has_is_gone_at_once(ends: tuple[socket.socket, Counting]) -> None:
    transport: Any = KafkaTCPTransport(None, ends[1])
    transport._sock_recv = Wide(transport).received
    left = weakref.ref(transport)
    del transport
    assert left() is None


@pytest.mark.parametrize(("length", "copied"), [(COPIED_BYTES, True), (COPIED_BYTES + 1, False)])
def test_what_is_long_is_read_where_it_lies(length: int, copied: bool) -> None:
    body = bytes(range(256)) * (length // 256) + bytes(length % 256)
    response = Response(4 + length)
    response.write(b"head")
    response.write(body)
    response.seek(0)
    assert response.read(4) == b"head"
    read = response.read()
    assert read == body
    assert isinstance(read, bytes) == copied
    response[4] = 77
    assert (read[0] == 77) != copied


def test_a_long_answer_of_a_broker_is_read_so(broker: str, topic: Callable[..., str]) -> None:
    """As kafka-python reads it, by the very class that its parser makes."""
    with (
        contextlib.closing(opened(KafkaProducer, bootstrap_servers=broker)) as producer,
        contextlib.closing(opened(KafkaConsumer, bootstrap_servers=broker, auto_offset_reset="earliest")) as consumer,
    ):
        name, value = topic(), bytes(range(256)) * 1000
        producer.send(name, value).get(30)
        consumer.assign([TopicPartition(name, 0)])
        found: list[bytes] = []
        with mock.patch.object(Response, "read", autospec=True, side_effect=Response.read) as read:
            until(lambda: bool(found.extend(r.value for rs in consumer.poll(500).values() for r in rs) or found), 30)
    assert found == [value]
    assert max(len(call.args[0]) for call in read.call_args_list) > len(value)


def test_every_connection_of_a_client_receives_so(broker: str) -> None:
    with contextlib.closing(opened(KafkaConsumer, bootstrap_servers=broker, client_id="wide")) as consumer:
        consumer.topics()
        connections = consumer._client._manager._conns.values()
        assert connections
        assert all(isinstance(c.transport._sock_recv.__self__, Wide) for c in connections)
