'use strict';
async function get(path) {
  const answer = await read(path);
  const data = await answer.json();
  return answer.ok ? data : {trouble: data.error ? data.error.message : String(answer.status)};
}
function moment(seconds) {
  return seconds === null || seconds === undefined ? '\u2013'
    : new Date(1000 * seconds).toISOString().slice(0, 19).replace('T', ' ');
}
function own(s) {
  const made = section('This evaluator', node('p', s.instance + ', of the group ' + s.group + ': '
    + number(s.records) + ' records and labels, ' + number(s.commits || 0) + ' commits'));
  if (s.partitions.length) put(made, table(
    ['partition', 'records', 'labels', 'messages that wait', 'complete up to', 'sources',
      'blocks that came again', 'blocks lost'],
    s.partitions.map(p => [String(p.partition), number(p.records), number(p.labels),
      number(Object.entries(s.lag).filter(([name]) => name.endsWith('/' + p.partition)
        && !name.includes('.evidence/')).reduce((sum, entry) => sum + entry[1], 0)),
      moment(p.complete), String(p.sources), number(p.duplicates),
      [number(p.missing), p.missing ? 'bad' : '']])));
  if (s.dead && Object.keys(s.dead).length) put(made, node('p', 'could not be read: '
    + counts(s.dead), 'warn'));
  return made;
}
function judges(s) {
  const made = section('Who evaluates');
  for (const [place, url] of Object.entries(s.judged_at || {})) {
    const mine = s.judges.find(j => j.of === place);
    const line = put(node('p'), node('span', place + ': '));
    if (mine) put(line, node('span', 'this one, up to ' + moment(mine.judged) + ' UTC, '
      + number(mine.rows) + ' rows, ' + number(mine.waiting) + ' wait'
      + (mine.late ? ', ' + number(mine.late) + ' came late' : '')));
    else if (url) {
      const link = node('a', url);
      link.href = url + '/';
      put(line, link);
    } else put(line, node('span', 'not known yet', 'warn'));
    put(made, line);
  }
  return made;
}
function findings(found) {
  if (found.trouble) return section('Findings', node('p', found.trouble, 'warn'));
  const made = section('Open findings: ' + number(found.matching));
  for (const f of found.findings) {
    const link = node('a', f.id);
    link.href = 'v1/findings/' + encodeURIComponent(f.id);
    const bad = {critical: 'bad', warning: 'warn'}[f.severity] || 'soft';
    put(made, put(node('p'), node('span', f.severity + ' ', bad),
      node('span', f.title + ' \u00b7 '), link));
  }
  for (const one of found.not_tested || []) put(made, node('p',
    'not tested' + (one.model ? ' (' + one.model + ')' : '') + ': ' + one.words, 'warn'));
  return made;
}
function running(found) {
  return found.trouble ? section('Experiments', node('p', found.trouble, 'warn'))
    : experiments(found.experiments);
}
async function refresh() {
  try {
    const [s, found, live, past] = await Promise.all([get('v1/evaluator'),
      get('v1/findings?limit=10'), get('v1/experiments'), get('v1/experiments?ended=true')]);
    const well = !s.error && s.judged_at;
    document.getElementById('state').replaceChildren(node('span',
      s.error || (s.judged_at ? 'ready' : 'not a member of the group yet'), well ? 'good' : 'bad'));
    document.getElementById('about').textContent = 'evaluator';
    document.getElementById('content').replaceChildren(findings(found), running(live),
      ...(past.experiments && past.experiments.length ? [ended(past.experiments)] : []),
      judges(s), own(s));
  } catch (error) {
    document.getElementById('state').replaceChildren(
      node('span', 'no answer from the evaluator: ' + error.message, 'bad'));
  }
  setTimeout(refresh, 2000);
}
refresh();
