"""The version stands in one place, ``understudy/__init__.py``; ``make docs`` writes it to the charts
and to the pages and examples that name it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from understudy import __version__

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "helm" / "understudy"
LIBRARY = CHART / "charts" / "understudy-lib"
_LINES = (
    (re.compile(r"^(version: )\S+$", re.M), rf"\g<1>{__version__}"),
    (re.compile(r"^(appVersion: )\S+$", re.M), rf'\g<1>"{__version__}"'),
)
"""Of our own charts."""
_MENTIONS = (
    (
        re.compile(r"(name: understudy-lib\n(?:\s+alias: .*\n)?\s+version: )\S+"),
        rf"\g<1>{__version__}",
    ),
    (
        re.compile(r'(define "understudy-lib\.version" -}})[^{]*({{- end }})'),
        rf"\g<1>{__version__}\g<2>",
    ),
    (re.compile(r"(/understudy(?:-load)?:)\d+\.\d+\.\d+"), rf"\g<1>{__version__}"),
    (re.compile(r"(understudy_serving-)\d+\.\d+\.\d+"), rf"\g<1>{__version__}"),
)
_MENTIONING = (
    LIBRARY / "templates" / "_names.tpl",
    ROOT / "docs" / "installation.md",
    ROOT / "docs" / "kubernetes.md",
    ROOT / "docs" / "tutorials" / "kubernetes.md",
    ROOT / "examples" / "kubernetes" / "deployment.yaml",
    ROOT / "examples" / "kubernetes" / "kserve.yaml",
    ROOT / "examples" / "kubernetes" / "own-chart" / "Chart.yaml",
)


def _with_version(path: Path, patterns: Sequence[tuple[re.Pattern[str], str]]) -> str:
    text = path.read_text(encoding="utf-8")
    for pattern, line in patterns:
        text = pattern.sub(line, text)
    return text


PAGES: dict[Path, Callable[[], str]] = {
    **{
        path: partial(_with_version, path, (*_LINES, *_MENTIONS))
        for path in (CHART / "Chart.yaml", LIBRARY / "Chart.yaml")
    },
    **{path: partial(_with_version, path, _MENTIONS) for path in _MENTIONING},
}
