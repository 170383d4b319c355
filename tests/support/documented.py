"""What the documentation tells a user to type, in its own words."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"


def blocks(page: str, section: str, language: str) -> list[str]:
    """The fenced blocks of ``language`` under the heading ``section`` of docs/``page``."""
    text = (DOCS / page).read_text(encoding="utf-8")
    _, found, rest = text.partition(f"\n## {section}\n")
    assert found, f"docs/{page} has no section {section}"
    return re.findall(rf"^```{language}\n(.*?)^```$", rest.split("\n## ")[0], re.S | re.M)


def command(page: str, section: str, part: str) -> list[str]:
    """The words of the only command with ``part`` in the section, without its comment."""
    lines = [
        line for block in blocks(page, section, "sh") for line in block.splitlines() if part in line
    ]
    (line,) = lines
    return line.partition("  #")[0].split()
