"""Why no connection to Kafka came about, which kafka-python tells its log alone."""

from __future__ import annotations

import logging
import time

from kafka.errors import KafkaTimeoutError, SaslAuthenticationFailedError

from understudy.monitor.kafka.patches import CONNECTION_LOG

_RECENT_SECONDS = 60.0


class _Reasons(logging.Filter):
    """Remembers the errors in kafka-python's log that say why it could not connect."""

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
logging.getLogger(CONNECTION_LOG).addFilter(_reasons)


def quiet() -> None:
    """Keep kafka-python's own log still: it has a line for each try to connect."""
    _reasons.quiet = True
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    logging.getLogger(CONNECTION_LOG).setLevel(logging.WARNING)


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
