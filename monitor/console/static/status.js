'use strict';
const WINDOWS = [['10s', '10 s', 10], ['1m', '1 min', 60], ['5m', '5 min', 300],
  ['start', 'since start', 0]];
const KINDS = {primary: 'requests of clients', mirror: 'mirrored requests'};
const GOOD = {ok: 'good', no_traffic: 'soft'};
function words(text) { return text.replaceAll('_', ' '); }
function breaker(states) {
  const open = Object.keys(states).some(k => k !== 'closed');
  return [Object.keys(states).length ? words(counts(states)) : '\u2013', open ? 'bad' : ''];
}
function service(arms) {
  const several = arms[0].shares.length > 1;
  const shares = (a, of) => a.shares.filter(one => one[of] !== null && (one[of] || !several))
    .map(one => share(one[of]) + (several ? ' of ' + one.model : '')).join(', ') || '\u2013';
  return section('Who serves', table(
    ['arm', 'state', 'serves (1 min)', 'by the routes', 'breaker', 'diverted (1 min)',
      'not mirrored (1 min)'],
    arms.map(a => [a.arm, [words(a.state), GOOD[a.state] || 'bad'], shares(a, 'served'),
      a.description,
      breaker({...a.serving_breaker, ...(a.role === 'mirrored' ? a.mirror.breaker : {})}),
      [number(a.diverted_1m), a.diverted_1m ? 'bad' : ''],
      [Object.keys(a.not_sent_1m).length ? words(counts(a.not_sent_1m)) : '0',
        Object.keys(a.not_sent_1m).length ? 'warn' : '']]), 'texts'));
}
function figures(windows) {
  const known = WINDOWS.filter(([key]) => windows[key]);
  const rows = known.map(([key, text, full]) => {
    const w = windows[key];
    // After a start a long window has not seen its whole length yet.
    const label = w.seconds < 0.9 * full ? text + ' (' + age(w.seconds) + ' so far)' : text;
    return [label, number(w.count), rate(w.rate), [share(w.error_rate), w.errors ? 'bad' : ''],
      time(w.p50), time(w.p90), time(w.p95), time(w.p99), time(w.p99_9), time(w.max)];
  });
  return table(['window', 'requests', 'per s', 'errors', 'p50', 'p90', 'p95', 'p99', 'p99.9',
    'max'], rows);
}
function arm(a) {
  const made = section(a.arm + ': ' + KINDS[a.measured], figures(a.windows));
  let line = a.in_flight + ' in flight; outcomes since start: '
    + counts(Object.fromEntries(Object.entries(a.windows.start.outcomes)
        .map(([k, v]) => [words(k), v.count])));
  if (a.cold_starts) line += '; cold starts ' + a.cold_starts
    + (a.cold_start_seconds !== null ? ', the last took ' + time(a.cold_start_seconds) : '');
  put(made, node('p', line, 'soft'));
  if (a.mirror && Object.keys(a.mirror.outcomes).length) {
    put(made, node('p', 'mirrored since start: ' + words(counts(a.mirror.outcomes)) + '; queue '
      + a.mirror.queue, 'soft'));
  }
  if (a.other_windows) {
    const other = KINDS[a.measured === 'primary' ? 'mirror' : 'primary'];
    put(made, node('h3', other), figures(a.other_windows));
  }
  return made;
}
function classes(values) {
  const entries = Object.entries(values), total = entries.reduce((sum, e) => sum + e[1], 0);
  return entries.slice(0, 5).map(([k, v]) => k + ' ' + share(v / total))
    .join(', ') || '\u2013';
}
function watched(w) {
  const made = node('div'), name = (w.model + ' ' + w.version).trim() + ': ';
  if (w.error) return put(made, node('p', name + 'not watched: ' + w.error, 'bad'));
  let line = name + (w.learning ? 'learning its baseline, ' + number(w.learning.rows) + ' of '
    + number(w.learning.wanted) + ' rows' : number(w.rows || 0) + ' rows');
  if (w.estimated_accuracy !== null) line += '; accuracy without labels '
    + share(w.estimated_accuracy);
  if (w.accuracy !== null && w.accuracy !== undefined) line += '; by labels ' + share(w.accuracy)
    + ' (' + [number(w.labels), ...w.assumptions].join('; ') + ')';
  put(made, node('p', line));
  if (w.judged === false) put(made, node('p', 'labels are counted and not judged', 'warn'));
  if (!w.furthest.length) return made;
  return put(made, table(['largest drift', 'score (alert at 1)', 'PSI of the last rows'],
    w.furthest.map(f => [f.series, [number(f.statistic), f.drifted ? 'bad' : ''],
      number(f.psi)])));
}
function draw(s) {
  document.getElementById('state').replaceChildren(
    !s.ready ? node('span', 'not ready', 'bad')
      : s.warnings.length ? node('span', 'degraded', 'warn') : node('span', 'ready', 'good'));
  document.getElementById('about').textContent = 'version ' + s.version + ', running for '
    + age(s.run_seconds) + ', configuration ' + s.config.generation;
  const parts = [];
  const troubles = [...s.problems];
  if (s.config.error) troubles.push('the last configuration was refused: ' + s.config.error);
  if (s.state.error) troubles.push('the state cannot be saved: ' + s.state.error);
  if (troubles.length || s.warnings.length) {
    parts.push(section('Needs attention', put(node('ul'),
      ...troubles.map(text => node('li', text, 'bad')),
      ...s.warnings.map(text => node('li', text, 'warn')))));
  }
  parts.push(...findings(s.findings));
  if (s.not_tested.length) parts.push(section('Not tested', put(node('ul', undefined, 'warn'),
    ...s.not_tested.map(one => node('li', (one.model ? (one.model + ' ' + one.version).trim() + ': '
      : '') + one.words)))));
  parts.push(service(s.arms));
  parts.push(...s.arms.map(arm));
  if (s.watched.length) parts.push(section('Against the baseline', ...s.watched.map(watched)));
  if (s.experiments.length) parts.push(experiments(s.experiments));
  if (s.ended_experiments.length) parts.push(ended(s.ended_experiments));
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
      + number(r.pending) + ' in transit; ' + number(r.lost) + ' received and then lost'));
  if (Object.keys(r.dropped).length) {
    put(records, node('p', 'dropped: ' + words(counts(r.dropped)), 'warn'));
  }
  if (s.undecodable.length) put(records, node('p', 'not decoded: ' + s.undecodable.map(
    u => u.model + ' ' + u.arm + ' ' + u.part + ' ' + u.reason + ' ' + number(u.count))
    .join(', '), 'warn'));
  if (Object.keys(s.rejected).length) {
    put(records, node('p', 'requests rejected: ' + words(counts(s.rejected)), 'warn'));
  }
  parts.push(records);
  parts.push(section('Workers', table(['slot', 'process', 'restarts', 'memory', 'processor time'],
    s.workers.map(w => [String(w.slot), String(w.pid), [String(w.restarts), w.restarts ? 'warn'
      : ''], size(w.memory_bytes), w.cpu_seconds === null ? '\u2013'
      : w.cpu_seconds.toFixed(1) + ' s'])), node('p', number(s.connections.open)
      + ' client connections open, ' + number(s.connections.accepted) + ' accepted', 'soft')));
  document.getElementById('content').replaceChildren(...parts);
}
async function refresh() {
  try {
    const answer = await read('v1/status');
    if (!answer.ok) throw new Error('status ' + answer.status);
    draw(await answer.json());
  } catch (error) {
    document.getElementById('state').replaceChildren(
      node('span', 'no answer from the service: ' + error.message, 'bad'));
  }
  setTimeout(refresh, 2000);
}
refresh();
