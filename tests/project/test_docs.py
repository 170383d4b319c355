from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tools.docs import DOCS, EXAMPLE, PAGES
from tools.metrics_reference import SOURCES, metrics_of
from understudy.loadtest.chaos.experiment import load_experiment
from understudy.loadtest.gate.plan_file import load_plan
from understudy.loadtest.gate.sending import payloads_of
from understudy.monitor.config.load import load

ROOT = DOCS.parent


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_generated_pages_are_current(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == PAGES[path](), "run `make docs`"


def test_the_complete_example_is_valid() -> None:
    assert [arm.name for arm in load(EXAMPLE).challengers] == ["candidate"]


@pytest.mark.parametrize(
    "page",
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))],
    ids=lambda path: path.name,
)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), target


CODE_PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]


@pytest.mark.parametrize("page", CODE_PAGES, ids=lambda path: path.name)
def test_files_that_pages_name_exist(page: Path) -> None:
    """``folder/file.py`` in backticks, from the root or, as in the tour of the code, from a package."""
    roots = [ROOT, *(ROOT / name for name in ("monitor", "shadow", "loadtest"))]
    text = page.read_text("utf-8")
    for name in re.findall(r"`([\w-]+(?:/[\w-]+)*/(?:[\w-]+\.py)?)`", text):
        assert any((root / name).exists() for root in roots), name
    for constant, name in re.findall(r"`([A-Za-z_]+)` (?:in|\()\s?`([\w/]+\.py)`", text):
        source = next(root / name for root in roots if (root / name).exists()).read_text("utf-8")
        pattern = rf"^(def {constant}\(|class {constant}\b|{constant}\b.*=)"
        assert re.search(pattern, source, re.MULTILINE), f"{constant} in {name}"


def test_plans_of_the_gate_are_valid() -> None:
    plans = sorted((ROOT / "examples" / "gate").glob("*.yaml"))
    assert len(plans) >= 3
    for file in plans:
        plan = load_plan(file)
        assert payloads_of(plan.payloads, 1)
        for stage in plan.stages:
            if stage.kind == "chaos":
                load_experiment(stage.settings.experiment)


def test_commands_in_the_pages_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE))
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.glob("*.md")):
        used = set(re.findall(r"(?:`|^)make ([a-z-]+)", page.read_text("utf-8"), re.MULTILINE))
        assert used <= targets, page.name


RECORDED = {"understudy_slo_error_budget_remaining", "understudy_kind", "understudy_sidecar"}
"""Names that are not metrics of the service: a recorded series, a label, a job."""


def test_metrics_that_the_pages_name_exist() -> None:
    known = {one.name for _, path in SOURCES for one in metrics_of(path)} | RECORDED
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.glob("*.md")):
        for name in re.findall(r"`(understudy_[a-z_]*[a-z])\b", page.read_text("utf-8")):
            assert name in known, (page.name, name)


def messages_of(source: Path) -> list[str]:
    """The strings of a module, each in one piece, without backticks; values are `…`."""
    found = []
    for node in ast.walk(ast.parse(source.read_text("utf-8"))):
        if isinstance(node, ast.JoinedStr):
            parts = [one.value if isinstance(one, ast.Constant) else "…" for one in node.values]
            found.append("".join(map(str, parts)).replace("`", ""))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(node.value.replace("`", ""))
    return found


def test_messages_on_the_page_of_troubles_are_those_of_the_product() -> None:
    """Each cell in backticks that has a blank: the pieces between `…` are in our code, in one string
    or at the end and the beginning of two."""
    packages = ("monitor", "loadtest", "shadow", "understudy/common")
    sources = [path for name in packages for path in (ROOT / name).rglob("*.py")]
    corpus = "\n".join(text for path in sources for text in messages_of(path))
    page = (DOCS / "troubleshooting.md").read_text("utf-8")
    rows = re.findall(r"^\| (?:log: )?`([^`]* [^`]*)` \|", page, re.MULTILINE)
    assert len(rows) >= 25
    for row in rows:
        for piece in row.split("…"):
            assert len(piece.strip(" .:;()")) < 4 or piece.strip() in corpus, (row, piece)
