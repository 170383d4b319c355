"""The history of findings on disk: ``findings.jsonl``, one line for each list of changes.

A change is on disk before a notification is sent, so after a crash the finding keeps its id. The
file has the format of the experiments' audit log: chained lines, synced one by one, up to a limit.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
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
FILES = 4
_ALL = 1_000_000


class History:
    """``failures`` counts lines that could not be written; ``error`` is why the last write failed,
    or None."""

    def __init__(self, folder: Path, file_bytes: int = FILE_BYTES, files: int = FILES) -> None:
        self.path = folder / FILE_NAME
        self.failures = 0
        self.error: str | None = None
        self.last = 0
        """Number of the last line."""
        self._log = AuditLog(self.path, file_bytes, files)

    def append(self, changes: list[Change], silences: Mapping[str, Any] | None, now: float) -> bool:
        """Write and sync one line. Returns False when that failed: the changes are then only in
        memory and in the saved state of the service."""
        line: dict[str, Any] = {"at": now, "changes": [change.to_dict() for change in changes]}
        if silences is not None:
            line["silences"] = dict(silences)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
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
        lines = self._log.read(limit=_ALL)
        self.last = max((_seq(line) for line in lines), default=0)
        if saved > self.last:
            saved = self.last  # The file is not the one that the state was saved with.
        for line in lines:
            if _seq(line) > saved:
                _replay(findings, line)
        seen = {finding.id for finding in findings.all()}
        for line in reversed(lines):
            for change in reversed(line.get("changes") or []):
                finding = _finding(change)
                if finding is not None and finding.id not in seen:
                    seen.add(finding.id)
                    findings.add_closed(finding)


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
