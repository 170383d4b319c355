"""A real API server: etcd and kube-apiserver as processes, without a kubelet or controllers."""

from __future__ import annotations

import json
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.support.patience import patient
from tests.support.ports import free_port
from tools.parts import debian, kubernetes

TOKEN = "admin-of-the-tests"
_PATIENCE = patient(60.0)


class ApiServer:
    """Started by the constructor; :meth:`stop` ends both processes."""

    def __init__(self, folder: Path) -> None:
        program, etcd = kubernetes.need("kube-apiserver"), debian.need("etcd")
        self.folder = folder
        self.port = free_port()
        client, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        self._keys()
        (folder / "tokens.csv").write_text(f'{TOKEN},admin,admin,"system:masters"\n')
        self._processes: list[subprocess.Popen[bytes]] = []
        self._log = (folder / "log").open("wb")
        self._start(
            str(etcd),
            *("--data-dir", str(folder / "etcd"), "--unsafe-no-fsync"),
            *("--listen-client-urls", client, "--advertise-client-urls", client),
            *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
            *("--initial-cluster", f"default={peer}"),
        )
        self._start(
            str(program),
            *("--etcd-servers", client, "--cert-dir", str(folder / "certificates")),
            *("--bind-address", "127.0.0.1", "--secure-port", str(self.port)),
            # Service accounts are signed for, but nothing looks after endpoints.
            *("--endpoint-reconciler-type", "none", "--service-cluster-ip-range", "10.96.0.0/16"),
            *("--service-account-issuer", "https://kubernetes.default.svc"),
            *("--service-account-key-file", str(folder / "sa.pub")),
            *("--service-account-signing-key-file", str(folder / "sa.key")),
            *("--authorization-mode", "RBAC", "--token-auth-file", str(folder / "tokens.csv")),
        )
        self._tls = ssl.create_default_context()
        self._tls.check_hostname, self._tls.verify_mode = False, ssl.CERT_NONE
        self.kubeconfig = folder / "kubeconfig"
        self.kubeconfig.write_text(yaml.safe_dump(self._access()))
        self._wait()

    def _keys(self) -> None:
        key = rsa.generate_private_key(65537, 2048)
        (self.folder / "sa.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        (self.folder / "sa.pub").write_bytes(
            key.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )

    def _access(self) -> dict[str, Any]:
        server = {"server": f"https://127.0.0.1:{self.port}", "insecure-skip-tls-verify": True}
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "tests", "cluster": server}],
            "users": [{"name": "admin", "user": {"token": TOKEN}}],
            "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "admin"}}],
            "current-context": "tests",
        }

    def _start(self, *command: str) -> None:
        self._processes.append(
            subprocess.Popen(
                command, stdout=self._log, stderr=self._log, env=debian.environment(),
                cwd=self.folder,
            )
        )  # fmt: skip

    def _wait(self) -> None:
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            if any(process.poll() is not None for process in self._processes):
                break
            try:
                if self.call("GET", "/readyz?verbose=false")[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.1)
        said = (self.folder / "log").read_text(errors="replace")[-2000:]
        self.stop()
        pytest.fail(f"the API server does not start: {said}")

    def call(
        self, method: str, path: str, body: Any = None, kind: str = "application/json"
    ) -> tuple[int, Any]:
        """Status and answer, which is JSON where it can be."""
        request = urllib.request.Request(
            f"https://127.0.0.1:{self.port}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {TOKEN}", "Content-Type": kind},
        )
        try:
            with urllib.request.urlopen(request, timeout=60, context=self._tls) as answer:
                status, text = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, text = error.code, error.read()
        try:
            return status, json.loads(text)
        except ValueError:
            return status, text.decode(errors="replace")

    def get(self, path: str) -> Any:
        status, found = self.call("GET", path)
        assert status == 200, found
        return found

    def create(self, path: str, one: dict[str, Any], query: str = "") -> Any:
        """POST, which has to succeed without warnings about unknown fields."""
        status, said = self.call("POST", f"{path}?fieldValidation=Strict{query}", one)
        assert status == 201, said
        return said

    def namespace(self, name: str, **labels: str) -> str:
        """A namespace that enforces the restricted standard, with the account that a controller would
        make."""
        marks = {"pod-security.kubernetes.io/enforce": "restricted", **labels}
        self.create("/api/v1/namespaces", {"metadata": {"name": name, "labels": marks}})
        self.create(f"/api/v1/namespaces/{name}/serviceaccounts", {"metadata": {"name": "default"}})
        return name

    def stop(self) -> None:
        """Nothing is worth saving, and an orderly stop takes the API server half a minute."""
        for process in reversed(self._processes):
            process.kill()
            process.wait()
        self._log.close()
