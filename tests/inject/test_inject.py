"""The sidecar in pods that ask for it: the change itself, the webhook over HTTPS, and files."""

from __future__ import annotations

import base64
import copy
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.admission import COMMAND, Webhook, pod, review, sidecar_file
from tests.support.chart import ROOT, helm
from tests.support.documented import blocks
from tests.support.kubernetes_schemas import problems
from understudy.monitor.errors import ConfigError
from understudy.monitor.inject.pod import (
    InjectionRefused,
    Sidecar,
    inject,
    load_sidecar,
    not_injected,
)
from understudy.monitor.inject.review import BadReview, answer

GOOD = {"inject": "true", "config": "delays-understudy", "token_secret": "delays-token"}


@pytest.fixture
def sidecar(tmp_path: Path) -> Sidecar:
    return load_sidecar(sidecar_file(tmp_path))


SIDECAR = ["understudy-evaluation", "understudy"]


def patched(one: dict[str, Any], patch: list[dict[str, Any]]) -> dict[str, Any]:
    """What a JSON Patch makes of an object (RFC 6902: add and replace of members)."""
    made = copy.deepcopy(one)
    for step in patch:
        _, part, key = step["path"].split("/")
        assert (key in made[part]) == (step["op"] == "replace"), step
        made[part][key] = step["value"]
    return made


def test_a_pod_gets_the_sidecar_of_the_chart(sidecar: Sidecar) -> None:
    before = pod(**GOOD)
    kept = copy.deepcopy(before)
    after, model, warnings = inject(before, sidecar)
    assert (model, warnings) == ("model", ())
    assert before == kept, "a copy is changed"
    assert [c["name"] for c in after["spec"]["initContainers"]] == SIDECAR
    for container in after["spec"]["initContainers"]:
        assert container["restartPolicy"] == "Always"
        assert container["securityContext"]["runAsUser"] == 65532
        assert container["env"][0]["valueFrom"]["secretKeyRef"] == {"name": "delays-token", "key": "token"}  # fmt: skip
    volumes = {volume["name"]: volume for volume in after["spec"]["volumes"]}
    assert volumes["understudy-config"]["configMap"] == {"name": "delays-understudy"}
    assert after["spec"]["containers"][0]["lifecycle"]["preStop"] == {"sleep": {"seconds": 30}}
    assert after["spec"]["terminationGracePeriodSeconds"] == 65
    assert after["metadata"]["labels"] == {"app": "delays", "understudy/sidecar": "injected"}
    assert not problems(after)
    for one, reason in [(after, "already"), (pod(), "no annotation"), (pod(inject="yes"), '"yes"')]:
        skipped = not_injected(one)
        assert skipped is not None
        assert reason in skipped.text
        assert skipped.present == (one is after)


def test_settings_of_the_pod_are_kept(sidecar: Sidecar) -> None:
    one = pod(**GOOD, container="second")
    one["spec"]["initContainers"] = [{"name": "fetch", "image": "f"}]
    second = {"name": "second", "image": "s", "lifecycle": {"preStop": {"sleep": {"seconds": 1}}}}
    one["spec"]["containers"].append(second)
    one["spec"]["terminationGracePeriodSeconds"] = 600
    one["spec"]["volumes"] = [{"name": "mine", "emptyDir": {}}]
    result = inject(one, sidecar)
    (warning,) = result.warnings
    assert '\'second\' keeps its own preStop {"sleep": {"seconds": 1}}' in warning
    assert answer(review(one), sidecar)["response"]["warnings"] == [f"understudy: {warning}"]
    after = result.pod["spec"]
    assert [c["name"] for c in after["initContainers"]] == ["fetch", *SIDECAR]
    assert after["containers"][1] == second
    assert "lifecycle" not in after["containers"][0]
    assert after["terminationGracePeriodSeconds"] == 600
    assert after["volumes"][0] == {"name": "mine", "emptyDir": {}}
    without = inject(pod(inject="true", config="c"), sidecar).pod["spec"]["initContainers"][0]
    assert not [env for env in without["env"] if env["name"] == "UNDERSTUDY_TOKEN"]


def test_the_image_can_be_pulled_in_every_namespace(tmp_path: Path) -> None:
    values = "imagePullSecrets: [{name: registry}, {name: mirror}]"
    sidecar = load_sidecar(sidecar_file(tmp_path, values))
    after = inject(pod(**GOOD), sidecar).pod["spec"]
    assert after["imagePullSecrets"] == [{"name": "registry"}, {"name": "mirror"}]
    one = pod(**GOOD)
    one["spec"]["imagePullSecrets"] = [{"name": "mine"}, {"name": "mirror"}]
    names = [secret["name"] for secret in inject(one, sidecar).pod["spec"]["imagePullSecrets"]]
    assert names == ["mine", "mirror", "registry"]


def test_a_named_port_routes_through_the_sidecar(sidecar: Sidecar) -> None:
    after = inject(pod(**GOOD, port="http"), sidecar).pod["spec"]
    assert after["containers"][0]["ports"] == [{"containerPort": 8081}]
    assert (
        after["initContainers"][1]["ports"][0] | {"name": "http", "containerPort": 8080}
        == (after["initContainers"][1]["ports"][0])
    )


@pytest.mark.parametrize(
    ("annotations", "change", "said"),
    [
        ({"inject": "true"}, {}, "understudy/config is required"),
        ({**GOOD, "container": "x"}, {}, "no container 'x'"),
        ({**GOOD, "port": "grpc"}, {}, "no port named 'grpc'"),
        (GOOD, {"containers": [{"name": "istio-proxy"}]}, r"istio-proxy.*understudy/container"),
        (GOOD, {"containers": [{"image": "i"}]}, "every container needs a name"),
        (GOOD, {"shareProcessNamespace": True}, "shareProcessNamespace"),
        (GOOD, {"volumes": [{"name": "understudy-tmp", "emptyDir": {}}]}, "understudy-tmp"),
        (
            GOOD,
            {"containers": [{"name": "m", "ports": [{"containerPort": 9090}]}]},
            "port 9090 of the container 'm'",
        ),
    ],
)
def test_impossible_injections_are_rejected_with_the_reason(
    sidecar: Sidecar, annotations: dict[str, str], change: dict[str, Any], said: str
) -> None:
    one = pod(**annotations)
    one["spec"] |= change
    with pytest.raises(InjectionRefused, match=said):
        inject(one, sidecar)
    response = answer(review(one), sidecar)["response"]
    assert response["allowed"] is False
    assert re.search(said, response["status"]["message"])
    assert response["uid"] == "7d1c"


def test_bodies_that_are_not_reviews_are_rejected(sidecar: Sidecar) -> None:
    bodies: list[Any] = [[], {}, {"kind": "AdmissionReview"}, review({"kind": "Node"})]
    for wrong in (*bodies, {"request": 3}):
        with pytest.raises(BadReview):
            answer(wrong, sidecar)


def test_an_invalid_sidecar_file_is_rejected(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    for text in ("", "[]", "a: [", "initContainers: []\nvolumes: []\nlifecycle: {}\n"
                 "terminationGracePeriodSeconds: 1"):  # fmt: skip
        file.write_text(text)
        with pytest.raises(ConfigError):
            load_sidecar(file)
    with pytest.raises(ConfigError, match=r"cannot be read"):
        load_sidecar(tmp_path / "away")


@pytest.fixture(scope="module")
def webhook(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Webhook]:
    server = Webhook(tmp_path_factory.mktemp("webhook"))
    yield server
    assert server.stop() == 0


def test_the_webhook_answers_over_https(webhook: Webhook) -> None:
    one = pod(**GOOD)
    status, said = webhook.call("/inject", review(one))
    assert status == 200
    assert said["response"]["allowed"] is True
    patch = json.loads(base64.b64decode(said["response"]["patch"]))
    after = patched(one, patch)
    assert [c["name"] for c in after["spec"]["initContainers"]] == SIDECAR
    assert not problems(after)
    bare = webhook.call("/inject", review(pod()))[1]["response"]
    assert bare == {"uid": "7d1c", "allowed": True}
    for body in (b"", b"[", b"{}", json.dumps(review({"kind": "Node"})).encode()):
        assert webhook.call("/inject", body)[0] == 400
    assert webhook.call("/inject", b" " * (17 << 20))[0] == 413


def test_a_renewed_certificate_is_loaded(tmp_path: Path) -> None:
    import os
    import ssl

    from tests.support.certificates import tls_secret
    from understudy.monitor.inject.server import Server

    sidecar = load_sidecar(sidecar_file(tmp_path))
    tls_secret(tmp_path, "first.example")
    server = Server(sidecar, "127.0.0.1", 0, tmp_path / "tls.crt", tmp_path / "tls.key")
    before = server.renew((0.0, 0.0))
    assert server.renew(before) == before
    tls_secret(tmp_path, "second.example")
    os.utime(tmp_path / "tls.crt", (1, 1))
    after = server.renew(before)
    assert after != before

    def handshake() -> str:
        """The name in the certificate that the server's context now shows."""
        inward, outward = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))
        client = context.wrap_bio(inward, outward, server_hostname="second.example")
        theirs = server._config.ssl
        assert theirs is not None
        other = theirs.wrap_bio(outward, inward, server_side=True)
        for _ in range(10):
            for side in (client, other):
                try:
                    side.do_handshake()
                except ssl.SSLWantReadError:
                    pass
        return str(client.getpeercert()["subject"])  # type: ignore[index]

    assert "second.example" in handshake()
    (tmp_path / "tls.crt").write_text("no certificate")
    assert server.renew(after) == after, "a broken one is logged, and the old one stays"
    assert "second.example" in handshake()


def run(
    sidecar: Path, text: str, *options: str, file: str = "-"
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "file", file, "--sidecar", str(sidecar), *options],
        input=text, capture_output=True, text=True,
    )  # fmt: skip


def deployment(name: str, *containers: dict[str, Any], **annotations: Any) -> dict[str, Any]:
    asked = {f"understudy/{key}": value for key, value in annotations.items()}
    return {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": {"a": "b"}},
            "template": {
                "metadata": {"labels": {"a": "b"}, "annotations": asked},
                "spec": {"containers": list(containers)},
            },
        },
    }  # fmt: skip


ASKS = {"inject": "true", "config": "cfg"}
MESH: list[dict[str, Any]] = [
    {"name": "linkerd-proxy", "image": "l", "ports": [{"name": "linkerd", "containerPort": 4143}]},
    {"name": "istio-proxy", "image": "i"},
]


@pytest.mark.parametrize(
    ("containers", "annotations", "right"),
    [
        ([*MESH, {"name": "model"}], {}, "model"),
        ([{"name": "logs"}, *MESH, {"name": "m", "ports": [{"containerPort": 8081}]}], {}, "m"),
        (
            [{"name": "logs"}, {"name": "m", "ports": [{"name": "http", "containerPort": 7}]}],
            {"understudy/port": "http"},
            "m",
        ),
        (
            [{"name": "logs"}, {"name": "m"}],
            {"kubectl.kubernetes.io/default-container": "m"},
            "m",
        ),
        ([*MESH, {"name": "model"}], {"understudy/container": "istio-proxy"}, "istio-proxy"),
    ],
)
def test_the_drain_hook_is_on_the_model_whatever_stands_first(
    sidecar: Sidecar, containers: list[dict[str, Any]], annotations: dict[str, str], right: str
) -> None:
    one = pod(**GOOD)
    one["metadata"]["annotations"] |= annotations
    one["spec"]["containers"] = copy.deepcopy(containers)
    result = inject(one, sidecar)
    hooked = [c["name"] for c in result.pod["spec"]["containers"] if "lifecycle" in c]
    assert [result.model] == hooked == [right]


def test_a_mesh_stands_first_and_the_model_has_a_hook(tmp_path: Path) -> None:
    """The field's Deployment: its own preStop is kept, and named."""
    hook = {"exec": {"command": ["sleep", "1"]}}
    model = {"name": "model", "image": "m", "args": ["--port", "8081"]}
    before = deployment("d", MESH[1], {**model, "lifecycle": {"preStop": hook}}, **ASKS)
    done = run(sidecar_file(tmp_path), yaml.safe_dump(before))
    assert done.returncode == 0, done.stderr
    after = yaml.safe_load(done.stdout)["spec"]["template"]["spec"]
    assert after["containers"] == before["spec"]["template"]["spec"]["containers"]
    assert [c["name"] for c in after["initContainers"]] == SIDECAR
    assert "Deployment d: injected; the model server is 'model'" in done.stderr
    assert f"'model' keeps its own preStop {json.dumps(hook)}" in done.stderr


def test_lists_and_streams_come_back_whole(tmp_path: Path) -> None:
    """Objects that do not change are byte for byte the same; others keep every value."""
    sidecar = sidecar_file(tmp_path)
    plain = """\
# Source: chart/templates/other.yaml
kind: ConfigMap
metadata: {name: c, annotations: {since: 2024-01-31}}
data:
  operator: =
  keep: |+
    a

  ports: 22:22
"""
    marks = {"since": "2024-01-31", "sha": "12e5678", "y": "y", "no": "no", "mode": "0440"}
    one = deployment("listed", {"name": "model", "image": "m:1"}, **ASKS)
    one["metadata"]["annotations"] = marks
    listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": [{"kind": "Other"}, one]})
    listed = listed.replace('"2024-01-31"', "2024-01-31").replace("m:1", "m:\u200b1") + "\n"
    windows = plain.replace("\n", "\r\n")
    done = run(sidecar, f"---\n{windows}---\n# nothing\n---\n{listed}---\n{plain}", "--require")
    assert done.returncode == 0, done.stderr
    first, second, third = done.stdout.split("---\n")
    assert first == third == plain
    items = yaml.safe_load(second)["items"]
    assert items[0] == {"kind": "Other"}
    assert items[1]["metadata"]["annotations"] == marks
    for key in ("12e5678", "y", "no", "0440"):
        assert f'"{key}"' in second or f"'{key}'" in second, "quoted for readers of YAML 1.2, too"
    spec = items[1]["spec"]["template"]["spec"]
    assert spec["containers"][0]["image"] == "m:\u200b1"
    assert [c["name"] for c in spec["initContainers"]] == SIDECAR
    again = run(sidecar, done.stdout, "--require")
    assert (again.returncode, again.stdout) == (0, done.stdout), "it has the sidecar already"
    assert "Deployment listed: skipped: has the sidecar already" in again.stderr


def test_what_was_skipped_is_printed_and_nothing_injected_can_fail(tmp_path: Path) -> None:
    sidecar = sidecar_file(tmp_path)
    misplaced = deployment("misplaced", {"name": "m"})
    misplaced["metadata"]["annotations"] = {"understudy/inject": "true"}
    job = {"kind": "CronJob", "metadata": {"name": "j"}, "spec": {"jobTemplate": misplaced | {"metadata": {}}}}  # fmt: skip
    text = yaml.safe_dump_all(
        [deployment("quiet", {"name": "m"}), misplaced, job, {"kind": "Service"},
         deployment("unquoted", {"name": "m"}, **{**ASKS, "inject": True})]
    )  # fmt: skip
    done = run(sidecar, text)
    assert (done.returncode, done.stdout) == (0, text)
    for line in (
        "Deployment quiet: skipped: no annotation understudy/inject",
        "Deployment misplaced: skipped: no annotation",
        "Deployment misplaced: warning: understudy/inject is an annotation of the object",
        "CronJob j: skipped",
        'Deployment unquoted: skipped: understudy/inject is true; write "true", in quotes',
        "0 injected",
    ):
        assert line in done.stderr, line
    done = run(sidecar, text, "--require")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no pod has the sidecar" in done.stderr
    assert run(sidecar, "", "--require").returncode == 1
    for wrong, reason in [
        ("a: [1\n", "line 2, column 1: not valid YAML: a ',' or a closing bracket is missing"),
        ("kind: A\n---\na: b: c\n", "line 3, column 5: not valid YAML: a ': ' does not fit here"),
        ("kind: A\n---\nNo resources\n", "line 3: not a Kubern"),
    ]:
        done = run(sidecar, wrong)
        assert done.returncode == 2
        assert f"stdin: {reason}" in done.stderr


def test_helm_runs_it_as_a_post_renderer(tmp_path: Path) -> None:
    """The words of docs/kubernetes.md, with Helm itself; and the pipe of kustomize."""
    (block,) = blocks("kubernetes.md", "The injector", "sh")
    upgrade, pipe = block.replace("\\\n", " ").strip().splitlines()
    words = shlex.split(upgrade)
    assert words[:3] == ["helm", "upgrade", "--install"]
    sidecar_file(tmp_path)
    chart = tmp_path / "delays-chart" / "templates"
    chart.mkdir(parents=True)
    (chart.parent / "Chart.yaml").write_text("{apiVersion: v2, name: delays, version: 1.0.0}")
    manifest = (ROOT / "examples" / "kubernetes" / "injected.yaml").read_text()
    (chart / "all.yaml").write_text(manifest)
    program = Path(sys.executable).parent
    environment = {"PATH": f"{program}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    done = helm("template", *words[3:], cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    (found,) = [one for one in yaml.safe_load_all(done.stdout) if one["kind"] == "Deployment"]
    assert [c["name"] for c in found["spec"]["template"]["spec"]["initContainers"]] == SIDECAR

    stages = [shlex.split(stage) for stage in pipe.split("|")]
    assert [stage[0] for stage in stages] == ["kustomize", "understudy", "kubectl"]
    assert stages[1][:4] == ["understudy", "inject", "file", "-"]
    done = subprocess.run(
        [program / "understudy", *stages[1][1:]], cwd=tmp_path, input=manifest, capture_output=True, text=True
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("restartPolicy: Always") == len(SIDECAR)


def test_files(tmp_path: Path) -> None:
    sidecar = sidecar_file(tmp_path)
    manifest = ROOT / "examples" / "kubernetes" / "injected.yaml"
    done = subprocess.run(
        [*COMMAND, "file", str(manifest), "--sidecar", str(sidecar)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    objects = list(yaml.safe_load_all(done.stdout))
    assert [one["kind"] for one in objects] == ["ConfigMap", "Deployment", "Service"]
    assert all(not problems(one) for one in objects)
    spec = objects[1]["spec"]["template"]["spec"]
    assert [c["name"] for c in spec["initContainers"]] == SIDECAR
    assert objects[0] == next(yaml.safe_load_all(manifest.read_text()))
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(manifest.read_text().replace("understudy/config:", "understudy/confg:"))
    done = subprocess.run(
        [*COMMAND, "file", str(wrong), "--sidecar", str(sidecar), "--json"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert "Deployment delays: the annotation understudy/config is required" in done.stderr
    cron = {"kind": "CronJob", "metadata": {}, "spec": {"jobTemplate": {"spec": {"template": pod(**GOOD)}}}}  # fmt: skip
    wrong.write_text(yaml.safe_dump_all([cron, pod(**GOOD), {"kind": "Other"}]))
    done = subprocess.run(
        [*COMMAND, "file", str(wrong), "--sidecar", str(sidecar), "--json"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.count("65532") == 2 * 2 * len(SIDECAR)
    assert "2 injected" in done.stderr
