"""Open incidents and their findings, as `/v1/status` has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from understudy.monitor.findings import words
from understudy.monitor.findings.finding import SEVERITIES, Finding
from understudy.monitor.findings.incident import Incident

MOST = 10


def in_short(incidents: Sequence[Incident], now: float) -> dict[str, Any]:
    """What the page shows of the open ``incidents``, the worst first: for the status document.
    ``open`` counts their open findings."""
    return {
        "open": sum(len(incident.open_findings) for incident in incidents),
        "open_incidents": len(incidents),
        "incidents": [
            {
                "id": incident.id,
                "headline": incident.headline,
                "severity": SEVERITIES[incident.severity],
                "age_seconds": max(0.0, now - incident.opened),
                "acknowledged": incident.acknowledged,
                "open": len(incident.open_findings),
                "findings": [_finding(one, now) for one in incident.open_findings[:MOST]],
            }
            for incident in incidents[:MOST]
        ],
    }


def _finding(finding: Finding, now: float) -> dict[str, Any]:
    signal = finding.signal
    return {
        "id": finding.id,
        "severity": signal.severity,
        "kind": signal.kind,
        "about": words.subject(signal),
        "title": signal.title,
        "features": words.features(signal, 3),
        "size": words.size(signal.size) if signal.size else None,
        "age_seconds": max(0.0, now - finding.opened),
        "since": signal.since,
        "advice": signal.advice,
        "acknowledged": finding.acknowledged,
        "silent": finding.silent(now),
    }
