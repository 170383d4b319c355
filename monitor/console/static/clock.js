// Times in UTC or in the reader's zone, as chosen with the button; the choice is remembered.
const KEY = 'understudy-zone';
let local = false;
try { local = localStorage.getItem(KEY) === 'local'; } catch { /* no storage: UTC */ }

function written(seconds, short) {
  const at = new Date(1000 * seconds);
  const shifted = local ? new Date(at.getTime() - 60000 * at.getTimezoneOffset()) : at;
  const text = shifted.toISOString();
  if (short === 'second') return text.slice(11, 19);
  if (short === 'minute') return text.slice(11, 16);
  if (short === 'day') return text.slice(5, 16).replace('T', ' ');
  return text.slice(0, 19).replace('T', ' ') + (local ? '' : ' UTC');
}

export function shown(seconds, short) { return written(seconds, short); }

export function clock() {
  const button = document.getElementById('zone');
  if (button) {
    button.hidden = false;
    button.textContent = local ? 'local time' : 'UTC';
    button.setAttribute('aria-label', 'Times are in ' + (local ? 'local time' : 'UTC') + ': change');
    button.onclick = () => {
      local = !local;
      try { localStorage.setItem(KEY, local ? 'local' : 'UTC'); } catch { /* forgotten */ }
      clock();
    };
  }
  for (const one of document.querySelectorAll('time[data-at]')) {
    if (!one.dataset.at) continue;
    const text = written(Number(one.dataset.at), one.dataset.short);
    if (one.textContent !== text) one.textContent = text;
  }
}
