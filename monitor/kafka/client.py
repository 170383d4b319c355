"""Why a connection to Kafka failed: kafka-python writes the reason to its log only."""

from __future__ import annotations

import logging
import time

from kafka.errors import KafkaTimeoutError, SaslAuthenticationFailedError

from understudy.monitor.kafka.patches import CONNECTION_LOG

_RECENT_SECONDS = 60.0


class _Reasons(logging.Filter):
    """Remembers the connection errors in kafka-python's log."""

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

    def credentials_error(self) -> str:
        """The error of a broker that recently refused our credentials; empty if none did."""
        at, text = self._refused
        return text if at and time.monotonic() - at < _RECENT_SECONDS else ""

    def recent(self) -> str:
        at, text = self._last
        # After a refusal a broker delays its response; the time-outs that follow hide the reason.
        return self.credentials_error() or (text if time.monotonic() - at < _RECENT_SECONDS else "")

    def forget(self) -> None:
        self._last = self._refused = (0.0, "")


_reasons = _Reasons()
logging.getLogger(CONNECTION_LOG).addFilter(_reasons)


def silence_kafka_log() -> None:
    """Silence kafka-python's own log: it has a line for each attempt to connect."""
    _reasons.quiet = True
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    logging.getLogger(CONNECTION_LOG).setLevel(logging.WARNING)


def describe_error(error: BaseException) -> str:
    """Text of an error; a time-out is followed by why the connection failed, if that is known."""
    text = str(error) or type(error).__name__
    if isinstance(error, KafkaTimeoutError) and (reason := _reasons.recent()):
        return f"{text}: {reason}"
    return text


def is_credentials_error(error: BaseException) -> bool:
    """Whether an error means that brokers refuse our credentials."""
    if isinstance(error, SaslAuthenticationFailedError):
        return True
    return isinstance(error, KafkaTimeoutError) and bool(_reasons.credentials_error())


def forget_errors() -> None:
    """Forget the connection errors so far."""
    _reasons.forget()
