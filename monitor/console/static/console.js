// The page follows the service: it reads itself again, and replaces only what has changed.
import { morph } from './morph.js';
import { clock } from './clock.js';
import { charts } from './cursor.js';
import { actions, signIn } from './actions.js';

const PARTS = ['bar', 'views', 'content'];
let reading = null, soon = null;

function live(text, bad) {
  const line = document.getElementById('live');
  if (!line) return;
  line.textContent = text;
  line.classList.toggle('bad', Boolean(bad));
}

// Read the page again and put in what has changed; after one that runs, which may be older than
// what the caller has just ordered.
export async function refresh() {
  while (reading) await reading.catch(() => {});
  reading = (async () => {
    const answer = await fetch(location.href, { cache: 'no-store', signal: AbortSignal.timeout(20000) });
    if (answer.status >= 500) throw new Error('status ' + answer.status);
    const fresh = new DOMParser().parseFromString(await answer.text(), 'text/html');
    if (fresh.body.hasAttribute('data-signed-out')) { location.reload(); return; }
    for (const id of PARTS) {
      const old = document.getElementById(id), next = fresh.getElementById(id);
      if (old && next) morph(old, next);
    }
    document.title = fresh.title;
    const icon = document.getElementById('icon'), other = fresh.getElementById('icon');
    if (icon && other && icon.getAttribute('href') !== other.getAttribute('href')) {
      icon.setAttribute('href', other.getAttribute('href'));
    }
    document.body.dataset.refresh = fresh.body.dataset.refresh || '5';
    document.body.classList.remove('stale');
    dressed();
  })();
  try {
    await reading;
    live('Follows the service.');
  } catch (error) {
    // What is shown is old: nothing of it may look well.
    const state = document.getElementById('state');
    if (state) { state.textContent = 'no answer from the service'; state.className = 'badge bad'; }
    document.title = 'no answer – Understudy';
    const icon = document.getElementById('icon');
    if (icon) icon.setAttribute('href', 'static/icon-bad-0.svg');
    document.body.classList.add('stale');
    live('No answer from the service (' + error.message + '): the figures are old.', true);
  } finally {
    reading = null;
  }
}

// What the page has beside its HTML: times as the reader wants them, cursors, buttons.
function dressed() {
  clock();
  charts();
  actions(refresh);
}

async function follow() {
  for (;;) {
    const seconds = Math.max(2, Number(document.body.dataset.refresh) || 5);
    await new Promise(resolve => { soon = resolve; setTimeout(resolve, 1000 * seconds); });
    if (!document.hidden) await refresh();
  }
}

// The stream reports changes at once; between them the page reloads every few seconds.
function stream() {
  if (document.body.dataset.of !== 'service') return;
  const events = new EventSource('v1/stream');
  events.addEventListener('change', () => { if (soon) soon(); });
  addEventListener('pagehide', () => events.close());
}

if (document.body.hasAttribute('data-signed-out')) {
  signIn(document.getElementById('sign-in'), () => location.reload());
} else {
  live('Follows the service.');
  dressed();
  document.addEventListener('visibilitychange', () => { if (!document.hidden && soon) soon(); });
  stream();
  follow();
}
