"""What the documentation tells a user to type, in its own words.

A fenced block is of a language, and may have a title, which readers see above it::

    ```yaml title="understudy.yaml"     a file, which the page's commands find under this name
    ```sh title="Needs a cluster"       commands for which the tests have no such thing

Everything else in ``sh`` and ``console`` blocks is run by tests/project/test_pages.py, in the page's
order; see :data:`NEEDS` for the reasons that a block may give for not being run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = (
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "helm" / "understudy" / "README.md",
    *sorted((ROOT / "examples").rglob("README.md")),
    *sorted(DOCS.rglob("*.md")),
)
_FENCE = re.compile(
    r'^(?P<indent> *)```(?P<language>[\w-]*)(?: title="(?P<title>[^"]*)")?(?P<rest>[^`\n]*)\n'
    r"(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)

NEEDS = {
    "Needs a Kubernetes cluster": "the chart's manifests are checked against schemas in tests/chart",
    "Needs Docker or Podman": "the image is checked piece by piece in tests/image",
    "Needs a Kafka broker": "tests/kafka runs the same commands against brokers",
    "Needs a running experiment": "tests/experiments and tests/cli run the same commands",
    "Needs an open finding": "tests/findings and tests/cli run the same commands",
    "Needs Grafana": "none of the package registries has it",
    "Needs Prometheus and Alertmanager": "they run until they are stopped; tests/slo starts both",
    "Needs several machines": "tests/loadtest/test_locust.py runs it in a network of its own",
    "Needs a while": "it takes minutes, or is run by another test",
    "Needs a checkout": "it builds the package with tools of the package index",
    "Needs your model server": "tests/cli/test_first_steps.py and tests/integration use real ones",
}
"""Titles of blocks that are not run, and what is tested in their place."""

ELSEWHERE = {
    "understudy demo": "tests/demo/test_demo.py",
    "understudy demo --scenario drift --keep": "tests/demo/test_demo.py",
    "understudy demo --scenario outage --json": "tests/demo/test_demo.py",
    "understudy slo test slo.yaml": "tests/slo/test_trials.py",
    "understudy try http://127.0.0.1:8081": "tests/cli/test_first_steps.py",
}
"""Commands that take a minute or do not end, and the test that runs them instead."""


@dataclass(frozen=True)
class Block:
    """A fenced block, and the number of its first line in the page."""

    page: Path
    line: int
    language: str
    title: str
    text: str

    @property
    def is_file(self) -> bool:
        """Whether the page's commands find it as a file."""
        return bool(self.title) and not self.title.startswith("Needs")

    @property
    def runs(self) -> bool:
        """Whether it has commands that are run."""
        return self.language in ("sh", "console") and not self.title.startswith("Needs")

    def __str__(self) -> str:
        page = self.page.relative_to(ROOT) if self.page.is_relative_to(ROOT) else self.page.name
        return f"{page}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """The blocks of a page, in their order. Raises ValueError for one that cannot be read."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        if match["rest"].strip():
            raise ValueError(f"{page.name}:{line}: {match['rest']!r} after the language")
        indent = len(match["indent"])
        lines = [one[indent:] for one in match["text"].splitlines()]
        body = "".join(f"{one}\n" for one in lines)
        found.append(Block(page, line, match["language"], match["title"] or "", body))
    if text.count("```") != 2 * len(found):
        raise ValueError(f"{page.name}: a fence does not end, or does not begin a line")
    return found


def commands_of(block: Block) -> list[tuple[str, str]]:
    """Commands of a block, with the output that it shows: none for ``sh``."""
    if block.language == "sh":
        lines = block.text.splitlines(keepends=True)
        kept = [one for one in lines if one.partition("  #")[0].strip() not in ELSEWHERE]
        return [("".join(kept), "")]
    assert block.language == "console"
    found: list[tuple[str, str]] = []
    for line in block.text.splitlines(keepends=True):
        if line.startswith("$ "):
            found.append((line[2:], ""))
        else:
            assert found, f"{block}: output before a command"
            found[-1] = (found[-1][0], found[-1][1] + line)
    return found


def blocks(page: str, section: str, language: str) -> list[str]:
    """The fenced blocks of ``language`` under the heading ``section`` of docs/``page``."""
    path = DOCS / page
    lines = path.read_text(encoding="utf-8").splitlines()
    assert f"## {section}" in lines, f"docs/{page} has no section {section}"
    start = lines.index(f"## {section}") + 1
    ends = [n for n, one in enumerate(lines, 1) if one.startswith("## ") and n > start]
    end = min(ends, default=len(lines) + 1)
    found = [one for one in blocks_of(path) if start < one.line < end]
    return [one.text for one in found if one.language == language]


def command(page: str, section: str, part: str) -> list[str]:
    """The words of the only command with ``part`` in the section, without its comment."""
    lines = [
        line for block in blocks(page, section, "sh") for line in block.splitlines() if part in line
    ]
    (line,) = lines
    return line.partition("  #")[0].split()
