from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tools.docs import DOCS, EXAMPLE, PAGES
from tools.metrics_reference import SOURCES, metrics_of
from understudy.loadtest.chaos.experiment import load_experiment
from understudy.loadtest.gate.plan_file import load_plan, plan_of
from understudy.loadtest.gate.sending import payloads_of
from understudy.monitor.config.load import load
from understudy.monitor.config.model import Config
from understudy.monitor.errors import ConfigError
from understudy.monitor.slo.load import load as load_slos

ROOT = DOCS.parent


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_generated_pages_are_current(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == PAGES[path](), "run `make docs`"


def test_the_complete_example_is_valid() -> None:
    assert [arm.name for arm in load(EXAMPLE).challengers] == ["candidate"]


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted(DOCS.glob("*.md"))], ids=lambda path: path.name
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


def test_configurations_in_the_readme_are_valid(tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    assert blocks
    for number, block in enumerate(blocks):
        file = tmp_path / f"{number}.yaml"
        file.write_text(block, encoding="utf-8")
        kinds = {"# gate.yaml": load_plan, "# slo.yaml": load_slos}
        kinds.get(block.partition("\n")[0], load)(file)


def test_parts_of_configurations_in_the_pages_are_valid(tmp_path: Path) -> None:
    """Blocks with keys of the configuration only, beside what they leave out."""
    seen = 0
    for page in DOCS.glob("*.md"):
        for block in re.findall(r"```yaml\n(.*?)```", page.read_text("utf-8"), re.DOTALL):
            part = yaml.safe_load(block)
            if not isinstance(part, dict) or not part.keys() <= Config.model_fields.keys():
                continue
            arms = {arm for one in part.get("experiments", ()) for arm in one["challengers"]}
            whole = {
                "version": 1,
                "listen": "127.0.0.1:8080",
                "models": [{"name": "delays"}],
                "champion": {"url": "http://127.0.0.1:8081"},
                "challengers": [{"name": arm, "url": "http://127.0.0.1:8082"} for arm in arms],
                **({"kafka": {"bootstrap": ["127.0.0.1:9092"]}} if "sources" in part else {}),
                **part,
            }
            file = tmp_path / "part.yaml"
            file.write_text(yaml.safe_dump(whole), encoding="utf-8")
            seen += 1
            try:
                load(file)
            except ConfigError as error:
                # Files that the text names are not there.
                unexpected = [one for one in error.problems if "cannot be read" not in one[1]]
                assert not unexpected, (page.name, unexpected)
    assert seen >= 10


def test_plans_of_the_gate_are_valid() -> None:
    plans = sorted((ROOT / "examples" / "gate").glob("*.yaml"))
    assert len(plans) >= 3
    for file in plans:
        plan = load_plan(file)
        assert payloads_of(plan.payloads, 1)
        for stage in plan.stages:
            if stage.kind == "chaos":
                load_experiment(stage.settings.experiment)
    whole = (DOCS / "gate.md").read_text("utf-8")
    for block in re.findall(r"```yaml\n(version: 1\n.*?)```", whole, re.DOTALL):
        plan_of(yaml.safe_load(block), ROOT, "docs/gate.md")


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
