"""The history of findings on disk: ``findings.jsonl``, one line for each list of changes.

A change is on disk before a notification is sent, so after a crash the finding keeps its id. The
file has the format of the experiments' audit log: chained lines, synced one by one. The whole
history is kept up to a size and an age (:class:`Retention`); when it is full, the oldest file goes.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from understudy.monitor.errors import FindingError
from understudy.monitor.findings.changes import Change
from understudy.monitor.findings.finding import EVENTS, Finding
from understudy.monitor.findings.ledger import Findings
from understudy.monitor.records.audit import AuditLog

log = logging.getLogger(__name__)

FILE_NAME = "findings.jsonl"
FILE_BYTES = 1 << 20
_DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class Retention:
    """How much of the history is kept: at most ``max_bytes`` of it, and nothing that is older than
    ``max_days``, to a file of a twentieth of the size or 1 MiB."""

    max_bytes: int = 32 << 20
    max_days: int = 90

    @property
    def files(self) -> tuple[int, int]:
        """Size of a file, and number of full ones beside the current one. A file may be larger by
        its last line."""
        size = min(FILE_BYTES, max(self.max_bytes // 20, 4096))
        return size, max(1, self.max_bytes // size - 1)


class History:
    """``failures`` counts lines that could not be written; ``error`` is why the last write failed,
    or None."""

    def __init__(self, folder: Path, retention: Retention | None = None) -> None:
        self.path = folder / FILE_NAME
        self.retention = retention or Retention()
        self.failures = 0
        self.error: str | None = None
        self.last = 0
        """Number of the last line."""
        self._expired = 0.0
        """When old files were last looked for, in unix seconds."""
        self._log = AuditLog(self.path, *self.retention.files)

    def configure(self, retention: Retention) -> None:
        """Apply another retention; it takes effect with the next line."""
        if retention != self.retention:
            self.retention = retention
            self._expired = 0.0
            self._log = AuditLog(self.path, *retention.files)

    def append(self, changes: list[Change], silences: Mapping[str, Any] | None, now: float) -> bool:
        """Write and sync one line. Returns False when that failed: the changes are then only in
        memory and in the saved state of the service."""
        line: dict[str, Any] = {"at": now, "changes": [change.to_dict() for change in changes]}
        if silences is not None:
            line["silences"] = dict(silences)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if abs(now - self._expired) >= _DAY:
                self._expired = now
                self._log.expire(now - self.retention.max_days * _DAY)
            self.last = self._log.append(line)
        except (OSError, ValueError, OverflowError) as error:
            self.failures += 1
            if self.error is None:
                log.error("%s: write failed; findings continue in memory: %s", self.path, error)
            self.error = f"{self.path}: {error}"
            return False
        self.error = None
        return True

    def catch_up(self, findings: Findings, saved: int) -> None:
        """Apply the lines after ``saved`` to ``findings``, whose saved state ends there.

        Findings closed before that are added as far as the limit allows. Unreadable lines are
        skipped.
        """
        self.last = 0
        for line in self._log.entries():
            self.last = max(self.last, _seq(line))
        if saved > self.last:
            saved = self.last  # The file is not the one that the state was saved with.
        for line in self._log.entries():
            if _seq(line) > saved:
                _replay(findings, line)
        seen = {finding.id for finding in findings.all()}
        room = findings.limits.history - len(findings.closed())
        for line in self._log.entries(newest_first=True):
            if room <= 0:
                break
            for change in reversed(line.get("changes") or []):
                finding = _finding(change)
                if finding is not None and finding.id not in seen:
                    seen.add(finding.id)
                    findings.add_closed(finding)
                    room -= 1

    def page(
        self,
        before: int | None = None,
        limit: int = 100,
        finding: str | None = None,
        model: str | None = None,
    ) -> tuple[list[dict[str, Any]], int | None]:
        """Changes, the newest first, and where the next page begins: None after the oldest.

        A page holds whole lines, and so a few changes more than ``limit``; ``before`` is the number
        of the line after its first one. Only changes of one finding or incident, or of one model,
        when these are given.
        """
        changes: list[dict[str, Any]] = []
        for line in self._log.entries(newest_first=True):
            seq = _seq(line)
            if before is not None and seq >= before:
                continue
            if len(changes) >= limit:
                return changes, seq + 1
            for change in reversed(line.get("changes") or []):
                one = _finding(change)
                if one is None or (finding is not None and finding not in (one.id, one.incident)):
                    continue
                if model is None or model == one.signal.model:
                    kind, at = str(change.get("kind")), change.get("at")
                    detail = str(change.get("detail", ""))
                    changes.append({"line": seq, "at": at, "event": kind, "change": detail,
                                    "finding": one.to_dict()})  # fmt: skip
        return changes, None

    def find(self, id_: str) -> Finding | None:
        """The last state of a finding on disk; None for one that is not there."""
        changes, _ = self.page(limit=1, finding=id_)
        return next((Finding.from_dict(one["finding"]) for one in changes), None)


def _seq(line: Mapping[str, Any]) -> int:
    seq = line.get("seq")
    return seq if isinstance(seq, int) else 0


def _finding(change: object) -> Finding | None:
    try:
        return Finding.from_dict(change["finding"])  # type: ignore[index]
    except (FindingError, KeyError, TypeError):
        return None


def _replay(findings: Findings, line: Mapping[str, Any]) -> None:
    for change in line.get("changes") or []:
        finding = _finding(change)
        kind = change.get("kind") if isinstance(change, Mapping) else None
        if finding is None or kind not in EVENTS:
            log.error("findings: line %s of the history is unreadable: skipped", line.get("seq"))
            continue
        findings.replay(kind, finding)
    if isinstance(line.get("silences"), Mapping):
        try:
            findings.silences.load_state(line["silences"])
        except (FindingError, KeyError, TypeError, ValueError) as error:
            log.error("findings: line %s of the history: %s", line.get("seq"), error)
