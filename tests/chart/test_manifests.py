"""What the chart renders, over a matrix of values: `support.CASES`, each on the oldest and the newest
Kubernetes."""

from __future__ import annotations

import base64
import json
import re
import shutil
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from tests.support.certificates import tls_secret
from tests.support.chart import (
    CASES,
    MODEL,
    NEWEST,
    OLDEST,
    PLAN,
    containers,
    helm,
    named,
    of_kind,
    pods,
    refusal,
    render,
)
from tests.support.chart_cases import each_case, selects
from tests.support.gates import gate
from tests.support.kubelet import environment_of
from tools.chart_reference import CHART, COPIES, LIBRARY, read
from understudy import __version__
from understudy.loadtest.gate.plan_file import load_plan
from understudy.loadtest.gate.sending import payloads_of
from understudy.monitor.cli.main import main as cli
from understudy.monitor.config.load import load, parse
from understudy.monitor.config.model import Watchdog
from understudy.monitor.config.otel import open_telemetry
from understudy.monitor.kafka.topics import wanted

Manifests = list[dict[str, Any]]


def test_lint() -> None:
    for case in ("least", "everything"):
        done = helm(
            "lint", "--strict", str(CHART), "--kube-version", NEWEST, "--values", "-",
            input=CASES[case],
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr


def test_versions_agree() -> None:
    for folder in (CHART, LIBRARY):
        chart = yaml.safe_load((folder / "Chart.yaml").read_text())
        assert chart["appVersion"] == __version__
        assert chart["kubeVersion"] == ">=" + re.sub(r"^v(\d+\.\d+).*", r"\1.0-0", OLDEST)
    main, library = (yaml.safe_load((f / "Chart.yaml").read_text()) for f in (CHART, LIBRARY))
    assert main["dependencies"][0]["version"] == library["version"]
    names = (LIBRARY / "templates" / "_names.tpl").read_text()
    assert f'define "understudy-lib.version" -}}}}{__version__}{{{{-' in names


def test_the_values_of_the_library_are_those_of_the_chart() -> None:
    ours = {value.path: value for value in read(CHART / "values.yaml")}
    shared = read(LIBRARY / "values.yaml")
    assert len(shared) > 10
    for value in shared:
        assert value == ours[value.path]


@each_case
@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_every_pod_meets_the_restricted_standard(case: str, version: str) -> None:
    """The rules of the Pod Security Standards, and a root file system that is read only."""
    found = list(pods(render(case, version)))
    assert found
    for name, pod in found:
        spec = pod["spec"]
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec), name
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["runAsUser"] >= 10000, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["enableServiceLinks"] is False, name
        allowed = {"configMap", "emptyDir", "secret", "persistentVolumeClaim"}
        assert all(set(volume) - {"name"} <= allowed for volume in spec["volumes"]), name
        for container in containers(pod):
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, name
            assert context["readOnlyRootFilesystem"] is True, name
            assert context["privileged"] is False, name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            assert context.get("runAsNonRoot", True) is True, name
            assert not any("hostPort" in port for port in container.get("ports", [])), name
            assert container["resources"]["requests"]["cpu"], name
            assert container["resources"]["requests"]["memory"], name
            assert container["resources"]["limits"]["memory"], name
            assert not container["image"].endswith(":"), name


@each_case
def test_every_name_that_is_used_exists(case: str) -> None:
    """ConfigMaps, Secrets of ours, volumes, service accounts, and the pods of every selector."""
    manifests = render(case)
    there = {(one["kind"], one["metadata"]["name"]) for one in manifests}
    outside = {"mine", "hook", "model", "more", "s3", "server-tls", "tls"}
    all_pods = dict(pods(manifests))
    for name, pod in all_pods.items():
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        assert len(volumes) == len(pod["spec"]["volumes"]), name
        for volume in volumes.values():
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in there, name
            if "secret" in volume:
                secret = volume["secret"]["secretName"]
                issued = "cert-manager" in case and ("Certificate", secret) in there
                assert ("Secret", secret) in there or secret in outside or issued, name
        account = pod["spec"].get("serviceAccountName", "default")
        assert account in ("default", "there") or ("ServiceAccount", account) in there, name
        for container in containers(pod):
            for mount in container["volumeMounts"]:
                assert mount["name"] in volumes, (name, mount)
            for env in container.get("env", []):
                secret = env.get("valueFrom", {}).get("secretKeyRef", {}).get("name")
                assert secret is None or secret in outside or ("Secret", secret) in there, name
        names = [env["name"] for c in containers(pod) for env in c.get("env", [])]
        assert all(len(set(map(str, c.get("env", [])))) == len(c.get("env", [])) for c in containers(pod)), names  # fmt: skip
    for one in manifests:
        kind, spec = one["kind"], one.get("spec", {})
        selector = spec.get("selector", {})
        if kind == "Service":
            mine = [p for p in all_pods.values() if selects(selector, p["metadata"]["labels"])]
            assert len(mine) == 1, one["metadata"]["name"]
            ports = {p["containerPort"] for c in containers(mine[0]) for p in c.get("ports", [])}
            assert {port["targetPort"] for port in spec["ports"]} <= ports
        elif kind in ("Deployment", "PodDisruptionBudget", "PodMonitor"):
            mine = [
                n
                for n, p in all_pods.items()
                if selects(selector["matchLabels"], p["metadata"]["labels"])
            ]
            if selector["matchLabels"] == {"understudy/sidecar": "injected"}:
                continue  # pods of others
            wanted = 2 if kind == "PodMonitor" and len(of_kind(manifests, "Deployment")) > 1 else 1
            assert len(mine) >= 1 if wanted > 1 else len(mine) == 1, (kind, mine)
        elif kind == "HorizontalPodAutoscaler":
            assert ("Deployment", spec["scaleTargetRef"]["name"]) in there


@each_case
def test_labels_and_namespaces(case: str) -> None:
    for one in render(case):
        labels = one["metadata"]["labels"]
        assert labels["app.kubernetes.io/instance"] == "demo"
        assert labels["app.kubernetes.io/managed-by"] == "Helm"
        assert all(len(value) <= 63 for value in labels.values())
        assert len(one["metadata"]["name"]) <= 63
        if one["kind"] != "MutatingWebhookConfiguration":
            assert one["metadata"]["namespace"] == "serving"


@each_case
def test_configurations_and_plans_are_valid(case: str, tmp_path: Path) -> None:
    """Every understudy.yaml by the program itself, with the files beside it; every plan of a gate."""
    tls = tmp_path / "tls"
    checked = 0
    for one in of_kind(render(case), "ConfigMap"):
        folder = tmp_path / one["metadata"]["name"]
        folder.mkdir()
        for name, text in one["data"].items():
            (folder / name).write_text(text, encoding="utf-8")
        if (file := folder / "understudy.yaml").exists():
            checked += 1
            if case == "tls":
                if not tls.exists():
                    tls.mkdir()
                    tls_secret(tls, "localhost")
                file.write_text(file.read_text().replace("/tls/", f"{tls}/"))
            config = load(file)
            assert config.control.token_env == "UNDERSTUDY_TOKEN" or config.control.loopback
        if (file := folder / "gate.yaml").exists():
            checked += 1
            assert payloads_of(load_plan(file).payloads, 1)
    assert checked or case.startswith("injector,")


def test_injected_pods_are_scraped_in_every_namespace() -> None:
    values = CASES["injector"] + "\npodMonitor: {enabled: true}"
    own, injected = (
        named(render(values), "PodMonitor", f"demo-understudy{suffix}")["spec"]
        for suffix in ("", "-injector-injected")
    )
    assert own["selector"]["matchLabels"] == {"understudy/sidecar": "demo-understudy"}
    assert injected["selector"]["matchLabels"] == {"understudy/sidecar": "injected"}
    assert injected["namespaceSelector"] == {"any": True}
    for one in (own, injected):
        (endpoint,) = one["podMetricsEndpoints"]
        assert endpoint["relabelings"] == [{"targetLabel": "job", "replacement": "understudy"}]


@each_case
def test_commands_of_ours_take_their_arguments(case: str) -> None:
    seen = 0
    for _, pod in pods(render(case)):
        for container in containers(pod):
            if container.get("command", [""])[0] != "understudy":
                continue
            seen += 1
            command: click.Command = cli
            context = click.Context(cli)
            rest = [*container["command"][1:], *container.get("args", [])]
            while isinstance(command, click.Group) and not rest[0].startswith("-"):
                name = rest.pop(0)
                found = command.get_command(context, name)
                assert found is not None, (name, container)
                command = found
            with pytest.raises(click.UsageError):
                command.make_context("understudy", ["--no-such-option"])
            command.make_context("understudy", rest)
    assert seen


def test_large_numbers_stay_numbers() -> None:
    """Helm reads numbers as floats, and must not write 1e+08, which YAML takes for a text."""
    config = named(render("all of the configuration"), "ConfigMap", "demo-understudy")
    parsed = yaml.safe_load(config["data"]["understudy.yaml"])
    assert parsed["monitoring"] == {"run_length": 100_000_000, "learn": 10_000_000}
    assert parsed["feedback"]["max_rows"] == 20_000_000


def test_the_sidecar_is_native_and_starts_before_the_model_server() -> None:
    for version in (OLDEST, NEWEST):
        pod = named(render("all of the configuration", version), "Deployment", "demo-understudy")
        spec = pod["spec"]["template"]["spec"]
        _, sidecar = spec["initContainers"]
        assert sidecar["restartPolicy"] == "Always"
        # The model server starts only after this: it must not ask for the model server.
        assert sidecar["startupProbe"]["tcpSocket"] == {"port": 9000}
        assert sidecar["readinessProbe"]["httpGet"] == {"path": "/v2/health/ready", "port": 9000}
        assert sidecar["livenessProbe"] == {"tcpSocket": {"port": 8080}, "periodSeconds": 30}
        (model,) = spec["containers"]
        assert model["ports"][0]["containerPort"] == 9002
        # In front of it, so it stops first: the order of Kubernetes is the other way round.
        assert "time.sleep(3)" in sidecar["lifecycle"]["preStop"]["exec"]["command"][-1]
        wait = model["lifecycle"]["preStop"]
        if version == NEWEST:
            assert wait == {"sleep": {"seconds": 43}}
        else:
            assert wait == {"exec": {"command": ["sleep", "43"]}}
        assert spec["terminationGracePeriodSeconds"] == 3 + 40 + 5 + 20


@pytest.mark.parametrize("case", ["least", "evaluator"])
def test_what_is_sent_by_otlp_says_where_it_comes_from(case: str, tmp_path: Path) -> None:
    """As OpenTelemetry's conventions name it, without switching anything on."""
    fields = {
        "metadata.name": "pod-1",
        "metadata.namespace": "serving",
        "metadata.uid": "uid-1",
        "spec.nodeName": "node-1",
        "status.podIP": "10.0.0.1",
    }
    secrets = {"demo-understudy-token": {"token": "t"}}
    kafka = "config: {kafka: {bootstrap: ['k:9092']}}\n" if case == "evaluator" else ""
    switched = "evaluator: {enabled: true}\n" if kafka else ""
    manifests = render(MODEL + kafka + switched)
    config = parse(
        "version: 1\nlisten: 127.0.0.1:1\nchampion: {url: 'http://m'}\nmodels: [{name: m}]",
        "x",
        tmp_path,
    )
    seen = set()
    for _, pod in pods(manifests):
        for container in containers(pod):
            environment = environment_of(container, secrets, fields)
            if "OTEL_RESOURCE_ATTRIBUTES" not in environment:
                continue
            assert not open_telemetry(config, environment).exports
            environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = "http://collector:4318"
            found = open_telemetry(config, environment)
            assert found.exports
            assert not found.warnings
            seen.add(container["name"])
            assert found.resource == {
                "k8s.namespace.name": "serving",
                "k8s.pod.name": "pod-1",
                "k8s.pod.uid": "uid-1",
                "k8s.node.name": "node-1",
                "k8s.container.name": container["name"],
            }
    assert seen == {"understudy", "understudy-evaluation", *(["evaluator"] if kafka else [])}


def test_resource_attributes_of_the_user_stand_alone() -> None:
    own = "[{name: OTEL_RESOURCE_ATTRIBUTES, value: a=b}]"
    manifests = render(
        MODEL
        + f"sidecar: {{env: {own}}}\nevaluator: {{enabled: true, env: {own}}}\n"
        + "config: {kafka: {bootstrap: ['k:9092']}}\n"
    )
    for _, pod in pods(manifests):
        for container in containers(pod):
            names = [one["name"] for one in container.get("env", [])]
            assert len(set(names)) == len(names)
            if container["name"] in ("understudy", "understudy-evaluation", "evaluator"):
                assert "OTEL_RESOURCE_ATTRIBUTES" in names
                assert "UNDERSTUDY_POD_UID" not in names


def test_the_evaluation_plane_has_a_container_that_nothing_waits_for() -> None:
    values = "\nsidecar: {evaluation: {resources: {limits: {memory: 1Gi}}}}"
    for version in (OLDEST, NEWEST):
        pod = named(render(MODEL + values, version), "Deployment", "demo-understudy")
        evaluation, sidecar = pod["spec"]["template"]["spec"]["initContainers"]
        assert evaluation["name"] == "understudy-evaluation"
        assert evaluation["restartPolicy"] == "Always"
        assert evaluation["args"][-2:] == ["--part", "evaluation-plane"]
        assert sidecar["args"][-2:] == ["--part", "data-plane"]
        # Its memory is limited for itself, and a pod that serves is ready without it.
        assert evaluation["resources"]["limits"] == {"memory": "1Gi"}
        assert sidecar["resources"]["limits"] == {"memory": "512Mi"}
        assert not {"startupProbe", "readinessProbe"} & set(evaluation)
        probe = evaluation["livenessProbe"]
        assert probe["httpGet"] == {"path": "/healthz", "port": 9090}
        # The service's own watchdog comes first.
        waits = probe["periodSeconds"] * probe["failureThreshold"]
        assert waits > 2 * Watchdog().evaluation
        assert probe["initialDelaySeconds"] >= Watchdog().start
        # Both see the same folders.
        for name in ("understudy-run", "understudy-state", "understudy-config"):
            mounts = [
                [m for m in c["volumeMounts"] if m["name"] == name] for c in (evaluation, sidecar)
            ]
            assert mounts[0] == mounts[1] != []
        volumes = {volume["name"]: volume for volume in pod["spec"]["template"]["spec"]["volumes"]}
        assert volumes["understudy-run"]["emptyDir"]["medium"] == "Memory"


def test_both_planes_in_one_container() -> None:
    values = "\nsidecar: {evaluation: {ownContainer: false}}"
    pod = named(render(MODEL + values), "Deployment", "demo-understudy")
    (sidecar,) = pod["spec"]["template"]["spec"]["initContainers"]
    assert sidecar["args"][-2:] == ["--part", "all"]
    assert sidecar["startupProbe"]["httpGet"] == {"path": "/healthz", "port": 9090}
    assert [port["containerPort"] for port in sidecar["ports"]] == [8080, 9090]


def test_in_front_of_a_model_server_elsewhere() -> None:
    manifests = render("in front of another's")
    spec = named(manifests, "Deployment", "demo-understudy")["spec"]["template"]["spec"]
    assert "initContainers" not in spec
    assert [one["name"] for one in spec["containers"]] == ["understudy-evaluation", "understudy"]
    for one in spec["containers"]:
        assert "restartPolicy" not in one
    config = named(manifests, "ConfigMap", "demo-understudy")["data"]["understudy.yaml"]
    assert yaml.safe_load(config)["champion"]["url"] == "http://delays-stable.serving.svc:8080"


def test_the_service_says_what_clients_speak_where_it_is_told() -> None:
    def port(values: str) -> dict[str, Any]:
        service = named(render(MODEL + values), "Service", "demo-understudy")
        found: dict[str, Any] = service["spec"]["ports"][0]
        return found

    assert "appProtocol" not in port("")
    assert port("service: {appProtocol: kubernetes.io/h2c}")["appProtocol"] == "kubernetes.io/h2c"
    assert port("service: {appProtocol: grpc, port: 81}") == {
        "name": "http", "port": 81, "targetPort": port("")["targetPort"], "protocol": "TCP",
        "appProtocol": "grpc",
    }  # fmt: skip
    assert "appProtocol" in refusal(MODEL + "service: {appProtocol: h2}")


def test_another_configuration_rolls_the_pods() -> None:
    def checksum(values: str) -> str:
        pod = named(render(MODEL + values), "Deployment", "demo-understudy")["spec"]["template"]
        return str(pod["metadata"]["annotations"]["checksum/understudy"])

    first = checksum("")
    assert checksum("service: {port: 81}") == first
    assert checksum("config: {workers: 3}") != first
    assert checksum("sidecar: {files: {a: b}}") != first


def test_evaluators_take_another_configuration_where_they_are() -> None:
    enabled = "evaluator: {enabled: true}\nconfig: {kafka: {bootstrap: ['kafka:9092']}%s}\n"

    def evaluator(more: str) -> tuple[str, dict[str, Any]]:
        manifests = render(MODEL + enabled % more)
        pod = named(manifests, "Deployment", "demo-understudy-evaluator")["spec"]["template"]
        file = named(manifests, "ConfigMap", "demo-understudy-evaluator")["data"]["understudy.yaml"]
        return str(yaml.safe_load(file)["reload"]), pod["metadata"].get("annotations") or {}

    reload, annotations = evaluator("")
    assert (reload, "checksum/understudy" in annotations) == ("watch", False)
    reload, annotations = evaluator(", reload: signal")
    assert (reload, "checksum/understudy" in annotations) == ("signal", True)


def test_the_gate_runs_the_candidate_before_anything_is_touched() -> None:
    manifests = render("gate")
    job = named(manifests, "Job", "demo-understudy-gate")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-upgrade"
    spec = job["spec"]["template"]["spec"]
    assert [(c["name"], c.get("restartPolicy")) for c in spec["initContainers"]] == [
        ("model", "Always"),
        ("understudy", "Always"),
    ]
    assert spec["restartPolicy"] == "Never"
    assert job["spec"]["backoffLimit"] == 0
    assert spec["containers"][0]["args"][:2] == ["--target", "http://127.0.0.1:8080"]
    # Hooks come before the resources of the release: what they need has to be a hook as well.
    for name in ("demo-understudy-gate", "demo-understudy-gate-sidecar"):
        config = named(manifests, "ConfigMap", name)["metadata"]["annotations"]
        assert config["helm.sh/hook"] == "pre-upgrade"
        assert int(config["helm.sh/hook-weight"]) < 0
    for container in spec["initContainers"]:
        sources = [env["valueFrom"] for env in container.get("env", []) if "valueFrom" in env]
        assert all(list(source) == ["fieldRef"] for source in sources)


def test_the_evaluator_has_the_configuration_of_the_sidecars() -> None:
    manifests = render("evaluator")
    read = {
        name: yaml.safe_load(named(manifests, "ConfigMap", name)["data"]["understudy.yaml"])
        for name in ("demo-understudy", "demo-understudy-evaluator", "demo-understudy-topics")
    }
    for config in read.values():
        assert config["evaluation"] == {"mode": "kafka"}
        assert config["kafka"]["bootstrap"] == ["kafka.kafka.svc:9092"]
        assert config["kafka"]["evaluators"] == "http://demo-understudy-evaluator:9090"
    assert read["demo-understudy-evaluator"]["records"] == {"keep": 10}
    for name in ("demo-understudy", "demo-understudy-evaluator"):
        service = named(manifests, "Service", name)["spec"]["ports"]
        assert ("control" in [port["name"] for port in service]) == name.endswith("evaluator")
    job = named(manifests, "Job", "demo-understudy-topics")["metadata"]["annotations"]
    config = named(manifests, "ConfigMap", "demo-understudy-topics")["metadata"]["annotations"]
    assert job["helm.sh/hook"] == config["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert int(config["helm.sh/hook-weight"]) < int(job["helm.sh/hook-weight"])


def test_topics_follow_from_the_configuration_without_its_files(tmp_path: Path) -> None:
    values = CASES["all of the configuration"].replace("max_rows", "horizon: 30d, max_rows")
    values = values.replace(
        "  workers: 2", "  workers: 2\n  kafka: {bootstrap: [k:1], partitions: 6}"
    )
    manifests = render(values + "evaluator: {enabled: true}")
    found = []
    for name in ("evaluator", "topics"):
        folder = tmp_path / name
        folder.mkdir()
        data = named(manifests, "ConfigMap", f"demo-understudy-{name}")["data"]
        assert ("baseline.json" in data) == (name == "evaluator")
        for file, text in data.items():
            (folder / file).write_text(text)
        config = load(folder / "understudy.yaml")
        assert config.kafka is not None
        found.append(wanted(config.kafka, config.feedback.horizon))
    assert found[0] == found[1]
    assert found[0][0].partitions == 6
    assert found[0] != wanted(config.kafka, 0.0)


def test_a_gate_is_heard_of_by_nobody_else() -> None:
    values = CASES["all of the configuration"] + "gate:\n  enabled: true" + PLAN
    config = named(render(values), "ConfigMap", "demo-understudy-gate-sidecar")["data"]
    parsed = yaml.safe_load(config["understudy.yaml"])
    assert not {"challengers", "experiments", "notify", "kafka"} & set(parsed)
    with_kafka = named(render("everything"), "ConfigMap", "demo-understudy-gate-sidecar")["data"]
    assert "kafka" not in with_kafka["understudy.yaml"]
    assert parsed["monitoring"]["learn"] == 10_000_000


def test_no_secret_stands_in_a_manifest() -> None:
    """Secrets are random, or given by name; a plain one is refused before anything is rendered."""
    first = named(render("least", name="a"), "Secret", "a-understudy-token")
    second = named(render("least", name="b"), "Secret", "b-understudy-token")
    tokens = [base64.b64decode(one["data"]["token"]) for one in (first, second)]
    assert tokens[0] != tokens[1]
    assert all(re.fullmatch(rb"[A-Za-z0-9]{48}", token) for token in tokens)
    assert not of_kind(render("a model server with everything"), "Secret")
    for name in ("HF_TOKEN", "DB_PASSWORD", "API_KEY", "AWS_SECRET_ACCESS_KEY", "TOKEN"):
        for where in ("model", "sidecar", "evaluator"):
            said = refusal(f"{where}: {{env: [{{name: {name}, value: x}}]}}")
            assert "valueFrom" in said, name
    render(MODEL + "sidecar: {env: [{name: TOKENIZERS_PARALLELISM, value: 'false'}]}")


def test_the_secret_is_not_part_of_a_checksum() -> None:
    """Or every rendering without a cluster would roll the pods."""

    def one(name: str) -> Any:
        return named(render("least", name=name), "Deployment", f"{name}-understudy")["spec"][
            "template"]["metadata"]["annotations"]  # fmt: skip

    assert one("a") == one("b")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ("", "model.image.repository is needed"),
        ("model: {image: {repositry: m}}", "repositry"),
        (MODEL + "config: {chalengers: []}", "chalengers"),
        (MODEL + "config: {models: [{name: m, protcol: json}]}", "protcol"),
        (MODEL + "config: {control: {listen: '0.0.0.0:1'}}", "control"),
        (MODEL + "config: {state_dir: /x}", "state_dir"),
        (MODEL + "config: {limits: {drain: 5s}}", "drain"),
        (MODEL + "config: {champion: {timeouts: {total: soon}}}", "total"),
        (MODEL + "ports: {traffic: 70000}", "traffic"),
        (MODEL + "image: {pullPolicy: Sometimes}", "pullPolicy"),
        (MODEL + "gate: {enabled: true}", "gate.plan is needed"),
        (MODEL + "evaluator: {enabled: true}", "config.kafka.bootstrap is needed"),
        ("model: {enabled: false}\ngate:\n  enabled: true" + PLAN, "gate.target is needed"),
        ("model: {external: 'http://m'}\ngate:\n  enabled: true" + PLAN, "gate.target is needed"),
        ("model: {enabled: false}\ninjector: {enabled: true, certificate: {from: secret}}", "secretName is needed"),
        (MODEL + "replicas: 3", "replicas"),
    ],
)  # fmt: skip
def test_what_cannot_be_right_is_refused(values: str, said: str) -> None:
    assert said in refusal(values)


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ("{stages: [{name: s, load: {rate: 20, seconds: 3}}]}", "stages.s: would not be measured"),
        ("{objectives: {alpha: 0.1}, stages: [{name: s, load: {rate: 20}}]}", "give it objectives"),
        ("{objectives: {p99: 1s}, stages: [{name: s, objectives: {}, load: {rate: 20}}]}", "give it objectives"),
        ("{objectives: {p99: 1s}, stages: [{name: s, load: {rate: 20}, judged: false}]}", "no stage is judged"),
        ("{stages: [{name: s, objectives: {p99: 1s}, capacity: {start: 1, most: 9}}]}", "give it at_least"),
        ("{objectives: {p99: 1s}, stages: [{name: s, load: {shape: until-break, rate: 1, to: 9}}]}", "give it at_least"),
        ("{stages: [{name: s, cold_start: {command: [x]}}]}", "give it within"),
        ("{stages: [{name: s, cold_start: {command: [x], within: 9s}}]}", ""),
        ("{objectives: {p99: 1s, joules: 1}, stages: [{name: s, capacity: {start: 1, most: 9}}]}", ""),
        ("{objectives: {preset: real-time}, stages: [{name: s, load: {rate: 20}}]}", ""),
        ("{stages: [{name: w, load: {rate: 1}, judged: false}, {name: s, objectives: {first_byte_p95: 1s}, load: {rate: 20}}]}", ""),
        ("{stages: [{name: s, loadgen: {scenario: Offline}}]}", ""),
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", ["gate", "test"])
def test_the_chart_refuses_what_the_gate_refuses(
    tmp_path: Path, value: str, plan: str, said: str
) -> None:
    """A plan that asks nothing could only pass by accident."""
    (file := tmp_path / "gate.yaml").write_text(plan)
    found = gate("--target", "http://127.0.0.1:1", "--plan", file, "--check")
    values = f"{MODEL}{value}: {{enabled: true, plan: {plan}}}"
    if said:
        assert (found.exit_code, said in found.output) == (2, True), found.output
        refused = refusal(values)
        assert f"{value}.plan.stages" in refused
        assert said in refused
    else:
        assert found.exit_code == 0, found.output
        assert load_plan(tmp_path / "gate.yaml").stages[-1].name == "s"
        assert named(render(values), "ConfigMap", f"demo-understudy-{value}")


def test_secrets_reach_the_gate_and_the_test() -> None:
    manifests = render("gate of a url")
    job = named(manifests, "Job", "demo-understudy-gate")["spec"]["template"]
    pod = named(manifests, "Pod", "demo-understudy-test")
    for one in (job, pod):
        (container,) = one["spec"]["containers"]
        (found,) = [env for env in container["env"] if env["name"] == "MODEL_AUTH"]
        assert found["valueFrom"] == {"secretKeyRef": {"name": "model", "key": "auth"}}


def test_old_clusters_are_refused() -> None:
    done = helm("template", "x", str(CHART), "--kube-version", "1.28.9", "-f", "-", input=MODEL)
    assert done.returncode != 0
    assert "1.29" in done.stderr


def test_rules_and_dashboards_are_in_the_manifests() -> None:
    manifests = render("monitored")
    (rule,) = of_kind(manifests, "PrometheusRule")
    assert rule["metadata"]["labels"] | {"release": "kube-prometheus-stack", "c": "d"} == rule[
        "metadata"]["labels"]  # fmt: skip
    files = sorted((CHART / "files" / "rules").glob("*.yml"))
    groups = [group for file in files for group in yaml.safe_load(file.read_text())["groups"]]
    rendered = {group["name"]: group for group in rule["spec"]["groups"]}
    assert "slo" in rendered
    assert len(groups) >= 5
    for group in groups:
        mine = rendered[group["name"]]
        assert len(mine["rules"]) == len(group["rules"])
        for one, there in zip(group["rules"], mine["rules"], strict=True):
            assert one["expr"] == there["expr"]
            page = one.get("annotations", {}).get("runbook_url")
            if page:
                link = there["annotations"]["runbook_url"]
                assert link == "https://wiki.example/" + Path(page).name
            if "alert" in one:
                assert there["labels"] == {**one.get("labels", {}), "team": "pricing"}
    boards = [
        one
        for one in of_kind(manifests, "ConfigMap")
        if one["metadata"]["labels"].get("grafana_dashboard") == "1"
    ]
    sources = sorted((CHART / "files" / "dashboards").glob("*.json"))
    assert len(boards) == len(sources) >= 6
    for board in boards:
        ((name, text),) = board["data"].items()
        assert json.loads(text) == json.loads((CHART / "files" / "dashboards" / name).read_text())
        assert len(text) < 1_000_000, "a ConfigMap holds a mebibyte"


def test_alerts_can_be_left_out() -> None:
    files = sorted((CHART / "files" / "rules").glob("*.yml"))
    alerts = [
        rule["alert"]
        for file in files
        for group in yaml.safe_load(file.read_text())["groups"]
        for rule in group["rules"]
        if "alert" in rule
    ]
    values = MODEL + f"prometheusRule: {{enabled: true, disabled: [{alerts[0]}]}}"
    (rule,) = of_kind(render(values), "PrometheusRule")
    left = [one.get("alert") for group in rule["spec"]["groups"] for one in group["rules"]]
    assert alerts[0] not in left
    assert set(alerts[1:]) <= {*left, alerts[0]}


def test_the_objectives_can_be_ones_own() -> None:
    def groups(values: str) -> set[str]:
        (rule,) = of_kind(render(MODEL + values), "PrometheusRule")
        return {group["name"] for group in rule["spec"]["groups"] or []}

    every = groups("prometheusRule: {enabled: true}")
    own = groups("prometheusRule: {enabled: true, objectives: false}")
    assert own
    assert any("slo" in name for name in every - own)
    assert own == {"understudy-sidecar-understudy", "understudy-kafka-understudy"}
    none = groups("prometheusRule: {enabled: true, installation: false}")
    assert none == every - own


def test_rules_and_dashboards_are_the_projects_own() -> None:
    for folder in ("rules", "dashboards"):
        assert set((CHART / "files" / folder).iterdir()) == {
            target for target in COPIES if target.parent.name == folder
        }, "run `make docs`, and remove what is no longer there"


def test_the_package_is_complete(tmp_path: Path) -> None:
    done = helm("package", str(CHART), "--destination", str(tmp_path))
    assert done.returncode == 0, done.stderr
    (package,) = tmp_path.glob("*.tgz")
    shutil.unpack_archive(package, tmp_path)
    there = {p.relative_to(tmp_path / "understudy") for p in (tmp_path / "understudy").rglob("*")}
    assert {Path("values.schema.json"), Path("charts/understudy-lib/templates/_pod.tpl")} <= there
    assert render("everything", chart=package) is not None
