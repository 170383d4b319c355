"""Open findings on the status page: the data, and the JavaScript function that draws them."""

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


SCRIPT = """
function findings(found) {
  if (!found || !found.open) return [];
  const made = section('Open findings: ' + number(found.open));
  for (const f of found.findings) {
    const bad = {critical: 'bad', warning: 'warn'}[f.severity] || 'soft';
    const quiet = [f.acknowledged ? 'acknowledged' : '', f.silent ? 'silenced' : '']
      .filter(text => text).join(', ');
    const link = node('a', f.id);
    link.href = 'v1/findings/' + encodeURIComponent(f.id);
    put(made, put(node('p'), node('span', f.severity + ' ', bad), node('span', f.title)));
    const lines = [...f.features, ...(f.size ? [f.size] : [])];
    if (lines.length) put(made, put(node('ul'), ...lines.map(text => node('li', text))));
    put(made, put(node('p', undefined, 'soft'), node('span', [f.about, f.kind,
      'open for ' + age(f.age_seconds), quiet].filter(text => text).join(', ') + ' \\u00b7 '),
      link));
  }
  if (found.open > found.findings.length) {
    put(made, node('p', 'and ' + number(found.open - found.findings.length) + ' more', 'soft'));
  }
  return [made];
}
"""
"""``findings(s.findings)`` gives the nodes to put on the page, none when nothing is open. It uses
the page's own helpers, and every text is put in as text."""
