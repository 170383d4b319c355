"""The hierarchy of Understudy's exceptions.

Foreign exceptions are converted at the edge (files, sockets, YAML), so callers catch one hierarchy,
and a message names the fault, its location, and the valid values.
"""

from __future__ import annotations


class UnderstudyError(Exception):
    """Base class of Understudy's exceptions."""

    exit_code = 1


class ConfigError(UnderstudyError):
    """An invalid configuration; ``problems`` has one entry per fault.

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
    """Bytes that are not evidence of the first stage of the evaluation."""


class LostError(UnderstudyError):
    """The membership in a consumer group was lost: uncommitted work is void."""


class BlockError(ProtocolError):
    """Bytes that are not a readable block of records; ``reason`` is one of :attr:`REASONS`."""

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
    """Kafka cannot be used; the message names the fault and the topic."""


class KafkaAwayError(KafkaTroubleError):
    """No broker answers, or topics are missing: try again later."""


class FencedError(KafkaTroubleError):
    """Another controller has taken over; the decisions of this one are void."""


class HttpError(UnderstudyError):
    """A request or response that breaks HTTP/1.1 in a way that must not be forwarded.

    ``status`` is the response to the client when the fault is in its request; ``reason`` is a
    metric label with few values.
    """

    def __init__(self, status: int, reason: str, detail: str) -> None:
        self.status = status
        self.reason = reason
        self.detail = detail
        super().__init__(detail)


class UnknownExperimentError(UnderstudyError):
    """An experiment or a challenger that does not exist."""


class ExperimentStateError(UnderstudyError):
    """An operation that the experiment's phase does not allow; the message says what is allowed."""


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
    """An invalid signal or finding; the message names the field."""


class UnknownFindingError(FindingError):
    """A finding or silence that does not exist, or is no longer kept."""


class FindingStateError(FindingError):
    """An operation that the finding's state does not allow; the message says why."""


class BaselineError(UnderstudyError):
    """A baseline, or data for one, that cannot be used; the message names file and fault."""

    exit_code = 2


class DeliveryError(UnderstudyError):
    """A notification that could not be delivered; the message names receiver and cause, without
    secrets."""


class IngestError(UnderstudyError):
    """An invalid posted record or event; the message names the field."""

    exit_code = 2


class SourceError(IngestError):
    """A message of an imported topic that cannot be used; ``reason`` is one of those below.

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
