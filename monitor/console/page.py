"""The status page: one self-contained document that polls ``/v1/status``."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256

from understudy.monitor.console.findings import SCRIPT as FINDINGS_SCRIPT

_STYLE = """
:root { color-scheme: light dark; --line: #d5d9de; --soft: #667079; --good: #14743c;
  --bad: #b3261e; --warn: #8a5a00; --card: #ffffff; --back: #f4f5f7; --text: #1b1f23; }
@media (prefers-color-scheme: dark) { :root { --line: #33393f; --soft: #9aa4ad; --good: #57c785;
  --bad: #ff8a80; --warn: #f2b94b; --card: #1d2125; --back: #14171a; --text: #e6e9ec; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1rem 1.25rem 3rem; background: var(--back);
  color: var(--text); font: 15px/1.45 system-ui, sans-serif; }
header { display: flex; flex-wrap: wrap; gap: .4rem 1.2rem; align-items: baseline; }
h1 { font-size: 1.3rem; margin: .3rem 0; } h2 { font-size: 1.02rem; margin: 0 0 .5rem; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: .8rem 1rem; margin-top: 1rem; overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .22rem .6rem; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
th { color: var(--soft); font-weight: 500; border-bottom: 1px solid var(--line); }
p { margin: .4rem 0; } .soft { color: var(--soft); } .good { color: var(--good); }
.bad { color: var(--bad); } .warn { color: var(--warn); } .plain td { text-align: left; }
ul { margin: .3rem 0; padding-left: 1.2rem; }
"""

HELPERS = """
'use strict';
function node(tag, text, kind) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}
function put(parent, ...children) { parent.append(...children); return parent; }
function number(value) {
  if (value === null || value === undefined) return '\\u2013';
  if (Number.isInteger(value)) return value.toLocaleString('en');
  return value.toLocaleString('en', {maximumSignificantDigits: 4});
}
function rate(value) {
  if (value === null || value === undefined) return '\\u2013';
  return value.toLocaleString('en', {maximumFractionDigits: value < 10 ? 2 : 0});
}
function time(seconds) {
  if (seconds === null || seconds === undefined) return '\\u2013';
  if (seconds < 0.001) return (seconds * 1e6).toFixed(0) + ' \\u00b5s';
  if (seconds < 1) return (seconds * 1e3).toPrecision(3) + ' ms';
  return seconds.toPrecision(3) + ' s';
}
function share(value) { return value === null ? '\\u2013' : (value * 100).toFixed(2) + ' %'; }
function size(bytes) { return bytes === null ? '\\u2013' : (bytes / 1048576).toFixed(1) + ' MiB'; }
function counts(values) {
  const entries = Object.entries(values || {});
  return entries.length ? entries.map(([k, v]) => k + ' ' + number(v)).join(', ') : 'none';
}
function age(seconds) {
  const s = Math.floor(seconds), h = Math.floor(s / 3600), m = Math.floor(s / 60) % 60;
  return h ? h + ' h ' + m + ' min' : m ? m + ' min ' + (s % 60) + ' s' : s + ' s';
}
function table(head, rows, kind) {
  const made = node('table', undefined, kind);
  put(made, put(node('thead'), put(node('tr'), ...head.map(text => node('th', text)))));
  const body = node('tbody');
  for (const row of rows) {
    put(body, put(node('tr'), ...row.map(c => Array.isArray(c) ? node('td', c[0], c[1])
      : node('td', c))));
  }
  return put(made, body);
}
function section(title, ...children) {
  return put(node('section'), node('h2', title), ...children);
}
function experiments(found) {
  const made = section('Experiments', table(
    ['experiment', 'challenger', 'decision', 'rollout', 'share'],
    found.flatMap(e => e.challengers.map(c => [e.name, c.name,
      [c.decision, {promote: 'good', rollback: 'bad', invalid: 'bad'}[c.decision] || ''],
      c.phase.replace('_', ' ') + ', ' + c.stage, (100 * c.weight).toFixed(1) + ' %']))));
  for (const e of found) {
    const link = node('a', 'report of ' + e.name);
    link.href = 'v1/experiments/' + encodeURIComponent(e.name) + '/report';
    put(made, put(node('p', undefined, 'soft'), link));
  }
  return made;
}
"""
"""JavaScript that every page draws with; all texts are put in as text."""

_SCRIPT = (
    HELPERS
    + """
const WINDOWS = [['10s', '10 s', 10], ['1m', '1 min', 60], ['5m', '5 min', 300],
  ['start', 'since start', 0]];
function arm(a) {
  const known = WINDOWS.filter(([key]) => a.windows[key]);
  const rows = known.map(([key, text, full]) => {
    const w = a.windows[key];
    // After a start a long window has not seen its whole length yet.
    const label = w.seconds < 0.9 * full ? text + ' (' + age(w.seconds) + ' so far)' : text;
    return [label, number(w.count), rate(w.rate), [share(w.error_rate), w.errors ? 'bad' : ''],
      time(w.p50), time(w.p90), time(w.p95), time(w.p99), time(w.p99_9), time(w.max)];
  });
  const role = a.role === 'mirror' ? ' (challenger, mirrored)'
    : a.arm === 'champion' ? '' : ' (champion)';
  const made = section(a.arm + role, table(['window', 'requests', 'per s', 'errors', 'p50',
    'p90', 'p95', 'p99', 'p99.9', 'max'], rows));
  let line = a.in_flight + ' in flight; outcomes since start: '
    + counts(Object.fromEntries(Object.entries(a.windows.start.outcomes)
        .map(([k, v]) => [k, v.count])));
  if (a.cold_starts) line += '; cold starts ' + a.cold_starts
    + (a.cold_start_seconds !== null ? ', the last took ' + time(a.cold_start_seconds) : '');
  put(made, node('p', line, 'soft'));
  if (a.mirror) {
    const broken = Object.keys(a.mirror.breaker).some(k => k !== 'closed');
    put(made, node('p', 'mirror: ' + counts(a.mirror.outcomes) + '; queue ' + a.mirror.queue,
      'soft'), node('p', 'breaker: ' + counts(a.mirror.breaker), broken ? 'bad' : 'good'));
  }
  return made;
}
function classes(values) {
  const entries = Object.entries(values), total = entries.reduce((sum, e) => sum + e[1], 0);
  return entries.slice(0, 5).map(([k, v]) => k + ' ' + (100 * v / total).toFixed(1) + ' %')
    .join(', ') || '\\u2013';
}
function watched(w) {
  const made = node('div'), name = (w.model + ' ' + w.version).trim() + ': ';
  if (w.error) return put(made, node('p', name + 'not watched: ' + w.error, 'bad'));
  if (w.learning) return put(made, node('p', name + 'learning its baseline, '
    + number(w.learning.rows) + ' of ' + number(w.learning.wanted) + ' rows'));
  let line = name + number(w.rows) + ' rows';
  if (w.estimated_accuracy !== null) line += '; accuracy without labels '
    + share(w.estimated_accuracy);
  if (w.accuracy !== null && w.accuracy !== undefined) line += '; by labels ' + share(w.accuracy)
    + ' (' + number(w.labels) + ')';
  put(made, node('p', line));
  return put(made, table(['furthest off', 'statistic (alarm at 1)', 'PSI of the last rows'],
    w.furthest.map(f => [f.series, [number(f.statistic), f.drifted ? 'bad' : ''],
      number(f.psi)])));
}
%FINDINGS%
function draw(s) {
  document.getElementById('state').replaceChildren(
    s.ready ? node('span', 'ready', 'good') : node('span', 'not ready', 'bad'));
  document.getElementById('about').textContent = 'version ' + s.version + ', running for '
    + age(s.run_seconds) + ', configuration ' + s.config.generation;
  const parts = [];
  const troubles = [...s.problems];
  if (s.config.error) troubles.push('the last configuration was refused: ' + s.config.error);
  if (s.state.error) troubles.push('the state cannot be saved: ' + s.state.error);
  if (troubles.length) {
    parts.push(section('Needs attention', put(node('ul', undefined, 'bad'),
      ...troubles.map(text => node('li', text)))));
  }
  parts.push(...findings(s.findings));
  parts.push(...s.arms.map(arm));
  if (s.watched.length) parts.push(section('Against the baseline', ...s.watched.map(watched)));
  if (s.experiments.length) parts.push(experiments(s.experiments));
  if (s.predictions.length) {
    parts.push(section('Predictions', table(
      ['model', 'version', 'arm', 'output', 'values', 'mean', 'std', 'min', 'max', 'classes'],
      s.predictions.map(p => [p.model, p.version, p.arm, p.prediction, number(p.count),
        number(p.mean), number(p.std), number(p.min), number(p.max), classes(p.classes)]))));
  }
  const r = s.records;
  const records = section('Records',
    node('p', number(r.eligible) + ' eligible = ' + number(r.sent) + ' sent + '
      + number(Object.values(r.dropped).reduce((a, b) => a + b, 0)) + ' dropped + '
      + number(r.pending) + ' on their way; ' + number(r.lost) + ' lost after that'));
  if (Object.keys(r.dropped).length) {
    put(records, node('p', 'dropped: ' + counts(r.dropped), 'warn'));
  }
  if (s.undecodable.length) put(records, node('p', 'not decoded: ' + s.undecodable.map(
    u => u.model + ' ' + u.arm + ' ' + u.part + ' ' + u.reason + ' ' + number(u.count))
    .join(', '), 'warn'));
  if (Object.keys(s.rejected).length) {
    put(records, node('p', 'requests rejected: ' + counts(s.rejected), 'warn'));
  }
  parts.push(records);
  parts.push(section('Workers', table(['slot', 'process', 'restarts', 'memory', 'processor time'],
    s.workers.map(w => [String(w.slot), String(w.pid), [String(w.restarts), w.restarts ? 'warn'
      : ''], size(w.memory_bytes), w.cpu_seconds === null ? '\\u2013'
      : w.cpu_seconds.toFixed(1) + ' s'])), node('p', number(s.connections.open)
      + ' client connections open, ' + number(s.connections.accepted) + ' accepted', 'soft')));
  document.getElementById('content').replaceChildren(...parts);
}
async function refresh() {
  try {
    const answer = await fetch('v1/status', {cache: 'no-store'});
    if (!answer.ok) throw new Error('status ' + answer.status);
    draw(await answer.json());
  } catch (error) {
    document.getElementById('state').replaceChildren(
      node('span', 'no answer from the service: ' + error.message, 'bad'));
  }
  setTimeout(refresh, 2000);
}
refresh();
"""
).replace("%FINDINGS%", FINDINGS_SCRIPT.strip())

_LINKS = """Machines read <a href="v1/status">v1/status</a>, <a href="metrics">metrics</a> and
<a href="openapi.json">openapi.json</a>."""


def document(script: str, links: str, fallback: str) -> str:
    """A page that ``script`` draws into ``content``; ``links`` are HTML for its end, ``fallback``
    is where the same figures are."""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Understudy</title>
<style>{_STYLE}</style>
</head>
<body>
<header><h1>Understudy</h1><span id="state" role="status">loading</span>
<span id="about" class="soft"></span></header>
<main id="content"></main>
<p class="soft">Refreshes every two seconds. {links}</p>
<noscript>This page needs JavaScript; the same figures are at {fallback}.</noscript>
<script>{script}</script>
</body>
</html>
"""


def headers(script: str) -> dict[str, str]:
    """What goes with such a page: nothing but its own script and style may run or load."""
    return {
        "Content-Security-Policy": (
            f"default-src 'none'; connect-src 'self'; style-src 'sha256-{_hash(_STYLE)}';"
            f" script-src 'sha256-{_hash(script)}'; base-uri 'none'; frame-ancestors 'none'"
        ),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }


def _hash(text: str) -> str:
    return b64encode(sha256(text.encode()).digest()).decode()


PAGE = document(_SCRIPT, _LINKS, "/v1/status")
HEADERS = headers(_SCRIPT)
