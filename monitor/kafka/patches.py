"""Every use of what is private in kafka-python, each with what is wrong there and how to fix it.

The fixes have the shape of patches that could be offered upstream. ``tests/kafka/test_patches.py``
fails, and names the fix, when kafka-python no longer has the parts that a fix relies on; until then
its minor version is pinned.
"""

from __future__ import annotations

from typing import Any

from kafka.errors import KafkaConnectionError, KafkaError, RequestTimedOutError
from kafka.future import Future
from kafka.net.compat import KafkaNetClient
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector

CONNECTION_LOG = "kafka.net.manager"
"""The logger that has, as an argument of its records, the error for which no connection came about.

Wrong upstream: ``KafkaConnectionManager._connect`` logs the error and drops it, and what the caller
gets is a KafkaTimeoutError without a cause. The patch: keep the last error of each node and raise
the time-out ``from`` it.
"""


def read_before_close(transport: Any) -> None:
    """Let a transport deliver what it has read before it reports the end of the connection.

    Wrong upstream: ``KafkaTCPTransport._sock_recv`` returns data together with the error of a
    closed socket, and ``_read_from_sock`` looks at the error first and drops the data. A broker
    that refuses credentials answers and closes, so that the reason is lost half of the time. The
    patch: in ``_read_from_sock``, pass ``recvd_data`` to the protocol before ``abort(error=err)``.
    """
    receive = transport._sock_recv

    def answer_first() -> tuple[bytes, Exception | None]:
        data, error = receive()
        return data, None if data else error  # the next read meets the end again

    transport._sock_recv = answer_first


class _Connections(KafkaConnectionManager):  # type: ignore[misc]  # kafka-python has no types
    """Applies :func:`read_before_close` to each connection."""

    async def _build_transport(self, *arguments: Any, **options: Any) -> Any:
        transport = await super()._build_transport(*arguments, **options)
        read_before_close(transport)
        return transport


class Client(KafkaNetClient):  # type: ignore[misc]  # kafka-python has no types
    """Pass it as ``kafka_client=Client`` to each producer, consumer and admin client."""

    def __init__(self, **configs: Any) -> None:
        net = NetworkSelector(**configs)
        super().__init__(net=net, manager=_Connections(net, **configs), **configs)

    def await_ready(self, node_id: Any, timeout_ms: float = 30000) -> bool:
        """Whether the node can be sent to, after waiting up to ``timeout_ms`` for it.

        Wrong upstream: the sender of a transactional producer expects False for a coordinator that
        is gone, and gets a KafkaConnectionError. It then forgets the request that it was about to
        send, and the transaction waits forever. The patch: in
        ``Sender._maybe_send_pending_request``, treat the exception as False.
        """
        try:
            return bool(super().await_ready(node_id, timeout_ms=timeout_ms))
        except KafkaConnectionError:
            return False

    def send(self, node_id: Any, request: Any, **options: Any) -> Any:
        """Future of the response.

        Wrong upstream: a broker that is silent beyond ``request_timeout_ms`` has its connection
        closed, but its requests fail with RequestTimedOutError, as if the broker had answered: no
        metadata is asked for, and a transactional producer fails for good. The patch: in
        ``KafkaConnection._request_timed_out``, close with a KafkaConnectionError, which is retried
        at the node that has the partition or the coordinator by then.
        """
        response = Future()

        def fail(error: BaseException) -> None:
            if isinstance(error, RequestTimedOutError):
                error = KafkaConnectionError(str(error))
            response.failure(error)

        super().send(node_id, request, **options).add_callback(response.success).add_errback(fail)
        return response


def close_now(producer: Any) -> None:
    """Close a producer at once; what it was about to send is dropped.

    Wrong upstream: ``KafkaProducer.close(timeout=0)`` flushes first, and the time-out of that flush
    leaves ``close`` before the sender thread is told to stop. The patch: in ``close``, call
    ``force_close`` in a ``finally``.
    """
    try:
        producer.close(timeout=0)
    except KafkaError:
        producer._sender.force_close()


def keep_rejoining(consumer: Any) -> None:
    """Call when partitions are revoked: the member joins again also when a poll ends in between.

    Wrong upstream: a leader that joins because it has learnt of new partitions forgets that it is
    joining when the poll ends before the response. Then it owns nothing, sends no heartbeats and
    polls without a pause. ``rejoin_needed`` stays set until the join is complete, so setting it
    keeps ``need_rejoin`` true. The patch: set it in ``_on_join_prepare`` for every reason to join.
    """
    consumer._coordinator.request_rejoin()


def last_heard(consumer: Any) -> float:
    """When the group's coordinator last answered, or was last joined, in monotonic seconds.

    Missing upstream: a consumer that has nothing to commit cannot learn that its heartbeats are not
    answered. The patch: a public property of KafkaConsumer with this value.
    """
    heartbeat = consumer._coordinator.heartbeat
    return float(max(heartbeat.last_receive, heartbeat.last_reset))
