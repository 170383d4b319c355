"""Every fenced block of the documentation is of a known kind, and valid as what it is."""

from __future__ import annotations

import configparser
import json
import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.support import kubernetes_schemas
from tests.support.commands import parse
from tests.support.documented import NEEDS, PAGES, ROOT, Block, blocks_of, commands_of
from tools.chart_reference import CHART
from tools.parts.debian import environment, need
from understudy.loadtest.errors import LoadTestError
from understudy.loadtest.gate.plan_file import PlanFile, plan_of
from understudy.monitor.config.load import load
from understudy.monitor.config.model import Config, Model
from understudy.monitor.config.slo import SloFile
from understudy.monitor.errors import ConfigError, UnderstudyError
from understudy.monitor.slo.load import load as load_slos

BLOCKS = [block for page in PAGES for block in blocks_of(page)]
OF_OTHER_TESTS = {"CONTRIBUTING.md": "test_extending.py"}
"""Pages whose Python blocks are parts of files, which another test puts into a tree and runs."""
WHOLE = {
    "version": 1,
    "listen": "127.0.0.1:8080",
    "models": [{"name": "delays"}],
    "champion": {"url": "http://127.0.0.1:8081"},
}
"""What a part of a configuration leaves out."""


def ids(block: object) -> str:
    return str(block)


def of(*languages: str) -> list[Block]:
    return [block for block in BLOCKS if block.language in languages]


KNOWN = {"sh", "console", "yaml", "json", "python", "toml", "ini", "properties", "text", "mermaid"}


@pytest.mark.parametrize("block", BLOCKS, ids=ids)
def test_a_block_says_what_it_is(block: Block) -> None:
    assert block.language in KNOWN, "name its language; `text` if it has none"
    if block.title and not block.is_file:
        assert block.language in ("sh", "console", "python"), "only commands and programs are run"
        assert block.title in NEEDS, "give one of the reasons in tests/support/documented.py"
    if block.is_file:
        assert "/" not in block.title


def test_every_reason_for_not_being_run_is_in_use() -> None:
    assert {block.title for block in BLOCKS if block.title in NEEDS} == set(NEEDS)


BETWEEN = ("|", ">", "&", "&&", "||", ";", "2>&1")
"""What ends a command within a line."""


def understudy_lines(block: Block) -> list[list[str]]:
    """The command lines of ``understudy`` in a block, as words."""
    text = "\n".join(text for text, _ in commands_of(block)).replace("\\\n", " ")
    found = []
    for line in text.splitlines():
        words = shlex.split(line, comments=True)
        while words:
            end = next((n for n, word in enumerate(words) if word in BETWEEN), len(words))
            one, words = words[:end], words[end + 1 :]
            while one and re.match(r"[A-Z_]+=", one[0]):
                one = one[1:]  # a variable for the command
            if one[:1] == ["understudy"]:
                found.append(one)
    return found


@pytest.mark.parametrize(
    "block", [block for block in of("sh", "console") if not block.runs], ids=ids
)
def test_commands_that_are_not_run_have_the_options_of_our_own(block: Block) -> None:
    for words in understudy_lines(block):
        assert parse(words).command is not None


def check_sidecar(data: dict[str, Any], file: Path) -> None:
    """A configuration, or the part of one that a page shows."""
    arms = {arm for one in data.get("experiments", ()) for arm in one["challengers"]}
    whole = {
        **WHOLE,
        "challengers": [{"name": arm, "url": "http://127.0.0.1:8082"} for arm in sorted(arms)],
        **({"kafka": {"bootstrap": ["127.0.0.1:9092"]}} if "sources" in data else {}),
        **data,
    }
    file.write_text(yaml.safe_dump(whole), encoding="utf-8")
    try:
        load(file)
    except ConfigError as error:
        # Files that the text names are not there.
        assert not [one for one in error.problems if "cannot be read" not in one[1]], error


def check_prometheus(data: dict[str, Any], file: Path) -> None:
    for job in data.get("scrape_configs", []):
        # Debian's Prometheus is built without Kubernetes.
        discovery = job.pop("kubernetes_sd_configs", None)
        assert discovery in (None, [{"role": "pod"}])
    file.write_text(yaml.safe_dump(data), encoding="utf-8")
    done = subprocess.run(
        [need("promtool"), "check", "config", "--syntax-only", file],
        capture_output=True, text=True, env=environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def check_alertmanager(data: dict[str, Any], file: Path) -> None:
    names = {data["route"]["receiver"], *(one["receiver"] for one in data["route"]["routes"])}
    whole = {**data, "receivers": [{"name": name} for name in sorted(names)]}
    file.write_text(yaml.safe_dump(whole), encoding="utf-8")
    done = subprocess.run(
        [need("amtool"), "check-config", file], capture_output=True, text=True, env=environment()
    )
    assert done.returncode == 0, done.stdout + done.stderr


def check_chart(data: dict[str, Any], file: Path) -> None:
    """Chart.yaml's dependencies on our own charts are there, in the version that they name."""
    for one in data["dependencies"]:
        folder = CHART.parent / one["repository"].removeprefix("file://../")
        chart = yaml.safe_load((folder / "Chart.yaml").read_text("utf-8"))
        assert (chart["name"], chart["version"]) == (one["name"], one["version"])


def check_collector(data: dict[str, Any], file: Path) -> None:
    """Pipelines of the OpenTelemetry Collector use what the file declares, and all of it."""
    for part in ("receivers", "exporters"):
        used = {name for one in data["service"]["pipelines"].values() for name in one[part]}
        assert used == data[part].keys()


def check_envoy(data: dict[str, Any], file: Path) -> None:
    """Its filter and clusters name each other; tests/ingest/test_envoy.py runs it."""
    clusters = {one["name"] for one in data["static_resources"]["clusters"]}
    assert "understudy" in clusters
    assert set(re.findall(r"'cluster(?:_name)?': '([\w-]+)'", str(data))) == clusters


def check_istio(data: dict[str, Any], file: Path) -> None:
    """Istio's filter is that of Envoy's configuration, but for the name of the cluster."""
    (envoy,) = (block for block in BLOCKS if block.title == "envoy.yaml")
    listener = yaml.safe_load(envoy.text)["static_resources"]["listeners"][0]
    wanted = listener["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"][0]
    assert data["kind"] == "EnvoyFilter"
    (patch,) = data["spec"]["configPatches"]
    found = patch["patch"]["value"]
    name = found["typed_config"]["grpc_service"]["envoy_grpc"].pop("cluster_name")
    assert name == "outbound|9191||understudy.models.svc.cluster.local"
    del wanted["typed_config"]["grpc_service"]["envoy_grpc"]["cluster_name"]
    assert found == wanted


def check_values(data: dict[str, Any], file: Path) -> None:
    schema = json.loads((CHART / "values.schema.json").read_text("utf-8"))
    jsonschema.validate(data, schema)


def kind_of(block: Block, data: Any) -> str:
    """What a YAML block is: by its name as a file, or by its keys."""
    if not isinstance(data, dict):
        return "unknown"
    keys = data.keys()
    if {"apiVersion", "kind"} <= keys:
        return "istio" if data["apiVersion"].startswith("networking.istio.io") else "kubernetes"
    for kind, known in (
        ("chart", {"dependencies"}),
        ("envoy", {"static_resources"}),
        ("collector", {"receivers", "processors", "exporters", "extensions", "service"}),
        ("prometheus", {"global", "rule_files", "alerting", "scrape_configs"}),
        ("alertmanager", {"route", "receivers"}),
        ("sidecar", Config.model_fields.keys()),
        ("gate", PlanFile.model_fields.keys()),
        ("slo", SloFile.model_fields.keys()),
        ("model", Model.model_fields.keys()),
    ):
        if keys <= set(known):
            return kind
    schema = json.loads((CHART / "values.schema.json").read_text("utf-8"))
    return "values" if keys <= schema["properties"].keys() else "unknown"


@pytest.mark.parametrize("block", of("yaml"), ids=ids)
def test_yaml_is_valid_as_what_it_is(block: Block, tmp_path: Path) -> None:
    for data in yaml.safe_load_all(block.text):
        kind = kind_of(block, data)
        if kind == "sidecar":
            check_sidecar(data, tmp_path / "understudy.yaml")
        elif kind == "model":
            check_sidecar({"models": [{"name": "delays", **data}]}, tmp_path / "understudy.yaml")
        elif kind == "gate":
            plan_of({"version": 1, **data}, ROOT, str(block))
        elif kind == "slo":
            file = tmp_path / "slo.yaml"
            file.write_text(yaml.safe_dump({"version": 1, "service": "delays", **SLOS, **data}))
            load_slos(file)
        elif kind == "kubernetes":
            assert kubernetes_schemas.problems(data) == []
        else:
            check = {
                "prometheus": check_prometheus, "alertmanager": check_alertmanager,
                "chart": check_chart, "values": check_values, "collector": check_collector,
                "envoy": check_envoy, "istio": check_istio,
            }.get(kind)  # fmt: skip
            assert check is not None, "of what is this a part? See kind_of"
            check(data, tmp_path / "file.yaml")


SLOS = {"slos": [{"name": "availability", "objective": "99.9 %", "availability": {}}]}


@pytest.mark.parametrize("block", of("json", "toml"), ids=ids)
def test_json_and_toml_are_valid(block: Block) -> None:
    if block.language == "toml":
        tomllib.loads(block.text)
        return
    try:
        json.loads(block.text)
    except json.JSONDecodeError:
        for line in block.text.splitlines():  # lines of JSON
            json.loads(line)


@pytest.mark.parametrize("block", of("ini"), ids=ids)
def test_units_of_systemd_have_sections_and_keys(block: Block) -> None:
    reader = configparser.ConfigParser(interpolation=None, strict=False)
    reader.read_string(block.text)
    assert set(reader.sections()) <= {"Unit", "Service", "Install"}
    assert all(value for section in reader.sections() for value in reader[section].values())


@pytest.mark.parametrize("block", of("python"), ids=ids)
def test_python_compiles(block: Block) -> None:
    if block.page.name in OF_OTHER_TESTS:
        other = ROOT / "tests" / "project" / OF_OTHER_TESTS[block.page.name]
        assert block.page.name in other.read_text("utf-8")
    else:
        compile(block.text, str(block), "exec")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("```\nls\n```\n", "name its language"),
        ('```sh title="Needs luck"\nls\n```\n', "give one of the reasons"),
        ('```yaml title="Needs a while"\na: 1\n```\n', "only commands"),
        ("```rust\n```\n", "name its language"),
    ],
)
def test_a_block_of_no_known_kind_is_refused(text: str, message: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Page\n\n{text}")
    (block,) = blocks_of(page)
    with pytest.raises(AssertionError, match=message):
        test_a_block_says_what_it_is(block)


@pytest.mark.parametrize("text", ["```sh\nls\n", "a ```sh\nls\n```\n", "```sh {a}\nls\n```\n"])
def test_a_fence_that_cannot_be_read_is_refused(text: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(ValueError, match=r"page\.md"):
        blocks_of(page)


@pytest.mark.parametrize(
    "text",
    ["monitering: {learn: 5}\n", "monitoring: {learned: 5}\n", "a: [1\n", "- 1\n",
     "version: 1\nstages: [{name: a}]\n", "apiVersion: v1\nkind: Service\nspecs: {}\n",
     "scrape_configs: [{job: a}]\n"],
)  # fmt: skip
def test_yaml_that_nothing_reads_is_refused(text: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"```yaml\n{text}```\n")
    (block,) = blocks_of(page)
    with pytest.raises((AssertionError, UnderstudyError, LoadTestError, yaml.YAMLError)):
        test_yaml_is_valid_as_what_it_is(block, tmp_path)
