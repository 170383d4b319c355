"""The one tree of errors that Understudy raises on purpose.

Foreign exceptions are mapped into it at the edge (files, sockets, YAML), so that a caller has one
place to look and a message always says what was wrong, where, and what would be right.
"""

from __future__ import annotations


class UnderstudyError(Exception):
    """Base of every error that is part of Understudy's contract."""

    exit_code = 1


class ConfigError(UnderstudyError):
    """A configuration that cannot be used; ``problems`` holds one line per fault.

    Each problem is ``(path, message)`` where ``path`` is dotted, as in
    ``challengers[0].mirror.rate``.
    """

    exit_code = 2

    def __init__(self, source: str, problems: list[tuple[str, str]]) -> None:
        self.source = source
        self.problems = problems
        lines = [f"{path}: {message}" if path else message for path, message in problems]
        super().__init__(f"{source}: " + "; ".join(lines))


class StateError(UnderstudyError):
    """A state file or shared-memory file that cannot be read or written."""


class SnapshotError(StateError):
    """A state kept in Kafka that is damaged, or of another version than this program reads."""


class ProtocolError(UnderstudyError):
    """A peer inside Understudy (worker, evaluation plane) broke the hand-off protocol."""


class RecordError(ProtocolError):
    """Bytes that are not an encoded :class:`understudy.monitor.records.record.Record`."""


class EvidenceError(ProtocolError):
    """Bytes that are no evidence of the first stage of the evaluation."""


class LostError(UnderstudyError):
    """A membership in a group is over: what it did since its last commit is void."""


class BlockError(ProtocolError):
    """Bytes that are no block of records that can be read here, and why, of :attr:`REASONS`."""

    REASONS = (
        "not_a_block",
        "newer_schema",
        "unknown_kind",
        "unknown_codec",
        "damaged",
        "too_large",
        "wrong_shape",
    )

    def __init__(self, reason: str, detail: str) -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(f"{reason}: {detail}")


class LogError(UnderstudyError):
    """A log of segments that cannot be used; the message names the folder or file."""

    exit_code = 2


class KafkaTroubleError(UnderstudyError):
    """Kafka cannot be used as it was meant to; the message says how, and for which topic."""


class KafkaAwayError(KafkaTroubleError):
    """No broker answers, or there are no topics yet: worth another try later."""


class FencedError(KafkaTroubleError):
    """Another controller steers now; what this one decided is void."""


class HttpError(UnderstudyError):
    """A request or response that breaks HTTP/1.1 in a way that must not be forwarded.

    ``status`` is what the client is told when the fault is in its request; ``reason`` is a bounded
    metric label.
    """

    def __init__(self, status: int, reason: str, detail: str) -> None:
        self.status = status
        self.reason = reason
        self.detail = detail
        super().__init__(detail)


class UnknownExperimentError(UnderstudyError):
    """An experiment or a challenger that does not exist."""


class ExperimentStateError(UnderstudyError):
    """Something that cannot be done with an experiment now; the message says what can."""


class ReplayError(UnderstudyError):
    """A file of logged records that cannot be replayed; the message names file and line."""

    exit_code = 2


class ApiError(UnderstudyError):
    """The control API refused a call, or did not answer; ``status`` is HTTP's, or 0."""

    def __init__(self, message: str, status: int) -> None:
        self.status = status
        self.exit_code = 2 if status in (409, 422) else 1
        super().__init__(message)


class FindingError(UnderstudyError):
    """A signal or finding that cannot be what it should be; the message names the field."""


class UnknownFindingError(FindingError):
    """A finding or silence that does not exist, or is no longer kept."""


class FindingStateError(FindingError):
    """Something that cannot be done with a finding now; the message says why."""


class BaselineError(UnderstudyError):
    """A baseline, or data for one, that cannot be used; the message names file and fault."""

    exit_code = 2


class DeliveryError(UnderstudyError):
    """A notification that could not be delivered; the message says to where and why, no secrets."""


class IngestError(UnderstudyError):
    """A posted record or event that cannot be taken; the message names the field."""

    exit_code = 2


class SourceError(IngestError):
    """A message of a topic of others that cannot be used; ``reason`` is a bounded label.

    Reasons: ``empty``, ``not_json``, ``not_cloudevent``, ``wrong_shape``, ``wrong_type``,
    ``missing_field``, ``unknown_model``, ``unknown_arm``, ``too_large``.
    """

    def __init__(self, reason: str, detail: str) -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(f"{reason}: {detail}")


class MissingExtraError(UnderstudyError):
    """Something needs a package that is not installed; the message says which."""

    exit_code = 2


class ValidationCaseError(UnderstudyError):
    """A file of validation cases that cannot be used; the message names file and line."""

    exit_code = 2
