// What people order: each button asks who and why, and sends it with the session's header.
let csrf;

async function session() {
  const answer = await fetch('v1/session', { cache: 'no-store' });
  if (!answer.ok) return null;
  return answer.json();
}

export function actions(after) {
  for (const button of document.querySelectorAll('button[data-act]')) {
    button.hidden = false;
    button.onclick = () => ask(button, after);
  }
}

function node(tag, text, kind) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function field(text, value, kind) {
  const label = node('label', text + ' '), input = node('input');
  if (kind) input.type = kind;
  input.value = value || '';
  label.append(input);
  return [label, input];
}

// A form with a token, which becomes a cookie that scripts cannot read.
export function signIn(parent, done) {
  const form = node('form'), [label, token] = field('Token', '', 'password');
  token.autocomplete = 'off';
  token.setAttribute('aria-label', 'Token');
  const trouble = node('p', '', 'bad');
  trouble.setAttribute('role', 'alert');
  form.append(label, node('button', 'Sign in', 'main'), trouble);
  form.addEventListener('submit', async event => {
    event.preventDefault();
    try {
      const answer = await fetch('v1/session',
        { method: 'POST', headers: { authorization: 'Bearer ' + token.value } });
      const said = await answer.json();
      if (!answer.ok) throw new Error(said.error.message);
      csrf = said.csrf;
      done();
    } catch (error) { trouble.textContent = error.message; }
  });
  parent.append(form);
  token.focus();
}

function remembered(key) { try { return localStorage.getItem(key); } catch { return ''; } }

async function ask(button, after) {
  const dialog = document.getElementById('ask'), form = node('form');
  const title = node('h2', button.textContent);
  const [whoLabel, who] = field('Your name', remembered('understudy-who'));
  const [whyLabel, why] = field('Reason', '');
  const typed = button.dataset.typed;
  const [nameLabel, name] = field('Type ' + (typed || '') + ' to confirm', '');
  const trouble = node('p', '', 'bad');
  trouble.setAttribute('role', 'alert');
  const send = node('button', button.textContent, 'main'), cancel = node('button', 'Cancel');
  who.required = true;
  who.maxLength = 256;
  why.maxLength = 2000;
  why.required = Boolean(typed);
  cancel.type = 'button';
  cancel.addEventListener('click', () => dialog.close());
  const row = node('div', undefined, 'actions');
  row.append(send, cancel);
  form.append(title, whoLabel, whyLabel, ...(typed ? [nameLabel] : []), trouble, row);
  form.addEventListener('submit', async event => {
    event.preventDefault();
    if (typed && name.value !== typed) {
      trouble.textContent = 'The name is not ' + typed + '.';
      return;
    }
    send.disabled = true;
    try {
      const body = { ...JSON.parse(button.dataset.body || '{}'), who: who.value, why: why.value };
      const answer = await order(button.dataset.act, body);
      if (answer.status === 401 || answer.status === 403) {
        const known = await session();
        const said = await answer.json();
        if (known && known.token) {
          dialog.replaceChildren(title, node('p', 'This needs the token of the control API.'));
          signIn(dialog, () => { dialog.replaceChildren(form); send.disabled = false; });
          return;
        }
        throw new Error(said.error.message);
      }
      if (!answer.ok) throw new Error((await answer.json()).error.message);
      try { localStorage.setItem('understudy-who', who.value); } catch { /* asked again */ }
      dialog.close();
      await after();
    } catch (error) {
      trouble.textContent = error.message;
      send.disabled = false;
    }
  });
  dialog.replaceChildren(form);
  dialog.setAttribute('aria-label', button.textContent);
  dialog.showModal();
  (who.value ? why : who).focus();
}

async function order(path, body) {
  if (csrf === undefined) csrf = ((await session()) || {}).csrf || null;
  const headers = { 'content-type': 'application/json' };
  if (csrf) headers['x-understudy-csrf'] = csrf;
  return fetch(path, { method: 'POST', headers, body: JSON.stringify(body) });
}
