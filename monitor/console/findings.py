"""Open findings on the status page, which ``static/findings.js`` draws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from understudy.monitor.findings import words
from understudy.monitor.findings.finding import Finding

MOST = 10


def in_short(findings: Sequence[Finding], now: float) -> dict[str, Any]:
    """What the page shows of the open ``findings``, the worst first: for the status document."""
    return {
        "open": len(findings),
        "findings": [
            {
                "id": finding.id,
                "severity": finding.signal.severity,
                "kind": finding.signal.kind,
                "about": words.subject(finding.signal),
                "title": finding.signal.title,
                "features": words.features(finding.signal, 3),
                "size": words.size(finding.signal.size) if finding.signal.size else None,
                "age_seconds": max(0.0, now - finding.opened),
                "since": finding.signal.since,
                "advice": finding.signal.advice,
                "acknowledged": finding.acknowledged,
                "silent": finding.silent(now),
            }
            for finding in findings[:MOST]
        ],
    }
