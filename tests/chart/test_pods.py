"""Rendered pods, run: their commands, files, environment, probes and hooks, by `kubelet.py`."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.chart import ROOT, named, of_kind, pods, render
from tests.support.patience import eventually, patient

NAMESPACES = ["unshare", "--map-root-user", "--mount", "--net", "--pid", "--fork", "--kill-child",
              "--mount-proc"]  # fmt: skip
SERVER = ROOT / "tests" / "support" / "model_server.py"
# It is process 1 of its container, which SIGTERM does nothing to unless it says so.
AS_FIRST = (
    "import runpy, signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); "
    "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
)
SERVES = f"""
model:
  image: {{repository: m}}
  command: [python, -c, "{AS_FIRST}", {SERVER}, "8081"]
config: {{models: [{{name: delays}}], workers: 1}}
service: {{port: 8080, controlPort: 9090}}
"""
PLAN = """
  plan:
    objectives: {p50: 20s, errors: 20 %}
    payloads: {path: /v2/models/delays/infer, count: 20, template: {inputs: [{name: x, shape: [1, 2], datatype: FP64, data: {$vector: 2}}]}}
    stages: [{name: steady, load: {rate: 60, seconds: 2}}]
"""
BODY = '{"inputs": [{"name": "x", "shape": [1, 1], "datatype": "FP64", "data": [1.0]}]}'


class Running:
    """Pods of one rendering, in a separate network."""

    def __init__(self, folder: Path, manifests: list[dict[str, Any]], *names: str) -> None:
        if shutil.which("unshare") is None or subprocess.run([*NAMESPACES, "true"]).returncode:
            pytest.skip("NOT TESTED: pods as processes need user namespaces")
        data = {
            (one["kind"], one["metadata"]["name"]): one["data"]
            for one in manifests
            if one["kind"] in ("ConfigMap", "Secret")
        }
        secrets = {
            name: {key: base64.b64decode(value).decode() for key, value in found.items()}
            for (kind, name), found in data.items()
            if kind == "Secret"
        }
        self.token = secrets.get("demo-understudy-token", {}).get("token", "")
        by_name = dict(pods(manifests))
        given = []
        for name in names:
            spec = by_name[name]["spec"]
            files = {}
            for volume in spec["volumes"]:
                if "configMap" in volume:
                    files[volume["name"]] = data["ConfigMap", volume["configMap"]["name"]]
                elif "secret" in volume:
                    files[volume["name"]] = secrets[volume["secret"]["secretName"]]
            given.append(
                {"name": name.replace("/", "-"), "spec": spec, "files": files, "secrets": secrets}
            )
        hosts = [one["metadata"]["name"] for one in of_kind(manifests, "Service")]
        hosts += [f"{host}.serving.svc" for host in hosts]
        file = folder / "pods.json"
        file.write_text(json.dumps({"folder": str(folder), "hosts": hosts, "pods": given}))
        self.process = subprocess.Popen(
            [*NAMESPACES, sys.executable, "-m", "tests.support.kubelet", str(file)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip

    def __enter__(self) -> Running:
        self.do("start")
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(patient(30))

    def do(self, what: str, **more: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"do": what, **more}) + "\n")
        self.process.stdin.flush()
        said: dict[str, Any] = json.loads(self.process.stdout.readline())
        assert "wrong" not in said, said["wrong"]
        return said

    def python(self, code: str, *arguments: str) -> str:
        done = self.do("run", command=[sys.executable, "-c", code, *arguments])
        assert done["code"] == 0, done["error"]
        return str(done["out"]).strip()


ASK = """
import json, sys, urllib.error, urllib.request
url, body, token = sys.argv[1:4]
headers = {"Content-Type": "application/json"}
if token:
    headers["Authorization"] = "Bearer " + token
request = urllib.request.Request(url, data=body.encode() if body else None, headers=headers)
if url.endswith("reload"):
    request.method = "POST"
try:
    with urllib.request.urlopen(request, timeout=60) as answer:
        print(answer.status, answer.read().decode())
except urllib.error.HTTPError as error:
    print(error.code, error.read().decode())
"""
GO_ON = """
import http.client, json, sys
good, bad = 0, []
while True:
    connection = http.client.HTTPConnection("127.0.0.1", 8080, timeout=90)
    try:
        connection.connect()
        connection.request("POST", "/v2/models/delays/infer", sys.argv[1])
        status = connection.getresponse().status
    except ConnectionRefusedError:
        break
    except (OSError, http.client.HTTPException) as error:
        status = repr(error)
    connection.close()
    good, bad = (good + 1, bad) if status == 200 else (good, bad + [status])
    if good == 20:
        print("begun", flush=True)
print(json.dumps([good, bad]))
"""


def test_a_pod_serves_and_ends_without_a_lost_request(tmp_path: Path) -> None:
    values = SERVES + (
        "sidecar: {readyPath: /v2/health/ready, drain: {delaySeconds: 1, seconds: 3, modelSeconds: 9}}"
    )
    names = ("Deployment/demo-understudy", "Pod/demo-understudy-test")
    with Running(tmp_path, render(values), *names) as pod:
        tried = pod.do("wait", pod="Pod-demo-understudy-test")  # helm test, by the Service's name
        assert tried["codes"] == {"ready": 0}, tried["log"]
        assert '"ready":true' in tried["log"].replace(" ", "")
        for _ in range(3):
            said = pod.python(ASK, "http://127.0.0.1:8080/v2/models/delays/infer", BODY, "")
            assert said.startswith("200 "), said
        metrics = "http://demo-understudy.serving.svc:9090/metrics"
        eventually(
            lambda: (
                'requests_total{arm="champion",model="delays"' in pod.python(ASK, metrics, "", "")
            )
        )
        assert pod.python(ASK, "http://127.0.0.1:9090/v1/config/reload", "", "").startswith("401 ")
        assert pod.python(ASK, "http://127.0.0.1:9090/v1/config/reload", "", "x").startswith("403 ")
        said = pod.python(ASK, "http://127.0.0.1:9090/v1/config/reload", "", pod.token)
        assert said.startswith("200 "), said
        pod.do("background", command=[sys.executable, "-c", GO_ON, BODY])
        ended = pod.do("stop")
        codes = ended["codes"]["Deployment-demo-understudy"]
        assert codes["understudy"] == 0, codes
        assert codes["model"] == 0, codes
        good, bad = json.loads(ended["said"][0])
        assert good >= 20
        assert bad == [], "the model server was there until the last request"


@pytest.mark.parametrize(("mode", "code"), [("right", 0), ("half", 1), ("drop", 2)])
def test_the_gate_gives_its_verdict_by_its_exit_code(tmp_path: Path, mode: str, code: int) -> None:
    values = SERVES.replace('"8081"]', f'"8081", {mode}]') + "gate:\n  enabled: true" + PLAN
    manifests = render(values)
    # A Job's pod, whose sidecars end with its container.
    with Running(tmp_path, manifests, "Job/demo-understudy-gate") as pod:
        ended = pod.do("wait", pod="Job-demo-understudy-gate")
        assert ended["codes"]["gate"] == code, ended["log"]
        assert ended["codes"]["understudy"] == 0
        assert "killed" not in ended["codes"].values()


def test_locust_runs_distributed(tmp_path: Path) -> None:
    values = SERVES + (
        "locust: {enabled: true, mode: run, workers: 1, users: 1, rate: 20, runTime: 6s,"
        " path: /v2/models/delays/infer}"
    )
    manifests = render(values)
    names = (
        "Deployment/demo-understudy",
        "Job/demo-understudy-locust-r1",
        "Job/demo-understudy-locust-worker-r1",
    )
    with Running(tmp_path, manifests, *names) as pod:
        ended = pod.do("wait", pod="Job-demo-understudy-locust-r1")
        assert ended["codes"] == {"locust": 0}, ended["log"]
        assert "POST" in ended["log"]
        assert "/v2/models/delays/infer" in ended["log"]


def test_the_injector_of_the_chart_answers_with_its_certificate(tmp_path: Path) -> None:
    """The certificate that Helm makes is one that the API server would accept."""
    manifests = render("model: {enabled: false}\ninjector: {enabled: true}")
    authority = base64.b64decode(
        named(manifests, "Secret", "demo-understudy-injector")["data"]["ca.crt"]
    )
    (hook,) = of_kind(manifests, "MutatingWebhookConfiguration")
    assert base64.b64decode(hook["webhooks"][0]["clientConfig"]["caBundle"]) == authority
    ask = """
import ssl, sys, urllib.request
context = ssl.create_default_context(cadata=sys.argv[2])
print(urllib.request.urlopen(sys.argv[1], context=context, timeout=60).read().decode())
"""
    with Running(tmp_path, manifests, "Deployment/demo-understudy-injector") as pod:
        url = "https://demo-understudy-injector.serving.svc:8443/healthz"
        assert pod.python(ask, url, authority.decode()) == '{"status":"ok"}'
        assert pod.do("stop")["codes"] == {"Deployment-demo-understudy-injector": {"injector": 0}}
