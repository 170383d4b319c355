"""What the cluster's node consists of: addresses, files, and the command of each process."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tools.cluster.certificates import Authority, write_key
from tools.parts import debian, kubernetes

ADDRESS = "10.98.0.1"
INTERFACE, BRIDGE = "understudy0", "understudy1"
SERVICES, PODS = "10.96.0.0/16", "10.97.0.0/16"
NODE, DOMAIN = "node", "cluster.local"
PORT = 6443
PAUSE = "localhost/pause:1"
PLUGINS = "/usr/lib/cni"
COMPONENTS = {
    "admin": ("admin", "system:masters"),
    "controllers": ("system:kube-controller-manager", ""),
    "scheduler": ("system:kube-scheduler", ""),
    "kubelet": (f"system:node:{NODE}", "system:nodes"),
    "proxy": ("system:kube-proxy", ""),
    "dns": ("dns", "system:masters"),
}
"""Who talks to the API server: user and group."""


class Node:
    """The files of a node, and how its processes are started.

    Args:
        folder: Where everything of the cluster is kept; must exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def file(self, name: str, content: str | dict[str, Any]) -> Path:
        """Write a file of the node, as YAML (JSON for ``.json``) where it is a mapping."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        if isinstance(content, dict):
            dump = json.dumps if name.endswith((".json", ".conflist")) else yaml.safe_dump
            content = dump(content)
        path.write_text(content)
        return path

    def prepare(self) -> None:
        """Write certificates, access and configurations."""
        authority = Authority(self.folder)
        names = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost")
        authority.sign("apiserver", *names, ADDRESS, "10.96.0.1", "127.0.0.1")
        authority.sign("kubelet", NODE, ADDRESS)
        authority.sign("kubelet-client", group="system:masters")
        write_key(self.folder / "accounts.key")
        tokens = {name: secrets.token_hex(16) for name in COMPONENTS}
        lines = [
            f'{tokens[name]},{user},{user},"{group}"' for name, (user, group) in COMPONENTS.items()
        ]
        self.file("tokens.csv", "\n".join(lines) + "\n")
        for name, token in tokens.items():
            self.file(f"{name}.kubeconfig", self._access(token))
        self.file("kubelet.yaml", self._kubelet())
        self.file("proxy.yaml", self._proxy())
        self.file("containerd.toml", self._containerd())
        self.file("cni/10-bridge.conflist", self._network())
        self.file("Corefile", self._dns())
        self.file("resolv.conf", f"nameserver {ADDRESS}\n")

    def _access(self, token: str) -> dict[str, Any]:
        server = {
            "server": f"https://{ADDRESS}:{PORT}",
            "certificate-authority": str(self.folder / "ca.crt"),
        }
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "cluster", "cluster": server}],
            "users": [{"name": "user", "user": {"token": token}}],
            "contexts": [{"name": "cluster", "context": {"cluster": "cluster", "user": "user"}}],
            "current-context": "cluster",
        }

    def _kubelet(self) -> dict[str, Any]:
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": ADDRESS,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(self.folder / "ca.crt")},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": str(self.folder / "kubelet.crt"),
            "tlsPrivateKeyFile": str(self.folder / "kubelet.key"),
            "cgroupDriver": "cgroupfs",
            "cgroupsPerQOS": True,
            "failCgroupV1": False,
            "failSwapOn": False,
            "featureGates": {"KubeletInUserNamespace": True},
            "clusterDNS": [ADDRESS],
            "clusterDomain": DOMAIN,
            "resolvConf": str(self.folder / "resolv.conf"),
            "containerRuntimeEndpoint": f"unix://{self.folder}/containerd.sock",
            "imageGCHighThresholdPercent": 100,
            "evictionHard": {"memory.available": "100Mi"},
            "podLogsDir": str(self.folder / "pods-logs"),
            "syncFrequency": "2s",
            "configMapAndSecretChangeDetectionStrategy": "Watch",
            "protectKernelDefaults": False,
            "enforceNodeAllocatable": [],
            "oomScoreAdj": 0,
        }

    def _proxy(self) -> dict[str, Any]:
        return {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "iptables",
            "clusterCIDR": PODS,
            "clientConnection": {"kubeconfig": str(self.folder / "proxy.kubeconfig")},
            "conntrack": {"maxPerCore": 0, "min": 0},
            "oomScoreAdj": 0,
            "nodePortAddresses": [f"{ADDRESS}/32"],
            "metricsBindAddress": f"{ADDRESS}:10249",
            "healthzBindAddress": f"{ADDRESS}:10256",
        }

    def _containerd(self) -> str:
        return f"""\
version = 2
root = "{self.folder}/containerd"
state = "/run/understudy-cluster"
[grpc]
  address = "{self.folder}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{PLUGINS}"
    conf_dir = "{self.folder}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
[plugins."io.containerd.internal.v1.opt"]
  path = "{self.folder}/opt"
"""

    @staticmethod
    def _network() -> dict[str, Any]:
        bridge = {
            "type": "bridge",
            "bridge": BRIDGE,
            "isGateway": True,
            "ipMasq": True,
            "hairpinMode": True,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": PODS}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }
        ports = {"type": "portmap", "capabilities": {"portMappings": True}}
        return {"cniVersion": "0.4.0", "name": "cluster", "plugins": [bridge, ports]}

    def _dns(self) -> str:
        return f"""\
.:53 {{
    bind {ADDRESS}
    errors
    kubernetes {DOMAIN} in-addr.arpa {{
        kubeconfig {self.folder}/dns.kubeconfig
        pods insecure
        ttl 2
    }}
    hosts {{
        {ADDRESS} host.{DOMAIN}
        fallthrough
    }}
}}
"""

    def processes(self) -> Iterator[tuple[str, list[str]]]:
        """Name and command of each process, in the order in which they are started."""
        folder = self.folder

        def program(name: str) -> str:
            return str(kubernetes.place(name))

        etcd = debian.find("etcd")
        client = "http://127.0.0.1:12379"
        peer = "http://127.0.0.1:12380"
        yield (
            "etcd",
            [
                str(etcd), "--data-dir", str(folder / "etcd"), "--unsafe-no-fsync",
                "--listen-client-urls", client, "--advertise-client-urls", client,
                "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
                "--initial-cluster", f"default={peer}",
            ],
        )  # fmt: skip
        yield (
            "kube-apiserver",
            [
                program("kube-apiserver"), "--etcd-servers", client,
                "--bind-address", ADDRESS, "--advertise-address", ADDRESS,
                "--secure-port", str(PORT),
                "--tls-cert-file", str(folder / "apiserver.crt"),
                "--tls-private-key-file", str(folder / "apiserver.key"),
                "--client-ca-file", str(folder / "ca.crt"),
                "--kubelet-client-certificate", str(folder / "kubelet-client.crt"),
                "--kubelet-client-key", str(folder / "kubelet-client.key"),
                "--kubelet-preferred-address-types", "InternalIP",
                "--service-cluster-ip-range", SERVICES,
                "--service-account-issuer", f"https://kubernetes.default.svc.{DOMAIN}",
                "--service-account-key-file", str(folder / "accounts.pub"),
                "--service-account-signing-key-file", str(folder / "accounts.key"),
                "--authorization-mode", "Node,RBAC",
                "--enable-admission-plugins", "NodeRestriction",
                "--token-auth-file", str(folder / "tokens.csv"),
                "--allow-privileged",
            ],
        )  # fmt: skip
        yield (
            "kube-controller-manager",
            [
                program("kube-controller-manager"),
                "--kubeconfig", str(folder / "controllers.kubeconfig"),
                "--service-account-private-key-file", str(folder / "accounts.key"),
                "--root-ca-file", str(folder / "ca.crt"),
                "--cluster-signing-cert-file", str(folder / "ca.crt"),
                "--cluster-signing-key-file", str(folder / "ca.key"),
                "--use-service-account-credentials", "--leader-elect=false",
                "--bind-address", ADDRESS, "--node-monitor-grace-period", "20s",
            ],
        )  # fmt: skip
        yield (
            "kube-scheduler",
            [
                program("kube-scheduler"), "--kubeconfig", str(folder / "scheduler.kubeconfig"),
                "--leader-elect=false", "--bind-address", ADDRESS,
            ],
        )  # fmt: skip
        yield (
            "containerd",
            [str(shutil.which("containerd")), "--config", str(folder / "containerd.toml")],
        )
        yield (
            "kubelet",
            [
                program("kubelet"), "--config", str(folder / "kubelet.yaml"),
                "--kubeconfig", str(folder / "kubelet.kubeconfig"),
                "--hostname-override", NODE, "--node-ip", ADDRESS,
                "--root-dir", str(folder / "kubelet"), "--cert-dir", str(folder / "kubelet-certs"),
            ],
        )  # fmt: skip
        yield "kube-proxy", [program("kube-proxy"), "--config", str(folder / "proxy.yaml")]
        yield "coredns", [program("coredns"), "-conf", str(folder / "Corefile")]
