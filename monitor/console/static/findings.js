'use strict';
// The nodes to put on the page, none when nothing is open: incidents, each with its findings.
function findings(found) {
  if (!found || !found.open) return [];
  const made = section('Open findings: ' + number(found.open));
  for (const i of found.incidents) {
    const bad = {critical: 'bad', warning: 'warn'}[i.severity] || 'soft';
    put(made, put(node('p'), node('span', i.severity + ' ', bad), node('strong', i.headline)));
    const link = node('a', i.id);
    link.href = 'v1/incidents/' + encodeURIComponent(i.id);
    const quiet = i.acknowledged ? ', acknowledged' : '';
    const about = i.findings.length ? i.findings[0].about + ', ' : '';
    put(made, put(node('p', undefined, 'soft'),
      node('span', about + 'open for ' + age(i.age_seconds) + quiet + ' \u00b7 '), link));
    put(made, put(node('ul'), ...i.findings.map(f => finding(f, i.findings.length > 1))));
    if (i.open > i.findings.length) {
      put(made, node('p', 'and ' + number(i.open - i.findings.length) + ' more', 'soft'));
    }
  }
  if (found.open_incidents > found.incidents.length) {
    const more = number(found.open_incidents - found.incidents.length);
    put(made, node('p', 'and ' + more + ' more incidents', 'soft'));
  }
  return [made];
}
function finding(f, titled) {
  const quiet = [f.acknowledged ? 'acknowledged' : '', f.silent ? 'silenced' : '']
    .filter(text => text).join(', ');
  const link = node('a', f.id);
  link.href = 'v1/findings/' + encodeURIComponent(f.id);
  const made = node('li');
  if (titled) put(made, node('div', f.title));
  for (const text of [...f.features, ...(f.size ? [f.size] : [])]) put(made, node('div', text));
  return put(made, put(node('div', undefined, 'soft'), node('span', [f.severity, f.kind,
    'open for ' + age(f.age_seconds), quiet].filter(text => text).join(', ') + ' \u00b7 '),
    link));
}
