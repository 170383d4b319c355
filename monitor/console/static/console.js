// What every page draws with; all texts are put in as text.
'use strict';
const ENDED = ['promoted', 'rolled_back', 'aborted'];
function node(tag, text, kind) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}
function put(parent, ...children) { parent.append(...children); return parent; }
function number(value) {
  if (value === null || value === undefined) return '\u2013';
  if (Number.isInteger(value)) return value.toLocaleString('en');
  return value.toLocaleString('en', {maximumSignificantDigits: 4});
}
function rate(value) {
  if (value === null || value === undefined) return '\u2013';
  return value.toLocaleString('en', {maximumFractionDigits: value < 10 ? 2 : 0});
}
function time(seconds) {
  if (seconds === null || seconds === undefined) return '\u2013';
  if (seconds < 0.001) return (seconds * 1e6).toFixed(0) + ' \u00b5s';
  if (seconds < 1) return (seconds * 1e3).toPrecision(3) + ' ms';
  return seconds.toPrecision(3) + ' s';
}
function share(value) {
  if (value === null) return '\u2013';
  // As understudy.common.units.percent: only 1 itself is 100 %.
  const rest = (1 - value) * 100;
  const digits = rest > 0 && rest < 1 ? Math.max(2, 1 - Math.floor(Math.log10(rest))) : 2;
  return (value * 100).toFixed(digits) + ' %';
}
function size(bytes) { return bytes === null ? '\u2013' : (bytes / 1048576).toFixed(1) + ' MiB'; }
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
    ['experiment', 'challenger', 'decision', 'rollout', 'should serve', 'not evaluated'],
    found.flatMap(e => e.challengers.map(c => [e.name, c.name,
      [c.outcome, {good: 'good', bad: 'bad', neutral: 'warn'}[c.tone] || ''],
      c.phase.replace('_', ' ') + (ENDED.includes(c.phase) ? '' : ', ' + c.stage), share(c.traffic),
      Object.entries(c.left_out || {}).map(([why, n]) => n + ' ' + why.replaceAll('_', ' ')).join(', ')])), 'texts'));
  for (const e of found) {
    const link = node('a', 'report of ' + e.name);
    link.href = 'v1/experiments/' + encodeURIComponent(e.name) + '/report';
    put(made, put(node('p', undefined, 'soft'), link));
  }
  return made;
}
function ended(found) {
  const made = section('Removed experiments', table(
    ['experiment', 'challenger', 'decision', 'rollout', 'removed', 'by', 'why'],
    found.flatMap(e => e.challengers.map(c => [e.name, c.name,
      [c.outcome, {good: 'good', bad: 'bad', neutral: 'warn'}[c.tone] || ''],
      c.phase.replace('_', ' '),
      new Date(1000 * e.ended.at).toISOString().slice(0, 16).replace('T', ' ') + ' UTC',
      e.ended.who, e.ended.why || '\u2013'])), 'texts'));
  for (const name of new Set(found.map(e => e.name))) {
    const link = node('a', 'last report of ' + name);
    link.href = 'v1/experiments/' + encodeURIComponent(name) + '/report?ended=true';
    put(made, put(node('p', undefined, 'soft'), link));
  }
  return made;
}
// JSON from the service. Once it wants the token, the reader is asked for it and signed in by a
// cookie, which the links of the page send too.
async function read(path) {
  const answer = await fetch(path, {cache: 'no-store'});
  if (answer.status !== 401) return answer;
  await signIn();
  return read(path);
}
let signing = null;
function signIn() {
  signing = signing || new Promise(resolve => {
    const token = node('input'), button = node('button', 'Sign in'), trouble = node('p', '', 'bad');
    token.type = 'password';
    token.autocomplete = 'off';
    token.setAttribute('aria-label', 'Token');
    async function send() {
      try {
        const answer = await fetch('v1/session',
          {method: 'POST', headers: {authorization: 'Bearer ' + token.value}});
        if (!answer.ok) throw new Error((await answer.json()).error.message);
        signing = null;
        resolve();
      } catch (error) { trouble.textContent = error.message; }
    }
    button.addEventListener('click', send);
    token.addEventListener('keydown', event => { if (event.key === 'Enter') send(); });
    document.getElementById('state').replaceChildren(node('span', 'not signed in', 'warn'));
    document.getElementById('content').replaceChildren(section('Token of the control API',
      node('p', 'The one that control.token_env names. It allows this page to read for twelve hours.',
        'soft'),
      put(node('p'), token, ' ', button), trouble));
    token.focus();
  });
  return signing;
}
