// The cursor of charts: one moment for all charts of the page, by pointer or arrow keys.
import { shown } from './clock.js';

const UNITS = { seconds: value => value >= 1 ? value.toPrecision(3) + ' s'
  : value >= 0.001 ? (1e3 * value).toPrecision(3) + ' ms' : (1e6 * value).toFixed(0) + ' \u00b5s',
share: value => (100 * value).toPrecision(3) + ' %', rate: value => value.toPrecision(3),
number: value => value.toPrecision(4) };
let moment = null;

export function charts() {
  for (const figure of document.querySelectorAll('figure[data-chart]')) {
    if (!figure.dressed) {
      figure.dressed = true;
      const area = figure.querySelector('.area');
      area.addEventListener('pointermove', event => {
        const box = area.getBoundingClientRect();
        const part = (event.clientX - box.left) / box.width;
        const since = Number(figure.dataset.since), until = Number(figure.dataset.until);
        all(since + part * (until - since));
      });
      area.addEventListener('pointerleave', () => all(null));
      figure.addEventListener('keydown', event => {
        const move = { ArrowLeft: -1, ArrowRight: 1, Home: -1e9, End: 1e9 }[event.key];
        if (event.key === 'Escape') all(null);
        if (!move) return;
        const { times } = JSON.parse(figure.dataset.chart);
        const now = moment === null ? times.length - 1 : nearest(times, moment);
        all(times[Math.min(times.length - 1, Math.max(0, now + move))]);
        figure.querySelector('.read').setAttribute('aria-live', 'polite');
        event.preventDefault();
      });
    }
    draw(figure);
  }
}

function all(at) {
  moment = at;
  document.querySelectorAll('figure[data-chart]').forEach(draw);
}

function nearest(times, at) {
  let best = 0;
  times.forEach((one, number) => {
    if (Math.abs(one - at) < Math.abs(times[best] - at)) best = number;
  });
  return best;
}

function draw(figure) {
  const line = figure.querySelector('.cursor'), read = figure.querySelector('.read');
  if (!line || !read) return;
  const { times, names, values } = JSON.parse(figure.dataset.chart);
  if (moment === null || !times.length) {
    line.setAttribute('x1', -9);
    line.setAttribute('x2', -9);
    read.textContent = '';
    return;
  }
  const at = nearest(times, moment), unit = UNITS[figure.dataset.kind] || UNITS.number;
  const since = Number(figure.dataset.since), until = Number(figure.dataset.until);
  const x = 600 * (times[at] - since) / (until - since);
  line.setAttribute('x1', x);
  line.setAttribute('x2', x);
  read.textContent = shown(times[at]) + ': ' + names.map((name, number) => {
    const value = values[number][at];
    return name + ' ' + (value === null ? 'no data' : value === 0 ? '0' : unit(value));
  }).join(', ');
}
