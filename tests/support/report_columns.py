"""Columns for a drift report."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.source import NAMES, Source


def write(path: Path, rows: int, seed: int, factor: float = 1.0, lost: bool = False) -> Path:
    source = Source(seed)
    lines = []
    for number, row in enumerate(source.rows(rows)):
        row[0] *= factor
        if lost and number % 3 == 0:
            row[1] = None
        lines.append(json.dumps(dict(zip(NAMES, row, strict=True))))
    path.write_text("\n".join(lines) + "\n")
    return path
