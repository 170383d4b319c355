"""A real Kafka cluster on this machine: KRaft nodes (broker and controller in one), plain Python.

For tests and for benchmarks::

    with Cluster(tmp_path) as kafka:  # three nodes, ready for clients
        producer = KafkaProducer(bootstrap_servers=kafka.bootstrap)
        kafka.nodes[0].kill()  # kill -9
        kafka.nodes[1].pause()  # SIGSTOP: there, but silent, as behind a broken network
        kafka.heal()  # all nodes back and in sync

Nodes listen on loopback only. With ``secure=True`` each also has listeners for SASL and TLS
(:meth:`Cluster.client` says how to reach them). No process outlives the one that started it.
"""

from __future__ import annotations

import fcntl
import itertools
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Self

from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from tests.support.certificates import kafka_certificates
from tests.support.patience import patient
from tools.parts import jars

PATIENCE = patient(100.0)
_PROTOCOLS = ("SASL_PLAINTEXT", "SASL_SSL", "SSL")
_LISTENERS = ("PLAINTEXT", "CONTROLLER", *_PROTOCOLS)
_PORTS = 50
"""Ports in a block; a cluster takes its ports from one."""
# What makes a cluster small and quick to notice: defaults are for dedicated machines.
_SETTINGS = {
    "auto.create.topics.enable": "false",
    "broker.heartbeat.interval.ms": "500",
    "broker.session.timeout.ms": "4000",
    "controlled.shutdown.enable": "false",
    "controller.quorum.append.linger.ms": "5",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "log.cleaner.dedupe.buffer.size": "4194304",
    "log.cleaner.backoff.ms": "500",
    "log.initial.task.delay.ms": "500",
    "min.insync.replicas": "2",
    "num.io.threads": "4",
    "num.network.threads": "2",
    "offsets.topic.num.partitions": "4",
    "replica.lag.time.max.ms": "8000",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
    "transaction.state.log.num.partitions": "4",
}


def _reserve(count: int) -> tuple[list[int], IO[str]]:
    """Ports below those that the system gives to outgoing connections, so that nobody takes them
    while a node is down, and the lock that keeps other clusters away from them."""
    folder = Path(tempfile.gettempdir()) / "understudy-kafka-ports"
    folder.mkdir(exist_ok=True)
    starts = list(range(20_000, 32_000, _PORTS))
    random.shuffle(starts)
    for start in starts:
        lock = (folder / str(start)).open("w")
        ports = list(range(start, start + count))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for port in ports:
                with socket.socket() as sock:
                    sock.bind(("127.0.0.1", port))
        except OSError:
            lock.close()
            continue
        return ports, lock
    raise AssertionError("no free ports from 20,000 to 32,000")


class Node:
    """One broker, which is a controller as well."""

    def __init__(
        self, number: int, folder: Path, command: list[str], reaper: Any, ports: Sequence[int]
    ) -> None:
        self.number = number
        self.folder = folder
        self._command = command
        self._reaper = reaper
        self.ports = dict(zip(_LISTENERS, ports, strict=True))
        self.process: subprocess.Popen[bytes] | None = None
        self._paused = False

    @property
    def alive(self) -> bool:
        """Whether its process is there, paused or not."""
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def log(self) -> str:
        """What it said: warnings and errors."""
        return (self.folder / "log").read_text(errors="replace")

    def start(self) -> None:
        """Start the process, if it is not there; returns before it serves."""
        if self.alive:
            return
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self._command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self._paused = False
        self._reaper.stdin.write(b"+%d\n" % self.process.pid)
        self._reaper.stdin.flush()

    def kill(self) -> None:
        """``kill -9``, and gone when this returns."""
        if self.process is None:
            return
        self.process.kill()
        self.process.wait()
        self._reaper.stdin.write(b"-%d\n" % self.process.pid)
        self._reaper.stdin.flush()

    def terminate(self) -> None:
        """SIGTERM, and gone when this returns."""
        self.resume()
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                pass
        self.kill()

    def pause(self) -> None:
        """SIGSTOP: connections stay, nothing is answered."""
        if self.alive:
            self._paused = True
            self.process.send_signal(signal.SIGSTOP)  # type: ignore[union-attr]

    def resume(self) -> None:
        """SIGCONT."""
        if self.alive and self._paused:
            self.process.send_signal(signal.SIGCONT)  # type: ignore[union-attr]
        self._paused = False

    def restart(self) -> None:
        """Kill and start; returns before it serves."""
        self.kill()
        self.start()


class Cluster:
    """Nodes with their storage below ``folder`` (a temporary one if None).

    ``settings`` are lines of ``server.properties``; ``quick`` is for tests (a virtual machine that
    starts quickly), False for measurements. ``patience`` in seconds is with nodes that come up.
    """

    def __init__(
        self,
        folder: Path | None = None,
        nodes: int = 3,
        secure: bool = False,
        settings: Mapping[str, str] | None = None,
        heap: str = "256m",
        quick: bool = True,
        patience: float = PATIENCE,
    ) -> None:
        self._here = jars.need()
        self._patience = patience
        self._own = folder is None
        self.folder = folder or Path(tempfile.mkdtemp(prefix="understudy-kafka-"))
        self.secure = secure
        self.certificates = kafka_certificates(self.folder / "tls") if secure else None
        self._settings = dict(settings or {})
        self._names = itertools.count(1)
        self._reaper = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("kafka_reaper.py"))],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        java = ["java", f"-XX:SharedArchiveFile={self._here / 'classes.jsa'}", "-Xshare:auto"]
        java += ["-XX:+UseSerialGC", f"-Xmx{heap}", *(["-XX:TieredStopAtLevel=1"] if quick else [])]
        java += ["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", jars.classes(self._here)]
        java += ["kafka.Kafka"]
        each = len(_LISTENERS)
        ports, self._lock = _reserve(nodes * each)
        self.nodes = [
            Node(
                number,
                self.folder / f"node-{number}",
                [*java, str(self.folder / f"node-{number}" / "server.properties")],
                self._reaper,
                ports[(number - 1) * each : number * each],
            )
            for number in range(1, nodes + 1)
        ]
        for node in self.nodes:
            self._lay(node)

    def _lay(self, node: Node) -> None:
        """Storage and properties of a node that never ran."""
        shutil.copytree(self._here / "storage", node.folder / "data")
        meta = node.folder / "data" / "meta.properties"
        meta.write_text(
            f"version=1\nnode.id={node.number}\ncluster.id={jars.CLUSTER_ID}\n"
            f"directory.id=dW5kZXJzdHVkeS1ka{node.number:04d}A\n"
        )
        copies = min(3, len(self.nodes))
        protocols = ["PLAINTEXT", "CONTROLLER", *(_PROTOCOLS if self.secure else ())]
        listeners = {name: f"{name}://127.0.0.1:{node.ports[name]}" for name in protocols}
        voters = [f"{n.number}@127.0.0.1:{n.ports['CONTROLLER']}" for n in self.nodes]
        said = {
            "process.roles": "broker,controller",
            "node.id": str(node.number),
            "controller.quorum.voters": ",".join(voters),
            "listeners": ",".join(listeners.values()),
            "advertised.listeners": ",".join(v for k, v in listeners.items() if k != "CONTROLLER"),
            "listener.security.protocol.map": ",".join(
                f"{name}:{'PLAINTEXT' if name == 'CONTROLLER' else name}" for name in protocols
            ),
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "log.dirs": str(node.folder / "data"),
            "default.replication.factor": str(copies),
            "offsets.topic.replication.factor": str(copies),
            "transaction.state.log.replication.factor": str(copies),
            "transaction.state.log.min.isr": str(min(2, copies)),
            **_SETTINGS,
            "min.insync.replicas": str(min(2, copies)),
            **(self._secured() if self.secure else {}),
            **self._settings,
        }
        lines = [f"{key}={value}\n" for key, value in said.items()]
        (node.folder / "server.properties").write_text("".join(lines))

    def _secured(self) -> dict[str, str]:
        assert self.certificates is not None
        user, password = jars.USER, jars.PASSWORD
        said = {
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self.certificates.broker),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.certificates.ca),
        }
        module = "org.apache.kafka.common.security"
        for listener in ("sasl_plaintext", "sasl_ssl"):
            start = f"listener.name.{listener}"
            said[f"{start}.plain.sasl.jaas.config"] = (
                f"{module}.plain.PlainLoginModule required user_{user}='{password}';"
            )
            for kind in ("256", "512"):
                said[f"{start}.scram-sha-{kind}.sasl.jaas.config"] = (
                    f"{module}.scram.ScramLoginModule required;"
                )
        # Only the listener that speaks TLS alone knows its clients by their certificates.
        said["listener.name.ssl.ssl.client.auth"] = "required"
        return said

    @property
    def bootstrap(self) -> str:
        """Addresses of all nodes, without security."""
        return self.listener("PLAINTEXT")

    def listener(self, protocol: str) -> str:
        """Addresses of all nodes for ``PLAINTEXT``, ``SASL_PLAINTEXT``, ``SASL_SSL`` or ``SSL``."""
        assert protocol == "PLAINTEXT" or self.secure, "Cluster(secure=True) has it"
        return ",".join(f"127.0.0.1:{node.ports[protocol]}" for node in self.nodes)

    def client(
        self, protocol: str = "PLAINTEXT", mechanism: str = "SCRAM-SHA-512"
    ) -> dict[str, Any]:
        """Arguments for kafka-python's clients."""
        said: dict[str, Any] = {
            "bootstrap_servers": self.listener(protocol),
            "security_protocol": protocol,
        }
        if protocol.startswith("SASL"):
            said["sasl_mechanism"] = mechanism
            said |= {"sasl_plain_username": jars.USER, "sasl_plain_password": jars.PASSWORD}
        if protocol.endswith("SSL"):
            assert self.certificates is not None
            said["ssl_cafile"] = str(self.certificates.ca)
        if protocol == "SSL":
            assert self.certificates is not None
            said["ssl_certfile"] = str(self.certificates.client)
            said["ssl_keyfile"] = str(self.certificates.client_key)
        return said

    def prefix(self) -> str:
        """A prefix of topics (or the name of a group) that is unused on this cluster."""
        return f"test-{next(self._names)}"

    def start(self) -> None:
        """Start every node that is not there, and wait until the cluster serves."""
        for node in self.nodes:
            node.start()
        self.wait()

    def wait(self) -> None:
        """Wait until every node is part of the cluster and every partition is in sync."""
        until = time.monotonic() + self._patience
        while not self._whole():
            if any(not node.alive for node in self.nodes) or time.monotonic() > until:
                told = (
                    f"node {node.number}: alive {node.alive}\n{node.log[-2000:]}"
                    for node in self.nodes
                )
                raise AssertionError("the cluster does not come up\n" + "\n".join(told))
            time.sleep(0.1)

    def _whole(self) -> bool:
        if any(self._refuses(node) for node in self.nodes):
            return False  # a client would wait for it, and back off
        admin = None
        try:
            admin = KafkaAdminClient(
                bootstrap_servers=self.bootstrap, request_timeout_ms=5000, bootstrap_timeout_ms=5000
            )
            there = {broker["broker_id"] for broker in admin.describe_cluster()["brokers"]}
            if len(there) < len(self.nodes):
                return False
            topics = admin.describe_topics()
            return all(
                len(partition["isr_nodes"]) == len(partition["replica_nodes"])
                for topic in topics
                for partition in topic["partitions"]
            )
        except (KafkaError, OSError):
            return False
        finally:
            if admin is not None:
                admin.close()

    @staticmethod
    def _refuses(node: Node) -> bool:
        with socket.socket() as sock:
            sock.settimeout(1)
            return sock.connect_ex(("127.0.0.1", node.ports["PLAINTEXT"])) != 0

    def heal(self) -> None:
        """Resume and start what tests left paused or dead, and wait until all is in sync."""
        for node in self.nodes:
            node.resume()
        self.start()

    def stop(self) -> None:
        """End all nodes at once and remove their storage."""
        for node in self.nodes:
            node.kill()
        assert self._reaper.stdin is not None
        self._reaper.stdin.close()
        self._reaper.wait()
        self._lock.close()
        for node in self.nodes:
            shutil.rmtree(node.folder / "data", ignore_errors=True)
        if self._own:
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()
