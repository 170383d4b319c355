'use strict';
// The nodes to put on the page, none when nothing is open.
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
      'open for ' + age(f.age_seconds), quiet].filter(text => text).join(', ') + ' \u00b7 '),
      link));
  }
  if (found.open > found.findings.length) {
    put(made, node('p', 'and ' + number(found.open - found.findings.length) + ' more', 'soft'));
  }
  return [made];
}
