// Makes one element like another one, and touches only what differs: the focus, what is selected,
// what is open, and where the page is scrolled to stay.
const KEPT = { INPUT: ['value'], SELECT: ['value'], DETAILS: ['open'] };

export function morph(old, next) {
  if (old.nodeType !== next.nodeType || old.nodeName !== next.nodeName) {
    old.replaceWith(document.importNode(next, true));
    return;
  }
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== next.data) old.data = next.data;
    return;
  }
  attributes(old, next);
  children(old, next);
}

function attributes(old, next) {
  const kept = KEPT[old.nodeName] || [];
  for (const { name, value } of [...next.attributes]) {
    if (kept.includes(name)) continue;
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  for (const { name } of [...old.attributes]) {
    if (!kept.includes(name) && !next.hasAttribute(name)) old.removeAttribute(name);
  }
}

// Children with an id are found by it, wherever they were; the others by their place.
function children(old, next) {
  const byId = new Map([...old.children].filter(one => one.id).map(one => [one.id, one]));
  let at = old.firstChild;
  for (const wanted of [...next.childNodes]) {
    const known = wanted.id ? byId.get(wanted.id) : null;
    if (known) {
      if (known !== at) old.insertBefore(known, at);
      else at = at.nextSibling;
      morph(known, wanted);
    } else if (at && at.nodeName === wanted.nodeName && !at.id && !wanted.id) {
      const following = at.nextSibling;
      morph(at, wanted);
      at = following;
    } else {
      old.insertBefore(document.importNode(wanted, true), at);
    }
  }
  while (at) {
    const following = at.nextSibling;
    at.remove();
    at = following;
  }
}
