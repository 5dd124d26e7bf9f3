"""The real Apache Kafka (KRaft, one node) as a child process: no Java, Maven or Docker needed.

    with EmbeddedBroker() as broker:
        KafkaProducer(bootstrap_servers=broker.bootstrap_servers)

    python -m deploy.demo.broker --port 9092        # one to play with; Ctrl-C ends it
"""

from __future__ import annotations

import argparse
import atexit
import base64
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from deploy.demo.jars import KAFKA_VERSION, java, kafka_jars
from deploy.demo.ports import bind, free_port
from deploy.demo.tether import tethered
from worker.errors import BrokerError, UserError

_READY = "Kafka Server started"
_LOG_TAIL_LINES = 15
_QUICK_START = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")   # a second less, for a broker that lives minutes


class EmbeddedBroker:
    """One broker on one port with one data folder; start, stop and kill it as often as needed.

    folder: keeps data, server.properties and kafka.log; without one, a temporary folder that close() removes.
    port: where it listens, on `host` only; a free one by default. The controller takes another free one.
    properties: server properties on top of those that suit one node (they win).
    scram: password by user of SCRAM-SHA-512, who are there when the data folder is new.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        host: str = "127.0.0.1",
        port: int | None = None,
        properties: Mapping[str, str] | None = None,
        scram: Mapping[str, str] | None = None,
        heap_mb: int = 384,
    ) -> None:
        self._temporary = folder is None
        self.folder = Path(tempfile.mkdtemp(prefix="zmu-kafka-")) if folder is None else Path(folder)
        self.port = free_port(host) if port is None else port
        self.bootstrap_servers = f"{host}:{self.port}"
        self.log_path = self.folder / "kafka.log"
        self._properties = (
            single_node(f"{host}:{self.port}", f"{host}:{self.port}", free_port(), str(self.folder / "data"))
            | dict(properties or {})
        )
        self._scram = dict(scram or {})
        self._heap_mb = heap_mb
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Of the Java process; None while it is down."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def start(self, timeout_seconds: float = 60) -> Self:
        """Formats the data folder if it is new, starts, and returns when clients can connect.

        Call it from a thread that lives as long as the broker is needed (see tether.py).
        Raises BrokerError with the end of the log.
        """
        if self.pid is not None:
            return self
        self._refuse_taken_port()
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "server.properties"
        config.write_text("".join(f"{key}={value}\n" for key, value in self._properties.items()))
        if not (self.folder / "data" / "meta.properties").exists():
            self._format(config)
        log_start_bytes = self.log_path.stat().st_size if self.log_path.exists() else 0
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                tethered(self._java("kafka.Kafka", str(config))),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,     # Ctrl-C is for us: we stop the broker after its clients
            )
        atexit.register(self.kill)
        deadline = time.monotonic() + timeout_seconds
        while _READY not in self._log_from(log_start_bytes):
            if self._process.poll() is not None:
                raise BrokerError(self._failure(f"ended with code {self._process.returncode} while starting"))
            if time.monotonic() > deadline:
                self.kill()
                raise BrokerError(self._failure(f"was not ready after {timeout_seconds:.0f} s"))
            time.sleep(0.02)
        return self

    def stop(self, timeout_seconds: float = 30) -> None:
        """Shuts down as an operator would; the data stays. After the timeout it is killed."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout_seconds)
            except subprocess.TimeoutExpired:
                self.kill()
        self._ended()

    def kill(self) -> None:
        """kill -9, as a power cut would; what was written stays in the data folder."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._ended()

    def freeze(self) -> None:
        """Stops answering without closing a connection (SIGSTOP), until thaw()."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """stop(), and the temporary folder goes."""
        self.stop()
        if self._temporary:
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            return self.start()
        except KeyboardInterrupt:       # an error leaves its log to be read
            self.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.close()

    def _signal(self, number: signal.Signals) -> None:
        pid = self.pid
        if pid is None:
            raise BrokerError(f"the embedded broker at {self.bootstrap_servers} is not running; start() it first")
        os.kill(pid, number)

    def _ended(self) -> None:
        self._process = None
        atexit.unregister(self.kill)

    def _java(self, main_class: str, *args: str) -> list[str]:
        class_path = os.pathsep.join(map(str, kafka_jars()))
        logging = "-Dorg.slf4j.simpleLogger.showDateTime=true"
        heap = f"-Xmx{self._heap_mb}m"
        return [str(java()), heap, *_QUICK_START, logging, "-cp", class_path, main_class, *args]

    def _format(self, config: Path) -> None:
        # One that begins with a dash would be taken for an option.
        cluster_id = base64.urlsafe_b64encode(b"\0" + uuid.uuid4().bytes[1:]).rstrip(b"=").decode()
        users = [f"SCRAM-SHA-512=[name={name},password={password}]" for name, password in self._scram.items()]
        logins = [word for user in users for word in ("--add-scram", user)]
        command = self._java("kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(config), *logins)
        with self.log_path.open("ab") as log:
            done = subprocess.run(tethered(command), stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False)
        if done.returncode:
            raise BrokerError(self._failure(f"could not format {self.folder / 'data'} (code {done.returncode})"))

    def _refuse_taken_port(self) -> None:
        host = self.bootstrap_servers.rpartition(":")[0]
        try:
            bind(host, self.port)
        except OSError as error:
            raise BrokerError(
                f"the embedded broker cannot listen on {self.bootstrap_servers}: {error.strerror}; "
                "end what listens there, or choose another port"
            ) from error

    def _log_from(self, start_bytes: int) -> str:
        with self.log_path.open("rb") as log:
            log.seek(start_bytes)
            return log.read().decode(errors="replace")

    def _failure(self, what: str) -> str:
        tail = self._log_from(0).splitlines()[-_LOG_TAIL_LINES:]
        return "\n".join(
            [
                f"the embedded broker at {self.bootstrap_servers} {what}; the end of its log says:",
                *(f"    {line}" for line in tail),
                f"  The whole log is {self.log_path}. Mend the server properties it names, or use another Kafka: "
                "ZMU_KAFKA__BOOTSTRAP_SERVERS=host:port",
            ]
        )


def single_node(listen: str, advertise: str, controller_port: int, data: str) -> dict[str, str]:
    """Server properties of one node that is broker and controller, made for short lives. Addresses are host:port."""
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://{listen},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{advertise}",
        "log.dirs": data,
        "auto.create.topics.enable": "false",
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "4",            # 50 by default: a second of creating files
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "4",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "broker.session.timeout.ms": "3000",            # 9 s by default: so long a killed broker is kept out
        "broker.heartbeat.interval.ms": "500",
        "group.initial.rebalance.delay.ms": "0",        # a lone consumer need not wait for others
        "log.retention.ms": "-1",                       # recordings carry old timestamps
        "log.cleaner.dedupe.buffer.size": "8388608",    # 128 MB by default, of our small heap
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m deploy.demo.broker", description=f"Apache Kafka {KAFKA_VERSION} in the foreground."
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=9092, help="port to listen on (%(default)s)")
    parser.add_argument("--folder", type=Path, help="keeps the data there; default: a temporary folder")
    parser.add_argument(
        "--property", action="append", default=[], metavar="KEY=VALUE", help="a server property; may be repeated"
    )
    args = parser.parse_args(argv)
    bad = [text for text in args.property if "=" not in text]
    if bad:
        parser.error(f"--property {bad[0]}: a server property reads KEY=VALUE")
    properties = dict(text.split("=", 1) for text in args.property)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with EmbeddedBroker(args.folder, host=args.host, port=args.port, properties=properties) as broker:
            where = f"{broker.bootstrap_servers}, log {broker.log_path}"
            print(f"Kafka {KAFKA_VERSION} at {where}; Ctrl-C ends it", flush=True)
            while broker.pid is not None:
                time.sleep(0.5)
            print(f"Kafka has ended by itself; see {broker.log_path}", file=sys.stderr)
            return 1
    except KeyboardInterrupt:
        return 0
    except UserError as error:
        print(f"broker: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
