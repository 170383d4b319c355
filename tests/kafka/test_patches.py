"""That kafka-python still is as the fixes in ``monitor/kafka/patches.py`` expect it.

When one of these fails after an upgrade, look at the fix that the message names: either upstream has
solved it and the fix goes, or it has to follow the change.
"""

from __future__ import annotations

import inspect
import logging
import socket
from collections.abc import Callable
from typing import Any

import pytest

kafka = pytest.importorskip("kafka", reason="NOT TESTED: kafka-python is not installed")

from kafka import KafkaConsumer, KafkaProducer  # noqa: E402
from kafka.coordinator.base import BaseCoordinator  # noqa: E402
from kafka.coordinator.heartbeat import Heartbeat  # noqa: E402
from kafka.errors import KafkaConnectionError, KafkaTimeoutError, RequestTimedOutError  # noqa: E402
from kafka.future import Future  # noqa: E402
from kafka.net.compat import KafkaNetClient  # noqa: E402
from kafka.net.connection import KafkaConnection  # noqa: E402
from kafka.net.manager import KafkaConnectionManager  # noqa: E402
from kafka.net.selector import NetworkSelector  # noqa: E402
from kafka.net.transport import KafkaSSLTransport, KafkaTCPTransport  # noqa: E402
from kafka.producer.sender import Sender  # noqa: E402

from understudy.monitor.kafka import patches  # noqa: E402

Part = Callable[..., Any]
RELIED_ON: list[tuple[str, Part, str]] = [
    ("CONNECTION_LOG", KafkaConnectionManager._connect, "log.error('Connection failed: %s', exc)"),
    ("read_before_close", KafkaTCPTransport._read_from_sock,
     "recvd_data, err = self._sock_recv()\n            if err:\n                return self.abort("),
    ("read_before_close", KafkaTCPTransport._sock_recv, "return recvd_data, err"),
    ("read_before_close", KafkaSSLTransport._sock_recv, "return recvd_data, err"),
    ("read_before_close", KafkaConnectionManager._connect,
     "transport = await self._build_transport(node, timeout_at=timeout_at)"),
    ("Client.__init__", KafkaNetClient.__init__, "if manager is None else manager"),
    ("Client.await_ready", KafkaNetClient.await_ready, "raise Errors.KafkaConnectionError("),
    ("Client.await_ready", Sender._maybe_send_pending_request,
     "elif not self._client.await_ready(target_node, timeout_ms="),
    ("Client.send", KafkaNetClient.send, "return self._manager.send(request, node_id=node_id)"),
    ("Client.send", KafkaConnection._request_timed_out, "self.close(Errors.RequestTimedOutError("),
    ("close_now", KafkaProducer.close, "self.flush(timeout)\n"),
    ("close_now", Sender.force_close, "self._force_close = True\n        self.initiate_close()"),
    ("keep_rejoining", BaseCoordinator.request_rejoin, "self.rejoin_needed = True"),
    ("keep_rejoining", BaseCoordinator.need_rejoin, "return self.rejoin_needed"),
    ("last_heard", Heartbeat.received_heartbeat, "self.last_receive = time.monotonic()"),
    ("last_heard", Heartbeat.__init__, "self.last_reset = time.monotonic()"),
    ("keep_rejoining, last_heard", KafkaConsumer.__init__, "self._coordinator = ConsumerCoordinator("),
]  # fmt: skip
SIGNATURES = [
    ("read_before_close", KafkaConnectionManager._build_transport, "(self, node, timeout_at=None)"),
    ("read_before_close", KafkaTCPTransport._sock_recv, "(self)"),
    ("Client.await_ready", KafkaNetClient.await_ready, "(self, node_id, timeout_ms=30000)"),
    ("Client.send", KafkaNetClient.send, "(self, node_id, request, **kwargs)"),
    ("keep_rejoining", BaseCoordinator.request_rejoin, "(self)"),
    ("close_now", Sender.force_close, "(self)"),
]


@pytest.mark.parametrize(
    ("fix", "part", "fragment"), RELIED_ON, ids=[f"{f}: {p.__qualname__}" for f, p, _ in RELIED_ON]
)
def test_kafka_python_has_what_each_fix_relies_on(fix: str, part: Part, fragment: str) -> None:
    assert fragment in inspect.getsource(part), (
        f"kafka-python {kafka.__version__} has changed {part.__qualname__}: look at"
        f" understudy.monitor.kafka.patches.{fix}"
    )


@pytest.mark.parametrize(("fix", "part", "signature"), SIGNATURES)
def test_signatures_are_those_that_each_fix_calls(fix: str, part: Part, signature: str) -> None:
    assert str(inspect.signature(part)) == signature, (
        f"kafka-python {kafka.__version__} has changed {part.__qualname__}: look at"
        f" understudy.monitor.kafka.patches.{fix}"
    )


def test_every_fix_is_looked_at() -> None:
    named = {one.strip() for fix, _, _ in RELIED_ON for one in fix.split(",")}
    public = {
        name
        for name, value in vars(patches).items()
        if getattr(value, "__module__", "") == patches.__name__ and not name.startswith("_")
    }
    methods = {f"Client.{name}" for name in vars(patches.Client) if not name.startswith("__")}
    assert named == (public - {"Client"}) | methods | {"Client.__init__", "CONNECTION_LOG"}


def test_what_was_read_comes_before_the_end() -> None:
    """Upstream both come at once; when it does not any more, ``read_before_close`` can go."""
    for fixed in (False, True):
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        transport = KafkaTCPTransport(NetworkSelector(), ours, host="broker")
        if fixed:
            patches.read_before_close(transport)
        theirs.sendall(b"refused: wrong password")
        theirs.close()
        data, error = transport._sock_recv()
        assert data == b"refused: wrong password"
        if fixed:
            assert error is None
            data, error = transport._sock_recv()
            assert data == b""
        assert isinstance(error, KafkaConnectionError), "look at patches.read_before_close"
        ours.close()


def _unreachable() -> dict[str, Any]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    return {"bootstrap_servers": [f"127.0.0.1:{port}"], "bootstrap_timeout_ms": 200}


def test_a_node_that_is_gone_is_not_ready() -> None:
    """Upstream it is an exception; when it is not any more, ``Client.await_ready`` can go."""
    upstream, ours = KafkaNetClient(**_unreachable()), patches.Client(**_unreachable())
    try:
        with pytest.raises(KafkaConnectionError):
            upstream.await_ready("bootstrap-0", timeout_ms=50)
        assert ours.await_ready("bootstrap-0", timeout_ms=50) is False
    finally:
        upstream.close()
        ours.close()


def test_a_silent_broker_is_a_lost_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    client = patches.Client(**_unreachable())
    try:
        under = Future()
        monkeypatch.setattr(client._manager, "send", lambda request, node_id: under)
        response = client.send("bootstrap-0", object())
        under.failure(RequestTimedOutError("Request timed out after 5 ms"))
        assert type(response.exception) is KafkaConnectionError
        assert "after 5 ms" in str(response.exception)
    finally:
        client.close()


def test_a_producer_without_brokers_ends_at_once() -> None:
    with pytest.raises(KafkaTimeoutError):
        KafkaProducer(**_unreachable(), kafka_client=patches.Client)


def test_why_no_connection_came_about_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    client = patches.Client(**_unreachable())
    with caplog.at_level(logging.ERROR, patches.CONNECTION_LOG):
        client.await_ready("bootstrap-0", timeout_ms=30_000)
    client.close()
    assert any(
        isinstance(argument, Exception)
        for record in caplog.records
        for argument in (record.args if isinstance(record.args, tuple) else ())
    ), "look at patches.CONNECTION_LOG"
