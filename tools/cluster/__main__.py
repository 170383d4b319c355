"""Start, use and stop a Kubernetes cluster of one node: ``python -m tools.cluster up`` (see README.md)."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click

from tools.cluster.node import ADDRESS, BRIDGE, INTERFACE, NODE, PAUSE, PLUGINS, Node
from tools.parts import containers, debian, kubernetes
from tools.parts.golang import Unavailable, go

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".cluster"
_PATIENCE = 180.0
"""Seconds until the node is ready; a quiet machine needs twenty."""
_PAUSE = """\
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGINT, syscall.SIGTERM)
	<-asked
}
"""


def _run(*command: str, check: bool = True) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if check and done.returncode:
        raise click.ClickException(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def _kubectl(*arguments: str, check: bool = True) -> str:
    program = str(kubernetes.place("kubectl"))
    return _run(program, f"--kubeconfig={FOLDER / 'admin.kubeconfig'}", *arguments, check=check)


def _ctr(*arguments: str) -> list[str]:
    return ["ctr", f"--address={FOLDER / 'containerd.sock'}", "--namespace=k8s.io", *arguments]


def _missing() -> list[str]:
    """What has to be installed or built before a cluster can start."""
    programs = [*kubernetes.PROGRAMS, "coredns"]
    wanted = [name for name in programs if not kubernetes.place(name).exists()]
    wanted += [name for name in ("containerd", "ctr", "runc", "iptables") if not shutil.which(name)]
    if debian.find("etcd") is None:
        wanted.append("etcd")
    if not Path(PLUGINS, "bridge").exists():
        wanted.append("containernetworking-plugins")
    return wanted


@click.group()
def main() -> None:
    """A Kubernetes cluster of one node on this machine, for tests."""


@main.command()
def up() -> None:
    """Start the cluster, and wait until its node is ready."""
    if os.geteuid() != 0:
        raise click.ClickException("a cluster needs root")
    if _processes():
        raise click.ClickException(f"a cluster runs already ({FOLDER}): stop it with `down`")
    missing = _missing()
    if missing:
        raise click.ClickException(
            f"missing: {', '.join(missing)}. `python -m tools.parts.kubernetes cluster` builds programs of "
            "Kubernetes; the rest are packages of Debian"
        )
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(mode=0o700)
    node = Node(FOLDER)
    node.prepare()
    _run("ip", "link", "add", INTERFACE, "type", "bridge", check=False)
    _run("ip", "addr", "replace", f"{ADDRESS}/32", "dev", INTERFACE)
    _run("ip", "link", "set", INTERFACE, "up")
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    pids = {}
    began = time.monotonic()
    for name, command in node.processes():
        pids[name] = _start(name, command)
        (FOLDER / "pids.json").write_text(json.dumps(pids))
        if name == "kube-apiserver":
            _until(lambda: _kubectl("get", "--raw=/readyz", check=False) == "ok", "API server")
        if name == "containerd":
            _until((FOLDER / "containerd.sock").exists, "containerd")
            _load_pause()
    _until(lambda: "True" in _ready(), "node")
    click.echo(
        f"ready after {time.monotonic() - began:.0f} s; KUBECONFIG={FOLDER}/admin.kubeconfig"
    )


def _start(name: str, command: list[str]) -> tuple[int, str]:
    with (FOLDER / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            cwd=FOLDER,
            env={**debian.environment(), "PATH": f"/usr/sbin:/sbin:{os.environ['PATH']}"},
            start_new_session=True,
        )
    return process.pid, _status(process.pid)[1]


def _ready() -> str:
    wanted = '{.status.conditions[?(@.type=="Ready")].status}'
    return _kubectl("get", "node", NODE, f"-o=jsonpath={wanted}", check=False)


def _until(check: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + _PATIENCE
    while not check():
        ended = [name for name, alive in _processes().items() if not alive]
        if ended or time.monotonic() > until:
            logs = "\n".join(f"{name}: {_tail(name)}" for name in ended)
            raise click.ClickException(f"the {what} does not get ready. {logs} (logs: {FOLDER})")
        time.sleep(0.2)


def _load_pause() -> None:
    """Every pod has a container that holds its network, of a program that does nothing."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "pause.go"
        source.write_text(_PAUSE)
        environment = {"CGO_ENABLED": "0"}
        try:
            go(
                "build", "-ldflags=-s -w", "-o", str(Path(folder) / "pause"), str(source),
                timeout=600, environment=environment,
            )  # fmt: skip
        except Unavailable as error:
            raise click.ClickException(f"the pause image cannot be built: {error}") from error
        Path(folder, "Dockerfile").write_text(
            'FROM scratch\nCOPY pause /pause\nUSER 65535:65535\nENTRYPOINT ["/pause"]\n'
        )
        containers.podman("build", f"--tag={PAUSE}", folder)
    _load(PAUSE)


def _load(image: str) -> None:
    saved = subprocess.Popen(
        ["podman", "save", "--format=docker-archive", image],
        stdout=subprocess.PIPE,
        env=containers.settings(),
    )
    done = subprocess.run(_ctr("images", "import", "-"), stdin=saved.stdout, capture_output=True)
    if saved.wait() or done.returncode:
        raise click.ClickException(f"{image} cannot be loaded: {done.stderr.decode().strip()}")


@main.command()
@click.argument("images", nargs=-1, required=True)
def load(images: tuple[str, ...]) -> None:
    """Copy IMAGES from podman's store to the node's."""
    for image in images:
        _load(image)


def _pids() -> dict[str, tuple[int, str]]:
    """The cluster's processes by name: identifier, and when each started."""
    try:
        kept = json.loads((FOLDER / "pids.json").read_text())
    except FileNotFoundError:
        return {}
    return {name: (pid, began) for name, (pid, began) in kept.items()}


def _processes() -> dict[str, bool]:
    """The cluster's processes by name, and whether each runs."""
    return {name: _runs(*process) for name, process in _pids().items()}


def _status(pid: int) -> tuple[str, str]:
    """State of a process, and its start in ticks since the machine's; empty if there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "", ""
    return fields[0], fields[19]


def _runs(pid: int, began: str) -> bool:
    state, start = _status(pid)
    return start == began and state != "Z"


def _tail(name: str) -> str:
    lines = (FOLDER / f"{name}.log").read_text(errors="replace").splitlines()
    return "\n".join(lines[-3:])


@main.command()
def status() -> None:
    """Show the processes, and the last line of each one's log."""
    for name, alive in _processes().items():
        click.echo(f"{name:24} {'runs' if alive else 'ENDED'}  {_tail(name)[-160:]}")


@main.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def kubectl(arguments: tuple[str, ...]) -> None:
    """Run kubectl as the cluster's administrator."""
    program = str(kubernetes.place("kubectl"))
    access = f"--kubeconfig={FOLDER / 'admin.kubeconfig'}"
    sys.exit(subprocess.run([program, access, *arguments]).returncode)


@main.command()
def down() -> None:
    """Stop everything, and remove what the cluster left."""
    processes = _pids()
    # The kubelet first: else it starts again what is killed.
    _kill(processes, "kubelet")
    _stop_containers()
    for name in reversed([*processes]):
        _kill(processes, name)
    until = time.monotonic() + 20.0
    while any(_processes().values()) and time.monotonic() < until:
        time.sleep(0.1)
    _unmount()
    proxy = kubernetes.place("kube-proxy")
    if proxy.exists():
        _run(str(proxy), "--cleanup", check=False)
    for interface in (INTERFACE, BRIDGE):
        _run("ip", "link", "delete", interface, check=False)
    shutil.rmtree("/run/understudy-cluster", ignore_errors=True)
    shutil.rmtree(FOLDER, ignore_errors=True)


def _kill(processes: dict[str, tuple[int, str]], name: str) -> None:
    if name in processes and _runs(*processes[name]):
        os.kill(processes[name][0], signal.SIGTERM if name == "containerd" else signal.SIGKILL)


def _stop_containers() -> None:
    """Kill what containerd still runs: its tasks do not end with it."""
    if not (FOLDER / "containerd.sock").exists():
        return
    for task in _run(*_ctr("tasks", "list", "--quiet"), check=False).split():
        _run(*_ctr("tasks", "delete", "--force", task), check=False)
    for container in _run(*_ctr("containers", "list", "--quiet"), check=False).split():
        _run(*_ctr("containers", "delete", container), check=False)


def _unmount() -> None:
    """Unmount what containers and volumes have mounted below the cluster's folders."""
    places = (str(FOLDER) + "/", "/run/understudy-cluster/")
    for line in reversed(Path("/proc/mounts").read_text().splitlines()):
        mounted = line.split()[1]
        if mounted.startswith(places):
            _run("umount", "--lazy", mounted, check=False)


if __name__ == "__main__":
    sys.exit(main())
