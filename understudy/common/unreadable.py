"""Why a file cannot be read, in words for the person who named it."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

from understudy.common.text import did_you_mean

_MOST_NAMES = 1000
"""Files of a folder among which the one that is meant is looked for."""


def why_unreadable(path: Path, error: Exception) -> str:
    """Why a file cannot be read: the system's words without number and path, or what a parser says.
    Where it is not there, also the name of another file of its folder that may be meant, or the
    folder that is missing."""
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8"
    if not isinstance(error, OSError):
        return str(error)
    text = os.strerror(error.errno) if error.errno is not None else str(error)
    if not isinstance(error, FileNotFoundError) or path.is_symlink():
        return text
    try:
        names = [one.name for one in itertools.islice(path.parent.iterdir(), _MOST_NAMES)]
    except OSError:
        return f"{text}; there is no folder {str(path.parent)!r}"
    return text + did_you_mean(path.name, names)
