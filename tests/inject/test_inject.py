"""The sidecar in pods that ask for it: the change itself, the webhook over HTTPS, and files."""

from __future__ import annotations

import base64
import copy
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.admission import COMMAND, Webhook, pod, review, sidecar_file
from tests.support.chart import ROOT
from tests.support.kubernetes_schemas import problems
from understudy.monitor.errors import ConfigError
from understudy.monitor.inject.pod import InjectionRefused, Sidecar, asks, inject, load_sidecar
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
    after = inject(before, sidecar)
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
    assert not asks(after), "once is enough"
    assert not asks(pod())
    assert not asks(pod(inject="yes"))


def test_settings_of_the_pod_are_kept(sidecar: Sidecar) -> None:
    one = pod(**GOOD, container="second")
    one["spec"]["initContainers"] = [{"name": "fetch", "image": "f"}]
    second = {"name": "second", "image": "s", "lifecycle": {"preStop": {"sleep": {"seconds": 1}}}}
    one["spec"]["containers"].append(second)
    one["spec"]["terminationGracePeriodSeconds"] = 600
    one["spec"]["volumes"] = [{"name": "mine", "emptyDir": {}}]
    after = inject(one, sidecar)["spec"]
    assert [c["name"] for c in after["initContainers"]] == ["fetch", *SIDECAR]
    assert after["containers"][1] == second
    assert "lifecycle" not in after["containers"][0]
    assert after["terminationGracePeriodSeconds"] == 600
    assert after["volumes"][0] == {"name": "mine", "emptyDir": {}}
    without = inject(pod(inject="true", config="c"), sidecar)["spec"]["initContainers"][0]
    assert not [env for env in without["env"] if env["name"] == "UNDERSTUDY_TOKEN"]


def test_the_image_can_be_pulled_in_every_namespace(tmp_path: Path) -> None:
    values = "imagePullSecrets: [{name: registry}, {name: mirror}]"
    sidecar = load_sidecar(sidecar_file(tmp_path, values))
    after = inject(pod(**GOOD), sidecar)["spec"]
    assert after["imagePullSecrets"] == [{"name": "registry"}, {"name": "mirror"}]
    one = pod(**GOOD)
    one["spec"]["imagePullSecrets"] = [{"name": "mine"}, {"name": "mirror"}]
    names = [secret["name"] for secret in inject(one, sidecar)["spec"]["imagePullSecrets"]]
    assert names == ["mine", "mirror", "registry"]


def test_a_named_port_routes_through_the_sidecar(sidecar: Sidecar) -> None:
    after = inject(pod(**GOOD, port="http"), sidecar)["spec"]
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
    assert said in response["status"]["message"]
    assert response["uid"] == "7d1c"


def test_bodies_that_are_not_reviews_are_rejected(sidecar: Sidecar) -> None:
    for wrong in ([], {}, {"kind": "AdmissionReview"}, review({"kind": "Node"}), {"request": 3}):
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
