"""The version of a model that its server says it is, by arm: another one is an event."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from understudy.common.codecs import Table, Undecodable
from understudy.monitor.records.record import Record

log = logging.getLogger(__name__)

ArmKey = tuple[str, str, str]
"""(model, version, arm)"""
AGAIN = 100
"""Answers without a version after which it is an event when that comes again: pods that are
replaced one by one answer with two versions for a while, and that is one change."""
_HEADERS = (b"x-model-version", b"x-amzn-invoked-production-variant", b"azureml-model-deployment")
"""Headers with which servers say it, in lower case."""
_MOST_ARMS = 256
_MOST_VERSIONS = 8
_MOST_CHANGES = 50
_LONGEST = 63
OTHER = "other"
"""Counts what came after :data:`_MOST_VERSIONS`."""


@dataclass(frozen=True, slots=True)
class VersionChange:
    """``at`` is unix time in seconds, ``request_id`` the first answer with the new version;
    ``before`` and ``after`` are versions as the server says them."""

    at: float
    model: str
    version: str
    arm: str
    before: str
    after: str
    request_id: str

    @property
    def words(self) -> str:
        """What happened."""
        return (
            f"model {self.model!r} of {self.arm!r} answers as version {self.after!r}, and was "
            f"{self.before!r} before"
        )


class ServedVersions:
    """Counts answers by the version that they say, and notices another one."""

    def __init__(self) -> None:
        self.answers: dict[ArmKey, dict[str, int]] = {}
        """By version."""
        self.changes: deque[VersionChange] = deque(maxlen=_MOST_CHANGES)
        self.changed: dict[ArmKey, int] = {}
        """Number of changes."""
        self.listeners: list[Callable[[VersionChange], None]] = []
        self._last: dict[ArmKey, str] = {}
        self._count: dict[ArmKey, int] = {}
        self._seen: dict[ArmKey, dict[str, int]] = {}
        """By version, the number of the last answer with it."""

    def add(self, key: ArmKey, version: str, record: Record) -> None:
        """An answer said that it is ``version``."""
        answers = self.answers.get(key)
        if answers is None:
            if len(self.answers) >= _MOST_ARMS:
                return
            answers = self.answers[key] = {}
            self._seen[key] = {}
            self._count[key] = self.changed[key] = 0
        version = version[:_LONGEST]
        label = version if version in answers or len(answers) < _MOST_VERSIONS else OTHER
        answers[label] = answers.get(label, 0) + 1
        seen = self._seen[key]
        number = self._count[key] = self._count[key] + 1
        before = self._last.get(key)
        self._last[key] = version
        new = number - seen.pop(version, -AGAIN) > AGAIN
        seen[version] = number
        if len(seen) > _MOST_VERSIONS:
            del seen[next(iter(seen))]
        if new and before is not None and before != version:
            at = record.started + record.duration_ns * 1e-9
            request_id = record.request_id.decode("latin-1")
            self._report(VersionChange(at, *key, before, version, request_id))

    def _report(self, change: VersionChange) -> None:
        self.changed[change.model, change.version, change.arm] += 1
        self.changes.append(change)
        log.warning("%s (request %s)", change.words, change.request_id)
        for listener in self.listeners:
            listener(change)

    def document(self) -> dict[str, Any]:
        """As JSON: the versions by arm, the newest last, and the last changes, the newest first."""
        return {
            "versions": [
                {
                    **dict(zip(("model", "version", "arm"), key, strict=True)),
                    "served": self._last[key],
                    "answers": dict(answers),
                }
                for key, answers in self.answers.items()
            ],
            "changes": [asdict(change) for change in reversed(self.changes)],
        }


def served_version(record: Record, answer: Table | Undecodable) -> str:
    """The version that an answer says, in its payload or a header; "" if it says none."""
    if answer.version:
        return answer.version
    headers = record.response_headers
    if b"\r\n" not in headers:  # the content type, mostly
        return ""
    for line in headers.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() in _HEADERS:
            return value.strip().decode("latin-1")
    return ""
