"""kafka-python's network client, with what we need of it to survive a broker that dies.

This and :mod:`understudy.monitor.kafka.membership` use what is private there, so its minor version
is fixed.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from kafka.errors import (
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    RequestTimedOutError,
    SaslAuthenticationFailedError,
)
from kafka.future import Future
from kafka.net.compat import KafkaNetClient
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector

_RECENT_SECONDS = 60.0


class _Reasons(logging.Filter):
    """kafka-python tells its log, and nobody else, why it could not connect to a broker at all."""

    def __init__(self) -> None:
        super().__init__()
        self.quiet = False
        self._last: tuple[float, str] = (0.0, "")
        self._refused: tuple[float, str] = (0.0, "")

    def filter(self, record: logging.LogRecord) -> bool:
        for argument in record.args if isinstance(record.args, tuple) else ():
            if not isinstance(argument, Exception) or isinstance(argument, KafkaTimeoutError):
                continue
            if isinstance(argument, SaslAuthenticationFailedError):
                self._refused = time.monotonic(), str(argument)
            self._last = time.monotonic(), str(argument)
        return not self.quiet

    def refused(self) -> str:
        """That a broker has refused our credentials of late."""
        at, text = self._refused
        return text if at and time.monotonic() - at < _RECENT_SECONDS else ""

    def recent(self) -> str:
        at, text = self._last
        # After it has refused us, a broker keeps us waiting, and tries that time out say nothing.
        return self.refused() or (text if time.monotonic() - at < _RECENT_SECONDS else "")

    def forget(self) -> None:
        self._last = self._refused = (0.0, "")


_reasons = _Reasons()
_TALKERS = "kafka.net.manager"
logging.getLogger(_TALKERS).addFilter(_reasons)


def quiet() -> None:
    """Keep kafka-python's own log still: it has a line for each try to connect."""
    _reasons.quiet = True
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    logging.getLogger(_TALKERS).setLevel(logging.WARNING)


def describe_error(error: BaseException) -> str:
    """An error in words, with why no connection came about where that is all that it says."""
    text = str(error) or type(error).__name__
    if isinstance(error, KafkaTimeoutError) and (reason := _reasons.recent()):
        return f"{text}: {reason}"
    return text


def refused(error: BaseException) -> bool:
    """Whether brokers do not accept who we say that we are."""
    if isinstance(error, SaslAuthenticationFailedError):
        return True
    return isinstance(error, KafkaTimeoutError) and bool(_reasons.refused())


def forget() -> None:
    """Why no connection came about until now is of no interest any more."""
    _reasons.forget()


def leave(producer: Any) -> None:
    """Close a producer at once; nothing that it was about to send is sent any more."""
    try:
        producer.close(timeout=0)
    except KafkaError:
        # It does not wait for what is under way, but then it does not close either.
        producer._sender.force_close()


class _Connections(KafkaConnectionManager):  # type: ignore[misc]  # kafka-python has no types
    """Reads what a broker says before it hangs up.

    kafka-python throws away what it has read together with the end of a connection, and that is how
    a broker refuses credentials: it answers, and closes.
    """

    async def _build_transport(self, *arguments: Any, **options: Any) -> Any:
        transport = await super()._build_transport(*arguments, **options)
        receive = transport._sock_recv

        def answer_first() -> tuple[bytes, Exception | None]:
            data, error = receive()
            # The end is still there for who reads again.
            return data, None if data else error

        transport._sock_recv = answer_first
        return transport


class Client(KafkaNetClient):  # type: ignore[misc]  # kafka-python has no types
    """Pass it as ``kafka_client=Client`` to each producer, consumer and admin client.

    It mends three things of kafka-python 3.0:

    * The sender of a transactional producer asks whether the coordinator is ready and expects False
      where it is gone, but gets an exception, and then forgets the request that it was about to
      send: the transaction waits for ever after its coordinator died.
    * A broker that stays silent beyond ``request_timeout_ms`` has its connection closed, but the
      requests fail as if the broker had answered: no new metadata is asked for, and a transactional
      producer gives up for good. Here they fail as what they are, requests on a lost connection,
      and are tried again where the partition or the coordinator is then.
    * Half of the time it did not hear that a broker refuses its credentials.
    """

    def __init__(self, **configs: Any) -> None:
        net = NetworkSelector(**configs)
        super().__init__(net=net, manager=_Connections(net, **configs), **configs)

    def await_ready(self, node_id: Any, timeout_ms: float = 30000) -> bool:
        """Whether the node can be sent to, after waiting up to ``timeout_ms`` for it."""
        try:
            return bool(super().await_ready(node_id, timeout_ms=timeout_ms))
        except KafkaConnectionError:
            return False

    def send(self, node_id: Any, request: Any, **options: Any) -> Any:
        """Future of the answer."""
        answer = Future()

        def fail(error: BaseException) -> None:
            if isinstance(error, RequestTimedOutError):
                error = KafkaConnectionError(str(error))
            answer.failure(error)

        super().send(node_id, request, **options).add_callback(answer.success).add_errback(fail)
        return answer
