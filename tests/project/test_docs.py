from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tools.docs import DOCS, EXAMPLE, PAGES
from understudy.loadtest.chaos.experiment import load_experiment
from understudy.loadtest.gate.plan_file import load_plan, plan_of
from understudy.loadtest.gate.sending import payloads_of
from understudy.monitor.config.load import load
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


def test_configurations_in_the_readme_are_valid(tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    assert blocks
    for number, block in enumerate(blocks):
        file = tmp_path / f"{number}.yaml"
        file.write_text(block, encoding="utf-8")
        kinds = {"# gate.yaml": load_plan, "# slo.yaml": load_slos}
        kinds.get(block.partition("\n")[0], load)(file)


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
