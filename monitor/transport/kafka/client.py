"""kafka-python's network client, with what we need of it to survive a broker that dies."""

from __future__ import annotations

from typing import Any

from kafka.errors import KafkaConnectionError, RequestTimedOutError
from kafka.future import Future
from kafka.net.compat import KafkaNetClient


class Client(KafkaNetClient):  # type: ignore[misc]  # kafka-python has no types
    """Pass it as ``kafka_client=Client`` to each producer, consumer and admin client.

    It mends two things of kafka-python 3.0:

    * The sender of a transactional producer asks whether the coordinator is ready and expects False
      where it is gone, but gets an exception, and then forgets the request that it was about to
      send: the transaction waits for ever after its coordinator died.
    * A broker that stays silent beyond ``request_timeout_ms`` has its connection closed, but the
      requests fail as if the broker had answered: no new metadata is asked for, and a transactional
      producer gives up for good. Here they fail as what they are, requests on a lost connection,
      and are tried again where the partition or the coordinator is then.
    """

    def await_ready(self, node_id: Any, timeout_ms: float = 30000) -> bool:
        """Whether the node can be sent to, after waiting up to ``timeout_ms`` for it."""
        try:
            return bool(super().await_ready(node_id, timeout_ms=timeout_ms))
        except KafkaConnectionError:
            return False

    def send(self, node_id: Any, request: Any, **options: Any) -> Any:
        """Future of the answer."""
        told = Future()

        def fail(error: BaseException) -> None:
            if isinstance(error, RequestTimedOutError):
                error = KafkaConnectionError(str(error))
            told.failure(error)

        super().send(node_id, request, **options).add_callback(told.success).add_errback(fail)
        return told
