"""What pods of the chart find around them: networks, accounts, room, and charts that hold this one."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.chart import (
    CASES,
    MODEL,
    NEWEST,
    PLAN,
    ROOT,
    containers,
    helm,
    named,
    of_kind,
    pods,
    render,
)
from tests.support.chart_cases import each_case, selects
from tools.chart_reference import CHART
from tools.parts import debian
from understudy import __version__
from understudy.monitor.config.kafka import KafkaSpool
from understudy.monitor.config.model import Feedback

EXAMPLES = ROOT / "examples" / "kubernetes"


def test_what_the_model_server_needs_first_comes_before_the_sidecar() -> None:
    values = CASES["a model server with everything"] + "gate:\n  enabled: true" + PLAN
    manifests = render(values)
    for kind, name, order in (
        ("Deployment", "demo-understudy", ["fetch", "understudy-evaluation", "understudy"]),
        ("Job", "demo-understudy-gate", ["fetch", "model", "understudy"]),
    ):
        spec = named(manifests, kind, name)["spec"]["template"]["spec"]
        assert [one["name"] for one in spec["initContainers"]] == order
        # A GPU is found by neither without this.
        assert spec["runtimeClassName"] == "nvidia"
        assert spec["serviceAccountName"] == "own"


def test_the_state_has_room_for_what_the_program_keeps() -> None:
    """Or a long outage of Kafka would end with the eviction of a pod that serves."""
    manifests = render("evaluator")
    spec = named(manifests, "Deployment", "demo-understudy")["spec"]["template"]["spec"]
    (state,) = [one["emptyDir"] for one in spec["volumes"] if one["name"] == "understudy-state"]
    room = int(re.fullmatch(r"(\d+)Gi", state["sizeLimit"])[1]) << 30  # type: ignore[index]
    assert room > KafkaSpool().max_size + Feedback().max_size
    # A limit of one container is taken for that of the pod, files of the model server included.
    for container in spec["initContainers"]:
        assert "ephemeral-storage" not in container["resources"]["limits"]


def test_the_control_api_stays_in_the_cluster() -> None:
    for values, host in (
        ("service: {type: ClusterIP}", "demo-understudy"),
        ("service: {type: LoadBalancer}", "demo-understudy-control"),
        ("service: {type: NodePort}", "demo-understudy-control"),
        ("service: {type: NodePort}\n" + CASES["evaluator"].removeprefix(MODEL), "demo-understudy-evaluator"),
    ):  # fmt: skip
        manifests = render(MODEL + values)
        having = {
            one["metadata"]["name"]: one["spec"].get("type", "ClusterIP")
            for one in of_kind(manifests, "Service")
            if "control" in [port["name"] for port in one["spec"]["ports"]]
        }
        assert having == {host: "ClusterIP"}
        (ready,) = named(manifests, "Pod", "demo-understudy-test")["spec"]["containers"]
        assert ready["args"][0].startswith(f"http://{host}.serving.svc:9090/")
        # Without an image for load, the installed release can still be tested.
        assert ready["image"] == f"understudy:{__version__}"


@each_case
def test_every_pod_has_one_network_policy(case: str) -> None:
    """A hook runs before the release's own is changed, so its policy has to be a hook before it."""
    manifests = render(case)
    policies = of_kind(manifests, "NetworkPolicy")
    for name, pod in pods(manifests):
        labels = pod["metadata"]["labels"]
        component = labels["app.kubernetes.io/component"]
        mine = []
        for policy in policies:
            selector = policy["spec"]["podSelector"]
            chosen = selects(selector["matchLabels"], labels)
            for one in selector.get("matchExpressions", []):
                chosen &= (component in one["values"]) == (one["operator"] == "In")
            mine += [policy] if chosen else []
        if "no policy" in case:
            assert not mine, name
            continue
        (policy,) = mine
        kind, _, own = name.partition("/")
        marks = named(manifests, kind, own)["metadata"].get("annotations", {})
        events = set(marks.get("helm.sh/hook", "test").split(",")) - {"test"}
        notes = policy["metadata"].get("annotations", {})
        assert events <= set(notes.get("helm.sh/hook", "").split(",")), name
        if events:
            assert int(notes["helm.sh/hook-weight"]) < int(marks["helm.sh/hook-weight"])


def test_scraping_is_allowed_from_where_prometheus_is(tmp_path: Path) -> None:
    """In whatever namespace: its pods are found by the label of its Operator and its charts."""

    def control(values: str) -> list[dict[str, Any]]:
        policy = named(render(values), "NetworkPolicy", "demo-understudy")["spec"]
        (rule,) = [one for one in policy["ingress"] if one["ports"][0]["port"] == 9090]
        peers: list[dict[str, Any]] = rule["from"]
        return peers

    (scrapers,) = [one for one in control(MODEL) if one.get("namespaceSelector") == {}]
    (expression,) = scrapers["podSelector"]["matchExpressions"]
    assert expression["key"] == "app.kubernetes.io/name"
    assert {"prometheus", "vmagent", "alloy"} <= set(expression["values"])
    mine = {"ipBlock": {"cidr": "10.7.0.0/16"}}
    other = MODEL + f"networkPolicy: {{scrapers: [{json.dumps(mine)}], control: []}}"
    assert control(other)[1:] == [mine]
    assert len(control(MODEL + "networkPolicy: {scrapers: [], control: []}")) == 1, "itself"

    # Helm prints the notes only with a cluster: here they are rendered as a manifest.
    chart = tmp_path / "understudy"
    shutil.copytree(CHART, chart)
    notes = (chart / "templates" / "NOTES.txt").read_text()
    (chart / "templates" / "notes.yaml").write_text(
        '{{- define "notes" }}' + notes + "{{- end }}\n"
        'kind: Notes\nmetadata: {name: notes}\ntext: {{ include "notes" . | toJson }}\n'
    )
    for values, said in ((MODEL, "vmagent"), (other, "cidr: 10.7.0.0/16")):
        text = named(render(values, chart=chart), "Notes", "notes")["text"]
        _, _, allowed = text.partition("allows scraping of port 9090 from\n")
        assert said in allowed
        assert "set networkPolicy.scrapers" in allowed


@pytest.mark.parametrize("override", ["", "fullnameOverride", "namespace"])
def test_two_long_names_never_collide(override: str) -> None:
    """Releases of one namespace, and the injector's cluster-wide webhook of two namespaces."""
    long = "recommendations-of-the-night-shop-in-europe-"
    found: list[set[tuple[str, str]]] = []
    for end in ("a", "b"):
        values = MODEL + "injector: {enabled: true}\npodMonitor: {enabled: true}\n"
        release, options = f"{long}{end}", {}
        if override == "fullnameOverride":
            values += f"fullnameOverride: {long}{end}\n"
            release = f"r{end}"
        elif override == "namespace":
            release, options = "demo", {"namespace": f"{long}{end}"}
        manifests = render(values, name=release, **options)
        if override == "namespace":
            manifests = of_kind(manifests, "MutatingWebhookConfiguration")
        names = {(one["kind"], one["metadata"]["name"]) for one in manifests}
        assert all(len(name) <= 63 for _, name in names)
        found.append(names)
    assert found[0], override
    assert not found[0] & found[1]


def test_hooks_may_connect_to_what_the_upgrade_allows() -> None:
    values = CASES["evaluator"] + "\ngate:\n  enabled: true" + PLAN
    values += "\nnetworkPolicy: {egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8}}]}]}"
    manifests = render(values)
    release, hooks = (
        named(manifests, "NetworkPolicy", f"demo-understudy{suffix}")["spec"]
        for suffix in ("", "-hooks")
    )
    assert hooks["egress"] == release["egress"]
    assert hooks["egress"][-1] == {"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}
    assert hooks["ingress"] == []


def test_a_gate_before_an_installation_has_no_account_yet() -> None:
    def account(values: str) -> str | None:
        job = named(render(MODEL + values + PLAN), "Job", "demo-understudy-gate")
        found: str | None = job["spec"]["template"]["spec"].get("serviceAccountName")
        return found

    assert account("gate:\n  enabled: true") == "demo-understudy"
    assert account("gate:\n  enabled: true\n  hooks: [pre-install]") is None
    there = "serviceAccount: {create: false, name: mine}\n"
    assert account(there + "gate:\n  enabled: true\n  hooks: [pre-install]") == "mine"


def test_alertmanager_takes_the_values_for_its_stack(tmp_path: Path) -> None:
    text = (EXAMPLES / "values-prometheus.yaml").read_text()
    (tmp_path / "config.yml").write_text(
        yaml.safe_dump(yaml.safe_load(text)["alertmanager"]["config"])
    )
    done = subprocess.run(
        [debian.need("amtool"), "check-config", tmp_path / "config.yml"],
        env=debian.environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_documented_commands_render() -> None:
    """What a newcomer types, as it stands in the page."""
    page = (ROOT / "docs" / "kubernetes.md").read_text()
    (block,) = [
        one for one in re.findall(r"```sh[^\n]*\n(.*?)```", page, re.DOTALL) if "--repo" in one
    ]
    commands = block.replace("\\\n", " ").splitlines()
    assert [command.split()[0] for command in commands] == ["helm", "helm", "kubectl"]
    words = shlex.split(commands[1])
    assert words[:2] == ["helm", "install"]
    done = helm("template", "--kube-version", NEWEST, *words[2:], cwd=ROOT)
    assert done.returncode == 0, done.stderr
    made = [one for one in yaml.safe_load_all(done.stdout) if one]
    kinds = {one["kind"] for one in made}
    assert {"Deployment", "PodMonitor", "PrometheusRule", "NetworkPolicy"} <= kinds
    images = {one["image"] for _, pod in pods(made) for one in containers(pod)}
    assert images == {f"REGISTRY/understudy:{__version__}", "REGISTRY/delays:7"}
    for name in re.findall(r"-f (\S+)", block):
        assert (ROOT / name).is_file(), name


def test_a_chart_may_depend_on_it_by_a_condition(tmp_path: Path) -> None:
    umbrella = tmp_path / "umbrella"
    shutil.copytree(CHART, umbrella / "charts" / "understudy")
    dependency = {"name": "understudy", "version": "0.1.0", "condition": "understudy.enabled"}
    chart = {"apiVersion": "v2", "name": "umbrella", "version": "1.0.0", "dependencies": [dependency]}  # fmt: skip
    (umbrella / "Chart.yaml").write_text(yaml.safe_dump(chart))
    values = "understudy: {enabled: %s, model: {image: {repository: m}}}\nglobal: {a: b}"
    (umbrella / "values.yaml").write_text("understudy: {enabled: true}")
    assert of_kind(render(values % "true", chart=umbrella), "Deployment")
    assert not render(values % "false", chart=umbrella)
