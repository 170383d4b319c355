"""Findings and notifications as metric families."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from prometheus_client.core import Metric

from understudy.monitor.findings.channels.base import OUTCOMES
from understudy.monitor.findings.finding import KINDS, SEVERITIES
from understudy.monitor.findings.service import FindingsService
from understudy.monitor.telemetry.families import counter, gauge


def finding_families(service: FindingsService, models: Iterable[str]) -> Iterator[Metric]:
    """How many are open and were ever opened, by model and kind; what became of messages.

    Every kind of ``models`` is there from the start, at 0.

    Models come from the configuration, everything else from closed lists.
    """
    ledger = service.ledger
    totals = {(model, kind): 0 for model in models for kind in KINDS} | dict(ledger.totals)
    open_counts = Counter({(*key, severity): 0 for key in totals for severity in SEVERITIES})
    for finding in ledger.open():
        open_counts[finding.signal.model, finding.signal.kind, finding.signal.severity] += 1
    yield gauge(
        "findings_open",
        "Open findings.",
        ("model", "kind", "severity"),
        [(key, float(value)) for key, value in open_counts.items()],
    )
    yield counter("findings", "Findings opened.", ("model", "kind"), list(totals.items()))
    yield counter(
        "findings_reopened",
        "Findings that recurred within their grace period.",
        (),
        [([], ledger.reopened)],
    )
    yield counter(
        "findings_forgotten",
        "Closed findings dropped from the history, which is full.",
        (),
        [([], ledger.forgotten)],
    )
    yield counter(
        "findings_write_failures",
        "Lines of the findings' history that could not be written.",
        (),
        [([], service.history.failures if service.history is not None else 0)],
    )
    channels = service.notifier.channels
    yield counter(
        "notifications",
        "Messages to channels, by outcome.",
        ("channel", "outcome"),
        [
            ([name, outcome], channel.outcomes[outcome])
            for name, channel in channels.items()
            for outcome in OUTCOMES
        ],
    )
    yield gauge(
        "notifications_pending",
        "Findings with a message waiting for a channel.",
        ("channel",),
        [([name], pending) for name, pending in service.notifier.pending().items()],
    )
