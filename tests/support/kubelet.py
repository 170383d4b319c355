"""Runs pods as processes: the commands, arguments, environment, files, probes and hooks that stand in
rendered manifests, in the order in which a kubelet goes by.

It is no kubelet. Images are this checkout and its virtual environment. A pod's containers share a
network namespace of their own, so its ports are free; each has a PID namespace, in which its command
is process 1, and a view of the files in which only its volumes can be written. Everything runs as root
of a user namespace, whatever ``runAsUser`` says, and no limits are kept.

``python -m tests.support.kubelet FILE`` reads ``{"folder", "hosts", "pods": [{"name", "spec", "files",
"secrets"}]}``, answers JSON lines on standard input with JSON lines, and ends with its input.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

from tests.support.patience import patient

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
OVERLAID = ("/etc", "/var/lib")
"""Where the paths of mounts are made; the machine's own files below them stay as they are."""


def loopback() -> None:
    """Bring up the interface of a new network namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        up = struct.pack("16sh14x", b"lo", 0x1 | 0x40)  # IFF_UP, IFF_RUNNING
        fcntl.ioctl(sock, 0x8914, up)  # SIOCSIFFLAGS


def environment_of(
    spec: dict[str, Any], secrets: dict[str, dict[str, str]], fields: dict[str, str]
) -> dict[str, str]:
    """The variables of a container; ``fields`` are those of its pod, by path."""
    found: dict[str, str] = {}
    for one in spec.get("env", []):
        source = one.get("valueFrom", {})
        if "secretKeyRef" in source:
            value = secrets[source["secretKeyRef"]["name"]][source["secretKeyRef"]["key"]]
        elif "fieldRef" in source:
            value = fields[source["fieldRef"]["fieldPath"]]
        else:
            value = one["value"]
            for name, known in found.items():
                value = value.replace(f"$({name})", known)
        found[one["name"]] = value
    return found


class Container:
    """One container of a pod."""

    def __init__(self, pod: Pod, spec: dict[str, Any]) -> None:
        self.pod = pod
        self.spec = spec
        self.name = spec["name"]
        self.hook = (spec.get("lifecycle") or {}).get("preStop")
        self.process: subprocess.Popen[bytes] | None = None
        self.log = pod.folder / f"{self.name}.log"
        self.environment = {"PATH": f"{BIN}:/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
        fields = {
            "metadata.name": pod.folder.name,
            "metadata.namespace": "default",
            "metadata.uid": f"uid-of-{pod.folder.name}",
            "spec.nodeName": "node",
            "status.podIP": "127.0.0.1",
        }
        self.environment |= environment_of(spec, pod.secrets, fields)

    def start(self) -> None:
        mounts = sorted(self.spec["volumeMounts"], key=lambda one: one["mountPath"] == "/tmp")
        steps = []
        for one in mounts:
            place, volume = one["mountPath"], self.pod.volumes[one["name"]]
            if place == "/tmp" and ROOT.is_relative_to(place):
                # The programs are in there, and must not disappear behind the volume.
                kept = f"{volume}/{ROOT.relative_to(place)}"
                steps.append(f"mkdir -p '{kept}' && mount --bind '{ROOT}' '{kept}'")
            steps.append(f"mount --rbind '{volume}' '{place}'")
            if one.get("readOnly"):
                steps.append(f"mount -o remount,bind,ro '{place}'")
        steps += ["mount -t proc proc /proc"]
        steps += [f"mount -o remount,bind,ro {path}" for path in (*OVERLAID, "/")]
        script = " && ".join([*steps, 'exec "$@"'])
        command = [*self.spec["command"], *self.spec.get("args", [])]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                ["unshare", "--mount", "--pid", "--fork", "--kill-child",
                 "sh", "-c", script, "sh", *command],
                env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=ROOT,
            )  # fmt: skip

    def inside(self) -> int | None:
        """The process that is 1 in the container, by our own count."""
        assert self.process is not None
        pid = self.process.pid
        with contextlib.suppress(OSError):
            found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            return int(found[0]) if found else None
        return None

    def run_hook(self) -> None:
        if self.hook is None:
            return
        if "sleep" in self.hook:
            time.sleep(self.hook["sleep"]["seconds"])
        elif (pid := self.inside()) is not None:
            command = ["nsenter", "--target", str(pid), "--mount", "--pid"]
            subprocess.run([*command, *self.hook["exec"]["command"]], env=self.environment)

    def terminate(self) -> None:
        pid = self.inside()
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    def wait_until(self, probe: dict[str, Any] | None) -> None:
        """Probe repeatedly. Raises AssertionError when the probe fails for good, or the process
        ends."""
        assert self.process is not None
        if probe is None:
            return
        # On a machine with other work everything takes longer, so nothing is taken for a failure soon.
        deadline = time.monotonic() + patient(60)
        while not self._passes(probe):
            ended = self.process.poll()
            if ended is not None or time.monotonic() > deadline:
                text = self.log.read_text(errors="replace")[-3000:]
                raise AssertionError(f"{self.name}: {probe} fails, ended: {ended}; {text}")
            time.sleep(0.1)

    def _passes(self, probe: dict[str, Any]) -> bool:
        try:
            if "tcpSocket" in probe:
                socket.create_connection(("127.0.0.1", probe["tcpSocket"]["port"]), 2).close()
                return True
            get = probe["httpGet"]
            scheme = get.get("scheme", "HTTP").lower()
            tls = ssl.create_default_context()
            tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
            url = f"{scheme}://127.0.0.1:{get['port']}{get['path']}"
            with urllib.request.urlopen(url, timeout=5, context=tls) as answer:
                return 200 <= answer.status < 400
        except OSError:
            return False


class Pod:
    """Its containers, and what they see of the file system."""

    def __init__(self, given: dict[str, Any], folder: Path) -> None:
        self.name, self.spec, self.secrets = given["name"], given["spec"], given["secrets"]
        self.folder = folder / self.name
        self.folder.mkdir()
        self.volumes: dict[str, Path] = {}
        for volume in self.spec["volumes"]:
            path = self.volumes[volume["name"]] = self.folder / "volumes" / volume["name"]
            path.mkdir(parents=True)
            for file, text in given["files"].get(volume["name"], {}).items():
                (path / file).write_text(text)
        self.sidecars = [Container(self, one) for one in self.spec.get("initContainers", [])]
        self.mains = [Container(self, one) for one in self.spec["containers"]]
        self.grace = float(self.spec.get("terminationGracePeriodSeconds", 30))

    def everyone(self) -> list[Container]:
        return [*self.sidecars, *self.mains]

    def start(self) -> None:
        """Sidecars one after the other, each once the one before has started; then the others."""
        for one in self.sidecars:
            assert one.spec["restartPolicy"] == "Always"
            one.start()
            one.wait_until(one.spec.get("startupProbe"))
        for one in self.mains:
            one.start()
        for one in self.mains:
            one.wait_until(one.spec.get("startupProbe"))
        for one in self.everyone():
            one.wait_until(one.spec.get("readinessProbe"))

    def stop(self) -> dict[str, Any]:
        """Hooks of all begin together; then SIGTERM, to the sidecars last and in reverse order; what
        is left when the grace is over is killed."""
        end = time.monotonic() + self.grace + patient(20)

        def ending(one: Container, before: list[threading.Thread]) -> None:
            one.run_hook()
            for thread in before:
                thread.join(max(0.0, end - time.monotonic()))
            one.terminate()
            assert one.process is not None
            with contextlib.suppress(subprocess.TimeoutExpired):
                one.process.wait(max(0.0, end - time.monotonic()))

        before: list[threading.Thread] = []
        for group in ([self.mains], *([[one]] for one in reversed(self.sidecars))):
            threads = [
                threading.Thread(target=ending, args=(one, list(before))) for one in group[0]
            ]
            before += threads
        for thread in before:
            thread.start()
        for thread in before:
            thread.join()
        return self.codes()

    def codes(self) -> dict[str, Any]:
        """Exit codes by name; ``killed`` for those that had to be."""
        found: dict[str, Any] = {}
        for one in self.everyone():
            if one.process is None:
                continue
            if one.process.poll() is None:
                one.process.kill()
                one.process.wait()
                found[one.name] = "killed"
            else:
                found[one.name] = one.process.returncode
        return found


class Kubelet:
    """Does what it is told."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.folder = Path(given["folder"])
        loopback()
        self._overlay(given)
        self.pods = [Pod(one, self.folder) for one in given["pods"]]
        self.background: list[subprocess.Popen[str]] = []

    def _overlay(self, given: dict[str, Any]) -> None:
        for path in OVERLAID:
            own = self.folder / ("overlay" + path.replace("/", "-"))
            upper, work = own / "upper", own / "work"
            for folder in (upper, work):
                folder.mkdir(parents=True)
            options = f"lowerdir={path},upperdir={upper},workdir={work}"
            subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, path], check=True)
        for pod in given["pods"]:
            for one in [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]:
                for mount in one["volumeMounts"]:
                    Path(mount["mountPath"]).mkdir(parents=True, exist_ok=True)
        names = " ".join(("localhost", *given["hosts"]))
        Path("/etc/hosts").write_text(f"127.0.0.1 {names}\n")

    def do(self, what: dict[str, Any]) -> dict[str, Any]:
        if what["do"] == "start":
            for pod in self.pods:
                pod.start()
            return {}
        if what["do"] == "run":
            done = subprocess.run(what["command"], cwd=ROOT, capture_output=True, text=True)
            return {"code": done.returncode, "out": done.stdout, "error": done.stderr}
        if what["do"] == "background":
            self.background.append(
                subprocess.Popen(what["command"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
            )
            assert self.background[-1].stdout is not None
            return {"said": self.background[-1].stdout.readline()}
        if what["do"] == "wait":  # a Job: its containers end by themselves, and then the sidecars
            (pod,) = [one for one in self.pods if one.name == what["pod"]]
            for one in pod.mains:
                assert one.process is not None
                one.process.wait()
            return {"codes": pod.stop(), "log": pod.mains[0].log.read_text(errors="replace")}
        codes = {pod.name: pod.stop() for pod in self.pods}
        return {
            "codes": codes,
            "said": [one.communicate(timeout=patient(60))[0] for one in self.background],
        }

    def clean(self) -> None:
        for one in (*self.background, *(c.process for p in self.pods for c in p.everyone())):
            if one is not None and one.poll() is None:
                one.kill()


def main(path: str) -> int:
    kubelet = Kubelet(json.loads(Path(path).read_text()))
    try:
        for line in sys.stdin:
            try:
                said = kubelet.do(json.loads(line))
            except (AssertionError, OSError) as error:
                said = {"wrong": str(error)}
            print(json.dumps(said), flush=True)
    finally:
        kubelet.clean()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
