"""What a release consists of: the same bytes from the same tree, checked, and published by pins."""

from __future__ import annotations

import gzip
import io
import json
import re
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools import oci_chart, release, versions
from understudy import __version__

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "understudy"
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.y*ml"))
EPOCH = 1_790_000_000


def test_the_chart_is_packed_to_the_same_bytes(tmp_path: Path) -> None:
    packed = oci_chart.write_layout(CHART, tmp_path / "a" / "oci", EPOCH)
    again = oci_chart.write_layout(CHART, tmp_path / "b" / "oci", EPOCH)
    assert packed.name == f"understudy-{__version__}.tgz"
    assert packed.read_bytes() == again.read_bytes()
    assert release.differences(tmp_path / "a", tmp_path / "b") == []
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(packed.read_bytes()))) as tar:
        members = tar.getmembers()
    names = [one.name for one in members]
    assert "understudy/Chart.yaml" in names
    assert "understudy/charts/understudy-lib/Chart.yaml" in names
    assert {one.mtime for one in members} == {EPOCH}
    assert not [name for name in names if name.endswith((".tgz", "~"))]
    later = oci_chart.write_layout(CHART, tmp_path / "c" / "oci", EPOCH + 1)
    assert later.read_bytes() != packed.read_bytes()
    assert packed.name in release.differences(tmp_path / "a", tmp_path / "c")


def test_the_layout_is_one_that_helm_pulls(tmp_path: Path) -> None:
    oci_chart.write_layout(CHART, tmp_path / "oci", EPOCH)
    folder = tmp_path / "oci"
    oci_chart.check_layout(folder)
    index = json.loads((folder / "index.json").read_text())
    (entry,) = index["manifests"]
    assert entry["annotations"]["org.opencontainers.image.ref.name"] == __version__
    manifest = json.loads((folder / "blobs/sha256" / entry["digest"][7:]).read_text())
    assert manifest["config"]["mediaType"] == oci_chart.CONFIG
    assert [one["mediaType"] for one in manifest["layers"]] == [oci_chart.LAYER]
    config = json.loads((folder / "blobs/sha256" / manifest["config"]["digest"][7:]).read_text())
    assert (config["name"], config["version"]) == ("understudy", __version__)
    layer = folder / "blobs/sha256" / manifest["layers"][0]["digest"][7:]
    layer.write_bytes(layer.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match="is not what"):
        oci_chart.check_layout(folder)


def test_the_version_has_one_source() -> None:
    for path, text in versions.PAGES.items():
        assert path.read_text(encoding="utf-8") == text(), f"run make docs: {path}"
        assert __version__ in text()


LOG = "# Changelog\n\n## [Unreleased]\n\n### Added\n\n- A thing.\n\n## [0.0.9] - 2026-01-01\n\n- Old.\n"


def test_a_release_turns_what_is_unreleased_into_a_section() -> None:
    made = release.with_section(LOG, "0.2.0", "2026-12-01")
    assert made.startswith("# Changelog\n\n## [Unreleased]\n\n## [0.2.0] - 2026-12-01\n")
    assert release.released(made, "0.2.0")
    assert not release.released(LOG, "0.2.0")
    assert release.notes_of(made, "0.2.0") == "### Added\n\n- A thing.\n"
    assert release.notes_of(made, "0.0.9") == "- Old.\n"
    with pytest.raises(release.ReleaseError, match="is released already"):
        release.with_section(made, "0.2.0", "2026-12-02")
    with pytest.raises(release.ReleaseError, match="nothing under"):
        release.with_section(made, "0.3.0", "2026-12-02")


def test_a_tag_that_is_not_the_version_is_refused() -> None:
    from click.testing import CliRunner

    done = CliRunner().invoke(release.main, ["--tag", "v9.9.9"])
    assert done.exit_code == 1
    assert f"the tag is v9.9.9, and the version in the tree {__version__}" in done.output


def test_differences_are_named(tmp_path: Path) -> None:
    for name, files in (("a", {"x": "1", "y": "2", "z": "3"}), ("b", {"x": "1", "y": "3"})):
        (tmp_path / name).mkdir()
        for file, text in files.items():
            (tmp_path / name / file).write_text(text)
    assert release.differences(tmp_path / "a", tmp_path / "b") == ["y", "z"]


@pytest.mark.slow
def test_packages_and_sboms_are_the_same_bytes_twice(tmp_path: Path) -> None:
    # With the compiled form for one Python; without a compiler there is no release.
    pythons = [(f"{sys.version_info[0]}.{sys.version_info[1]}", Path(sys.executable))]
    for name in ("a", "b"):
        release.build(tmp_path / name, EPOCH, pythons)
    assert release.differences(tmp_path / "a", tmp_path / "b") == []
    found = [path.suffix for path in release.files_in(tmp_path / "a")]
    assert {".whl", ".gz", ".tgz", ".json"} <= set(found)
    wheels = sorted(path.name for path in (tmp_path / "a").glob("*.whl"))
    assert [name.rpartition("-")[2][:9] for name in wheels] == ["manylinux", "any.whl"]
    release.check(tmp_path / "a", EPOCH)


def steps(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_pin_actions_and_ask_for_little(path: Path) -> None:
    text = path.read_text()
    workflow = yaml.safe_load(text)
    used = [step["uses"] for step in steps(workflow) if "uses" in step]
    assert used
    for action in used:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", action), action
    for line in text.splitlines():
        if "uses:" in line:
            assert re.search(r"# v\d+\.\d+\.\d+$", line), f"name the version: {line}"
    assert workflow["permissions"] in ({}, {"contents": "read"})
    for job in workflow["jobs"].values():
        assert "timeout-minutes" in job
    assert "secrets." not in text
    for step in steps(workflow):
        # What somebody else can write (a branch's name, a title) never becomes a part of a script.
        assert "${{" not in step.get("run", "")


def test_the_release_workflow_publishes_what_was_checked() -> None:
    (path,) = [one for one in WORKFLOWS if one.name == "release.yaml"]
    jobs = yaml.safe_load(path.read_text())["jobs"]
    assert any("make release" in step.get("run", "") for step in jobs["build"]["steps"])
    for name in ("pypi", "registry", "page"):
        job = jobs[name]
        needs = job["needs"] if isinstance(job["needs"], list) else [job["needs"]]
        assert "build" in needs or "pypi" in needs
        assert any("download-artifact" in step.get("uses", "") for step in job["steps"])
        assert not any("checkout" in step.get("uses", "") for step in job["steps"]), name
    assert jobs["pypi"]["permissions"] == {"id-token": "write"}
    pythons = jobs["build"]["steps"][1]["with"]["python-version"].split()
    assert sorted(pythons) == list(release.PYTHONS)
