"""The compose stack, as far as that goes without an engine: its files, and what they name."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import ComposeSpecification, PyCompose

from tests.support.dockerfile import stages
from tools.parts.debian import environment, need
from understudy.monitor.config.load import load

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
STACK = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = STACK["services"]
PROMETHEUS = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
PROVISIONING = DEPLOY / "grafana" / "provisioning"


def test_it_is_what_the_compose_specification_allows() -> None:
    ComposeSpecification.model_validate(STACK)
    PyCompose.from_json(json.dumps(STACK)).validate()
    over = yaml.safe_load((DEPLOY / "compose.kafka.yaml").read_text())
    together = {**over, "services": {**SERVICES, **over["services"]}}
    together["volumes"] = {**STACK["volumes"], **over["volumes"]}
    PyCompose.from_json(json.dumps(together)).validate()
    for service in ({"image": "a", "comand": "x"}, {"image": "a", "ports": 80}):
        with pytest.raises(ValueError, match=r"comand|integer"):
            PyCompose.from_json(json.dumps({"services": {"a": service}}))


def test_what_it_mounts_and_waits_for_is_there() -> None:
    for name, service in SERVICES.items():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (DEPLOY / source).exists(), f"{name}: {source}"
            else:
                assert source in STACK["volumes"], f"{name}: {source}"
        waits = service.get("depends_on", {})
        for other in waits:
            assert other in SERVICES
            condition = waits[other]["condition"] if isinstance(waits, dict) else ""
            if condition == "service_healthy":
                image = SERVICES[other]["image"]
                assert image in ("understudy", "understudy-flights"), f"{other} has no health check"
        # Once for each image: two builds of one tag are in each other's way.
        assert sum(one["image"] == service["image"] and "build" in one
                   for one in SERVICES.values()) <= 1  # fmt: skip
        if build := service.get("build"):
            file = DEPLOY / build["context"] / build["dockerfile"]
            assert any(word == "HEALTHCHECK" for word, _ in stages(file.read_text()).popitem()[1])


def test_nothing_can_be_reached_from_elsewhere_or_gain_rights() -> None:
    for name, service in SERVICES.items():
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), name
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["read_only"], name
        assert (
            re.search(r":v?\d+\.\d+\.\d+$", service["image"])
            or "build" in service
            or (
                service["image"]
                in {other["image"] for other in SERVICES.values() if "build" in other}
            )
        ), f"{name}: an image without a version"


def test_the_service_is_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNDERSTUDY_TOKEN", "x")
    text = (DEPLOY / "stack" / "understudy.yaml").read_text()
    (tmp_path / "understudy.yaml").write_text(re.sub(r"\n +baseline: .*", "", text))
    config = load(tmp_path / "understudy.yaml")
    hosts = [config.champion.url, *(one.url for one in config.challengers)]
    for url in hosts:
        host = str(url).removeprefix("http://").partition(":")[0]
        assert host in SERVICES
    written = next(word for word in SERVICES["baseline"]["command"] if word.startswith("--output="))
    assert f"baseline: {written.removeprefix('--output=')}" in text
    assert "state_dir: /var/lib/understudy/" in text


def test_prometheus_and_grafana_find_each_other() -> None:
    targets = [
        target
        for job in PROMETHEUS["scrape_configs"]
        for one in job["static_configs"]
        for target in one["targets"]
    ]
    targets += PROMETHEUS["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"]
    for target in targets:
        host = target.partition(":")[0]
        assert host in (*SERVICES, "127.0.0.1")
    (source,) = yaml.safe_load((PROVISIONING / "datasources" / "prometheus.yaml").read_text())[
        "datasources"
    ]
    assert source["url"] == "http://prometheus:9090"
    assert source["jsonData"]["timeInterval"] == PROMETHEUS["global"]["scrape_interval"]
    (provider,) = yaml.safe_load((PROVISIONING / "dashboards" / "understudy.yaml").read_text())[
        "providers"
    ]
    mounted = dict(volume.split(":")[1::-1] for volume in SERVICES["grafana"]["volumes"])
    folder = DEPLOY / mounted[provider["options"]["path"]]
    home = Path(SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert str(home.parent) == provider["options"]["path"]
    assert json.loads((folder / home.name).read_text())["uid"] == "understudy-overview"


@pytest.mark.integration
def test_their_own_checkers_have_nothing_against_the_files(tmp_path: Path) -> None:
    rules = PROMETHEUS["rule_files"]
    here = [path.replace("/etc/prometheus", str(DEPLOY / "prometheus")) for path in rules]
    text = json.dumps({**PROMETHEUS, "rule_files": here})
    (tmp_path / "prometheus.yml").write_text(
        text.replace("/etc/prometheus/evaluators", str(DEPLOY / "prometheus" / "evaluators"))
    )
    for command in (
        [need("promtool"), "check", "config", tmp_path / "prometheus.yml"],
        [need("amtool"), "check-config", DEPLOY / "prometheus" / "alertmanager.yml"],
    ):
        done = subprocess.run(command, env=environment(), capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
