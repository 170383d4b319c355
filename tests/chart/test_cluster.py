"""The chart in a real API server, with its admission: one server for all tests of this file.

There is no kubelet, and no controllers: nothing runs, and Jobs end when a test says so. What that
leaves out is written down in docs/kubernetes.md.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.admission import Webhook
from tests.support.admission import pod as pod_that
from tests.support.apiserver import ApiServer
from tests.support.chart import CASES, MODEL, PLAN, ROOT, helm, of_kind, pods, render
from tests.support.patience import eventually
from tools.chart_reference import CHART
from tools.parts import kubernetes

EXAMPLES = ROOT / "examples" / "kubernetes"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    definitions = [kubernetes.load(part) for part in kubernetes.CRDS]
    server = ApiServer(tmp_path_factory.mktemp("cluster"))
    try:
        for found in definitions:
            for one in found:
                server.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", one)
        for found in definitions:
            for one in found:
                _established(server, one["metadata"]["name"])
        yield server
    finally:
        server.stop()


def _established(server: ApiServer, name: str) -> None:
    def established() -> bool:
        found = server.get(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}")
        conditions = {
            c["type"]: c["status"] for c in found.get("status", {}).get("conditions") or []
        }
        return conditions.get("Established") == "True"

    eventually(established, what=f"{name} is established")


def path_of(server: ApiServer, one: dict[str, Any], namespace: str) -> str:
    """Where the API server takes objects of that kind."""
    version = one["apiVersion"]
    base = f"/api/{version}" if "/" not in version else f"/apis/{version}"
    (found,) = [
        resource
        for resource in server.get(base)["resources"]
        if resource["kind"] == one["kind"] and "/" not in resource["name"]
    ]
    return f"{base}/namespaces/{namespace}/{found['name']}" if found["namespaced"] else (
        f"{base}/{found['name']}"
    )  # fmt: skip


def run(server: ApiServer, *arguments: str, values: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "KUBECONFIG": str(server.kubeconfig)}
    return helm(*arguments, *(("--values", "-") if values else ()), input=values, env=environment)


def install(server: ApiServer, namespace: str, values: str, *more: str, name: str = "demo") -> str:
    done = run(
        server, "upgrade", "--install", name, str(CHART), "-n", namespace, *more, values=values
    )
    assert done.returncode == 0, done.stderr
    assert "violate" not in done.stderr, done.stderr
    return done.stdout


def token(server: ApiServer, namespace: str, name: str = "demo-understudy-token") -> bytes:
    found = server.get(f"/api/v1/namespaces/{namespace}/secrets/{name}")["data"]
    return base64.b64decode(found["token"])


def test_everything_is_created_in_a_restricted_namespace(cluster: ApiServer) -> None:
    server = cluster
    space = server.namespace("whole", **{"pod-security.kubernetes.io/warn": "restricted"})
    install(server, space, CASES["everything"], "--no-hooks")
    names = {
        one["metadata"]["name"]
        for one in server.get(f"/apis/apps/v1/namespaces/{space}/deployments")["items"]
    }
    assert {"demo-understudy", "demo-understudy-evaluator", "demo-understudy-injector"} <= names
    for kind in ("podmonitors", "prometheusrules"):
        assert server.get(f"/apis/monitoring.coreos.com/v1/namespaces/{space}/{kind}")["items"]
    # Controllers would make these pods; the API server admits each of them as it would then.
    seen = 0
    for number, (name, pod) in enumerate(pods(render("everything"))):
        template = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {**pod["metadata"], "name": f"pod-{number}", "namespace": space},
            "spec": pod["spec"],
        }
        made = server.create(f"/api/v1/namespaces/{space}/pods", template)
        assert made["spec"]["containers"], name
        seen += 1
    assert seen == 8
    sidecars = [
        container
        for pod in server.get(f"/api/v1/namespaces/{space}/pods")["items"]
        for container in pod["spec"].get("initContainers", [])
        if container["name"] == "understudy"
    ]
    assert len(sidecars) == 2
    assert all(container["restartPolicy"] == "Always" for container in sidecars)


def test_the_standard_is_enforced_at_all(cluster: ApiServer) -> None:
    """Or the test above would show nothing."""
    space = cluster.namespace("strict")
    (pod,) = [pod for name, pod in pods(render("least")) if name.startswith("Deployment/")]
    spec = json.loads(json.dumps(pod["spec"]))
    spec["serviceAccountName"] = "default"
    one = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec}
    cluster.create(f"/api/v1/namespaces/{space}/pods", one, "&dryRun=All")
    del spec["initContainers"][0]["securityContext"]["capabilities"]
    status, said = cluster.call("POST", f"/api/v1/namespaces/{space}/pods", one)
    assert status == 403
    assert "restricted" in said["message"]


@pytest.mark.parametrize("case", CASES)
def test_the_server_takes_every_case(cluster: ApiServer, case: str) -> None:
    """Server-side dry run, in which an unknown field is an error."""
    space = "serving"
    if cluster.call("GET", f"/api/v1/namespaces/{space}")[0] == 404:
        cluster.namespace(space)
    accounts = {pod["spec"].get("serviceAccountName") for _, pod in pods(render(case))} - {None}
    for name in accounts:  # pods are refused without theirs, which a dry run does not make
        account = {"metadata": {"name": name}}
        cluster.call("POST", f"/api/v1/namespaces/{space}/serviceaccounts", account)
    for one in render(case):
        if one["kind"] == "ServiceAccount":
            one = {**one, "metadata": {**one["metadata"], "name": "another"}}
        cluster.create(path_of(cluster, one, space), one, "&dryRun=All")


def test_an_upgrade_keeps_the_token_and_the_certificate(cluster: ApiServer) -> None:
    space = cluster.namespace("upgrade")
    values = MODEL + "injector: {enabled: true}\ntest: {enabled: false}\n"
    install(cluster, space, values)
    before = token(cluster, space)
    assert len(before) == 48
    path = f"/api/v1/namespaces/{space}/secrets/demo-understudy-injector"
    hooks = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
    certificate = cluster.get(path)["data"]
    deployment = f"/apis/apps/v1/namespaces/{space}/deployments/demo-understudy"
    first = cluster.get(deployment)
    install(cluster, space, values + "model: {image: {repository: m, tag: '8'}, replicas: 3}\n")
    second = cluster.get(deployment)
    assert second["spec"]["replicas"] == 3
    assert second["metadata"]["uid"] == first["metadata"]["uid"]
    assert token(cluster, space) == before
    assert cluster.get(path)["data"] == certificate
    (hook,) = [
        one["webhooks"][0]
        for one in cluster.get(hooks)["items"]
        if one["metadata"]["name"].endswith("-upgrade")
    ]
    assert hook["clientConfig"]["caBundle"] == certificate["ca.crt"]
    done = run(cluster, "uninstall", "demo", "-n", space)
    assert done.returncode == 0, done.stderr
    assert cluster.call("GET", path)[0] == 404
    install(cluster, space, values)
    assert token(cluster, space) != before


def test_the_account_has_no_rights(cluster: ApiServer) -> None:
    space = cluster.namespace("rights")
    install(cluster, space, CASES["everything"], "--no-hooks", name="rights")
    assert not cluster.get(f"/apis/rbac.authorization.k8s.io/v1/namespaces/{space}/roles")["items"]
    user = f"system:serviceaccount:{space}:rights-understudy"
    groups = ["system:serviceaccounts", f"system:serviceaccounts:{space}", "system:authenticated"]
    for verb in ("get", "list", "create", "delete", "watch"):
        for resource in ("secrets", "configmaps", "pods", "nodes", "deployments"):
            review = {
                "spec": {
                    "user": user,
                    "groups": groups,
                    "resourceAttributes": {
                        "verb": verb,
                        "resource": resource,
                        "namespace": space,
                        "group": "apps" if resource == "deployments" else "",
                    },
                }
            }
            said = cluster.create(
                "/apis/authorization.k8s.io/v1/subjectaccessreviews", review
            )["status"]  # fmt: skip
            assert said["allowed"] is False, (verb, resource)


def _finish(server: ApiServer, space: str, condition: str, stop: threading.Event) -> None:
    """What a kubelet's Job controller would say once the gate has ended."""
    path = f"/apis/batch/v1/namespaces/{space}/jobs/demo-understudy-gate"
    while not stop.wait(0.05):
        status, job = server.call("GET", path)
        if status != 200 or job.get("status", {}).get("conditions"):
            continue
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        kinds = {"Complete": "SuccessCriteriaMet", "Failed": "FailureTarget"}
        job["status"] = {
            "startTime": now,
            "conditions": [
                {"type": one, "status": "True", "lastTransitionTime": now, "reason": "x"}
                for one in (kinds[condition], condition)
            ],
        }
        if condition == "Complete":
            job["status"] |= {"completionTime": now, "succeeded": 1}
        else:
            job["status"]["failed"] = 1
        server.call("PUT", f"{path}/status", job)


@pytest.mark.parametrize("condition", ["Complete", "Failed"])
def test_the_gate_decides_whether_an_upgrade_happens(cluster: ApiServer, condition: str) -> None:
    space = cluster.namespace(f"gate-{condition.lower()}")
    values = MODEL + "test: {enabled: false}\ngate:\n  enabled: true" + PLAN
    install(cluster, space, values)  # pre-upgrade only: the first installation does not ask
    stop = threading.Event()
    judge = threading.Thread(target=_finish, args=(cluster, space, condition, stop))
    judge.start()
    try:
        done = run(
            cluster, "upgrade", "demo", str(CHART), "-n", space, "--timeout", "60s",
            "--set-string", "model.image.tag=8", values=values,
        )  # fmt: skip
    finally:
        stop.set()
        judge.join()
    deployment = cluster.get(f"/apis/apps/v1/namespaces/{space}/deployments/demo-understudy")
    image = deployment["spec"]["template"]["spec"]["containers"][0]["image"]
    job = cluster.get(f"/apis/batch/v1/namespaces/{space}/jobs/demo-understudy-gate")
    tried = job["spec"]["template"]["spec"]["initContainers"][0]["image"]
    assert tried == "registry.example/delays:8", "the new version is what is loaded"
    if condition == "Complete":
        assert done.returncode == 0, done.stderr
        assert image == "registry.example/delays:8"
    else:
        assert done.returncode != 0
        assert "pre-upgrade hooks failed" in done.stderr
        assert image == "registry.example/delays:7"


def test_autoscaling_takes_over_the_pods_that_are_there(cluster: ApiServer) -> None:
    """An upgrade that only left the number out would go down to one pod."""
    space = cluster.namespace("scaled")
    path = f"/apis/apps/v1/namespaces/{space}/deployments/demo-understudy"
    values = "test: {enabled: false}\nmodel: {image: {repository: m}, replicas: 5}\n"
    install(cluster, space, values)
    scaled = values + "autoscaling: {enabled: true}\n"
    install(cluster, space, scaled)
    assert cluster.get(path)["spec"]["replicas"] == 5
    scale = cluster.get(f"{path}/scale")  # what the autoscaler does
    scale["spec"]["replicas"] = 8
    assert cluster.call("PUT", f"{path}/scale", scale)[0] == 200
    install(cluster, space, scaled + "service: {port: 81}\n")
    assert cluster.get(path)["spec"]["replicas"] == 8
    install(cluster, space, values)
    assert cluster.get(path)["spec"]["replicas"] == 5


def test_hooks_leave_only_the_log_of_the_gate(cluster: ApiServer) -> None:
    space = cluster.namespace("hooks")
    values = MODEL + "test: {enabled: false}\ngate:\n  enabled: true" + PLAN
    install(cluster, space, values)
    stop = threading.Event()
    judge = threading.Thread(target=_finish, args=(cluster, space, "Complete", stop))
    judge.start()
    try:
        install(cluster, space, values, "--timeout", "60s")
    finally:
        stop.set()
        judge.join()
    left = {
        one["metadata"]["name"]
        for path in ("/api/v1/namespaces/{}/configmaps", "/apis/batch/v1/namespaces/{}/jobs",
                     "/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies")
        for one in cluster.get(path.format(space))["items"]
        if "helm.sh/hook" in one["metadata"].get("annotations", {})
    }  # fmt: skip
    assert left == {"demo-understudy-gate"}


def test_notes_warn_of_replicas_that_decide_for_themselves(cluster: ApiServer) -> None:
    space = cluster.namespace("notes")
    experiment = "config: {challengers: [{name: c, url: 'http://c'}], experiments: [{name: e, challengers: [c]}]}\n"  # fmt: skip

    def notes(values: str) -> str:
        return install(cluster, space, values, "--dry-run=server").partition("NOTES:")[2]

    assert "2 replicas run an experiment without an evaluator" in notes(MODEL + experiment)
    assert "several replicas run an experiment" in notes(
        MODEL + experiment + "autoscaling: {enabled: true}"
    )
    assert "without an evaluator" not in notes(MODEL + "evaluator: {enabled: true, createTopics: false}\n" + experiment.replace("config: {", "config: {kafka: {bootstrap: [k:1]}, "))  # fmt: skip
    alone = CASES["one replica"] + "\n" + experiment
    assert "Allow the addresses of\nconfig.challengers in" in notes(alone)
    assert "WARNING" not in notes(alone + "networkPolicy: {egress: [{to: [{podSelector: {}}]}]}")
    assert "WARNING" not in notes(alone + "networkPolicy: {restrictEgress: false}")
    assert "model.external" in notes("model: {external: 'http://m'}")
    assert "http://demo-understudy.notes.svc:80" in notes(MODEL)
    assert "allows scraping of port 9090 from\n- namespaceSelector: {}" in notes(MODEL)


def test_a_chart_of_ones_own(cluster: ApiServer, tmp_path: Path) -> None:
    """The example, with the library as its dependency."""
    folder = tmp_path / "examples" / "kubernetes" / "own-chart"
    for source in (CHART, EXAMPLES / "own-chart"):
        target = tmp_path / source.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-r", str(source), str(target)], check=True)
    done = helm("dependency", "build", str(folder))
    assert done.returncode == 0, done.stderr
    done = helm("lint", "--strict", str(folder), "--kube-version", kubernetes.KUBERNETES[-1])
    assert done.returncode == 0, done.stdout
    space = cluster.namespace("own", **{"pod-security.kubernetes.io/warn": "restricted"})
    done = run(cluster, "install", "delays", str(folder), "-n", space)
    assert done.returncode == 0, done.stderr
    assert "violate" not in done.stderr, done.stderr
    before = token(cluster, space, "delays-understudy-token")
    spec = cluster.get(f"/apis/apps/v1/namespaces/{space}/deployments/delays")["spec"]["template"]
    made = {"apiVersion": "v1", "kind": "Pod", "spec": spec["spec"],
            "metadata": {"name": "one", **spec["metadata"]}}  # fmt: skip
    made["metadata"].pop("creationTimestamp", None)
    pod = cluster.create(f"/api/v1/namespaces/{space}/pods", made)
    assert [c["name"] for c in pod["spec"]["initContainers"]] == [
        "understudy-evaluation",
        "understudy",
    ]
    done = run(cluster, "upgrade", "delays", str(folder), "-n", space, "--set", "replicas=4")
    assert done.returncode == 0, done.stderr
    assert token(cluster, space, "delays-understudy-token") == before
    wrong = helm("template", "x", str(folder), "--kube-version", kubernetes.KUBERNETES[-1], "--set", "understudy.config.chalengers=1")  # fmt: skip
    assert "chalengers" in wrong.stderr


@pytest.mark.parametrize("file", ["deployment.yaml", "injected.yaml"])
def test_plain_examples_are_taken(cluster: ApiServer, file: str) -> None:
    space = cluster.namespace("plain-" + file.partition(".")[0])
    for one in yaml.safe_load_all((EXAMPLES / file).read_text()):
        cluster.create(path_of(cluster, one, space), one)
        for _, pod in pods([one]):
            made = {"apiVersion": "v1", "kind": "Pod", "spec": pod["spec"],
                    "metadata": {"name": "one", **pod["metadata"]}}  # fmt: skip
            cluster.create(f"/api/v1/namespaces/{space}/pods", made, "&dryRun=All")


def test_custom_resources_are_taken(cluster: ApiServer) -> None:
    """Argo Rollouts' and Flagger's, by their own definitions."""
    space = cluster.namespace("custom")
    files = [
        *sorted((ROOT / "deploy" / "argo").glob("*.yaml")),
        *sorted((ROOT / "deploy" / "flagger").glob("*.yaml")),
        *(file for file in sorted(EXAMPLES.glob("*.yaml")) if file.stem in ("argo-rollouts", "flagger")),
    ]  # fmt: skip
    seen = set()
    for file in files:
        for one in yaml.safe_load_all(file.read_text()):
            if file.parent.name == "flagger" and one["kind"] == "Canary":
                continue  # a part of one, which examples/kubernetes has as a whole
            one["metadata"]["name"] += f"-{file.parent.name}" if file.parent != EXAMPLES else ""
            cluster.create(path_of(cluster, one, space), one)
            seen.add(one["kind"])
    assert {"AnalysisTemplate", "Rollout", "Canary", "MetricTemplate"} <= seen
    template = of_kind(
        list(yaml.safe_load_all((ROOT / "deploy/argo/analysis-template.yaml").read_text())),
        "AnalysisTemplate",
    )[0]
    template["spec"]["metrics"][0]["intervall"] = "1s"
    status, _ = cluster.call(
        "POST", path_of(cluster, template, space) + "?fieldValidation=Strict", template
    )
    assert status == 400


@pytest.fixture(scope="module")
def webhook(cluster: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Webhook]:
    """The injector as a process, and the chart's configuration of it in the API server.

    There are no Services in this cluster, so the API server is told its address instead."""
    server = Webhook(tmp_path_factory.mktemp("webhook"))
    (hook,) = of_kind(render("injector"), "MutatingWebhookConfiguration")
    hook = json.loads(json.dumps(hook))
    hook["webhooks"][0]["clientConfig"] = {
        "url": f"https://localhost:{server.port}/inject",
        "caBundle": base64.b64encode((server.tls / "ca.crt").read_bytes()).decode(),
    }
    cluster.create(path_of(cluster, hook, ""), hook)
    try:
        yield server
    finally:
        server.stop()


def test_the_injector_in_the_api_server(cluster: ApiServer, webhook: Webhook) -> None:
    space = cluster.namespace("injected", **{"understudy-injection": "enabled"})
    path = f"/api/v1/namespaces/{space}/pods"
    asked = pod_that(inject="true", config="delays-understudy", token_secret="delays-token")
    probe = {**asked, "metadata": {**asked["metadata"], "name": "probe"}}
    eventually(  # the API server takes up a new webhook in its own time
        lambda: cluster.call("POST", f"{path}?dryRun=All", probe)[1]["spec"].get("initContainers")
    )
    made = cluster.create(path, asked)
    _, sidecar = made["spec"]["initContainers"]
    assert sidecar["name"] == "understudy"
    assert sidecar["restartPolicy"] == "Always"
    assert made["metadata"]["labels"]["understudy/sidecar"] == "injected"
    plain = pod_that()
    plain["metadata"]["name"] = "plain"
    assert "initContainers" not in cluster.create(path, plain)["spec"]
    wrong = pod_that(inject="true")
    wrong["metadata"]["name"] = "wrong"
    status, said = cluster.call("POST", path, wrong)
    assert status == 422
    assert "the annotation understudy/config is required" in said["message"]
    other = cluster.namespace("not-injected")
    made = cluster.create(f"/api/v1/namespaces/{other}/pods", asked)
    assert "initContainers" not in made["spec"], "its namespace has not the label"


def test_an_injector_that_is_away(cluster: ApiServer, webhook: Webhook) -> None:
    """Ignore: the pod starts unwatched. Fail: it does not start. Other pods never depend on it."""
    space = cluster.namespace("away", **{"understudy-injection": "enabled"})
    path = f"/api/v1/namespaces/{space}/pods"
    webhook.stop()
    asked = pod_that(inject="true", config="delays-understudy")
    assert "initContainers" not in cluster.create(path, asked)["spec"]
    hooks = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
    (hook,) = [
        one for one in cluster.get(hooks)["items"]
        if "url" in one["webhooks"][0]["clientConfig"]
    ]  # fmt: skip
    hook["webhooks"][0]["failurePolicy"] = "Fail"
    status, said = cluster.call("PUT", f"{hooks}/{hook['metadata']['name']}", hook)
    assert status == 200, said
    asked["metadata"]["name"] = "second"

    def refused() -> Any:
        status, said = cluster.call("POST", f"{path}?dryRun=All", asked)
        return None if status == 201 else (status, said)

    status, said = eventually(refused)
    assert status == 500
    assert "failed calling webhook" in said["message"]
    plain = pod_that()
    plain["metadata"]["name"] = "plain"
    cluster.create(path, plain)
