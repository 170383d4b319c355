"""The version stands in one place, ``understudy/__init__.py``; ``make docs`` writes it to the charts."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from understudy import __version__

CHART = Path(__file__).resolve().parent.parent / "helm" / "understudy"
LIBRARY = CHART / "charts" / "understudy-lib"
_LINES = (
    (re.compile(r"^(\s*version: )\S+$", re.M), rf"\g<1>{__version__}"),
    (re.compile(r"^(appVersion: )\S+$", re.M), rf'\g<1>"{__version__}"'),
    (
        re.compile(r'(define "understudy-lib\.version" -}})[^{]*({{- end }})'),
        rf"\g<1>{__version__}\g<2>",
    ),
)


def _with_version(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    for pattern, line in _LINES:
        text = pattern.sub(line, text)
    return text


PAGES: dict[Path, Callable[[], str]] = {
    path: partial(_with_version, path)
    for path in (
        CHART / "Chart.yaml",
        LIBRARY / "Chart.yaml",
        LIBRARY / "templates" / "_names.tpl",
    )
}
