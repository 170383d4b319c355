"""User text in a line of ours: control characters are shown, never obeyed; words that are meant."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from understudy.common.units import percentile, percentile_name

_HIDDEN = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))
"""Unicode's categories of characters that a terminal or a page obeys instead of drawing: controls,
formats such as the overrides of direction, halves of surrogate pairs, separators of lines."""
_JOINERS = "\u200c\u200d"
"""Needed to write Persian, and to compose emoji."""


def visible(text: str, lines: bool = False) -> str:
    r"""``text`` with every character that a terminal would obey written as an escape.

    Names, categories and error texts come from others: an ESC sequence in one could recolour,
    move or forge what is printed around it, and an override of direction reverse it. With
    ``lines``, line breaks and tabs are kept: for texts of several lines of ours.

    >>> print(visible("price\x1b[2J\u202e"))
    price\x1b[2J\u202e
    """
    if text.isprintable():
        return text
    kept = _JOINERS + ("\n\t" if lines else "")
    return "".join(
        _escaped(c) if c not in kept and unicodedata.category(c) in _HIDDEN else c for c in text
    )


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``; did you mean 'rate'?`` where a known word is close, otherwise an empty text."""
    import difflib  # only for messages

    choices = {one.lower(): one for one in known}
    share = percentile(word)
    same = choices.get(percentile_name(share)) if share is not None else None
    close = [same] if same else difflib.get_close_matches(word.lower(), choices, n=1)
    return f"; did you mean {choices[close[0].lower()]!r}?" if close else ""
