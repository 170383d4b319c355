"""Kafka's jars, through Maven, once for all clones: ``python -m tools.parts.jars`` fetches them.

They lie below ``$XDG_CACHE_HOME/understudy`` (or ``~/.cache/understudy``), in a folder named after
``pom.xml`` and the version of Java, with two things that save time at every start: a formatted
storage folder, and an archive of the classes that a broker loads.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

POM = Path(__file__).with_name("pom.xml")
CLUSTER_ID = "dW5kZXJzdHVkeS10ZXN0cw"
USER, PASSWORD = "understudy", "a-secret-of-tests"
JAVA_AT_LEAST = 17
_LAYOUT = b"1"  # another number when what is kept beside the jars changes


def cache() -> Path:
    """Where things are kept that every clone can use."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "understudy"


def java_version() -> str | None:
    """Version of the Java that is here, or None."""
    if shutil.which("java") is None:
        return None
    told = subprocess.run(["java", "-version"], capture_output=True, text=True)
    version = re.search(r'version "([^"]+)"', told.stderr + told.stdout)
    return version[1] if told.returncode == 0 and version else None


def _folder(version: str) -> Path:
    mark = hashlib.sha256(POM.read_bytes() + _LAYOUT + version.encode())
    return cache() / "kafka" / mark.hexdigest()[:16]


def _reason(version: str | None) -> str | None:
    if version is None:
        return "Java is not here"
    if int(version.partition(".")[0]) < JAVA_AT_LEAST:
        return f"Java is {version}, and Kafka needs {JAVA_AT_LEAST} or later"
    return None


def need() -> Path:
    """The folder with ``lib``, ``storage`` and ``classes.jsa``, or a skip that says how to get it."""
    version = java_version()
    reason = _reason(version)
    if reason is not None or version is None:
        pytest.skip(f"NOT TESTED: no Kafka broker: {reason}")
    folder = _folder(version)
    if not (folder / "complete").exists():
        pytest.skip(
            "NOT TESTED: no Kafka broker: its jars are not here; `make parts` fetches them where"
            " Maven works"
        )
    return folder


def classes(folder: Path) -> str:
    """The class path; the same text each time, as the archive of classes wants it."""
    return ":".join(str(jar) for jar in sorted((folder / "lib").glob("*.jar")))


def _properties(folder: Path) -> Path:
    ports = []
    for _ in range(2):
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            ports.append(sock.getsockname()[1])
    file = folder / "server.properties"
    file.write_text(
        "process.roles=broker,controller\nnode.id=1\n"
        f"controller.quorum.voters=1@127.0.0.1:{ports[0]}\n"
        f"listeners=PLAINTEXT://127.0.0.1:{ports[1]},CONTROLLER://127.0.0.1:{ports[0]}\n"
        "controller.listener.names=CONTROLLER\ninter.broker.listener.name=PLAINTEXT\n"
        f"log.dirs={folder / 'data'}\nlog.cleaner.dedupe.buffer.size=4194304\n"
    )
    return file


def _format(target: Path, scratch: Path) -> None:
    """A formatted storage folder with the users of the tests, to copy from."""
    command = ["java", "-cp", classes(target), "kafka.tools.StorageTool", "format"]
    command += ["-t", CLUSTER_ID, "-c", str(_properties(scratch))]
    for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512"):
        command += ["--add-scram", f"{mechanism}=[name={USER},password={PASSWORD}]"]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    shutil.copytree(scratch / "data", target / "storage")


def _archive(target: Path, scratch: Path) -> None:
    """The archive of classes, written by a broker that starts and stops; without it all is slower."""
    command = ["java", "-XX:ArchiveClassesAtExit=" + str(target / "classes.jsa"), "-Xmx256m"]
    command += ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", classes(target)]
    with (scratch / "log").open("wb") as log:
        broker = subprocess.Popen(
            [*command, "kafka.Kafka", str(scratch / "server.properties")], stdout=log, stderr=log
        )
        try:
            until = time.monotonic() + 60
            while b"Kafka Server started" not in (scratch / "log").read_bytes():
                if broker.poll() is not None or time.monotonic() > until:
                    return
                time.sleep(0.1)
            broker.terminate()
            broker.wait(60)
        except subprocess.TimeoutExpired:
            pass
        finally:
            broker.kill()
            broker.wait()


def fetch() -> str | None:
    """Make the broker usable; the reason if that fails."""
    version = java_version()
    reason = _reason(version)
    if reason is not None or version is None:
        return reason
    target = _folder(version)
    if (target / "complete").exists():
        return None
    if shutil.which("mvn") is None:
        return "Maven is not here"
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / "lock").open("w") as lock, tempfile.TemporaryDirectory() as scratch:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another clone may be at it
        if (target / "complete").exists():
            return None
        shutil.rmtree(target, ignore_errors=True)
        print("fetching Kafka …", flush=True)
        command = ["mvn", "-q", "-B", "-f", str(POM), "dependency:copy-dependencies"]
        command += ["-DincludeScope=runtime", f"-DoutputDirectory={target / 'lib'}"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        except subprocess.TimeoutExpired:
            return "Maven takes too long"
        if done.returncode != 0:
            said = [line for line in done.stdout.splitlines() if "ERROR" in line]
            return said[0] if said else "Maven failed"
        try:
            _format(target, Path(scratch))
        except (subprocess.SubprocessError, OSError) as error:
            return f"its storage cannot be formatted: {error}"
        _archive(target, Path(scratch))
        (target / "complete").touch()
    return None


def main() -> int:
    """Fetch; where that fails it is a notice, not an error."""
    failed = fetch()
    if failed is not None:
        print(f"NOTICE: Kafka cannot be had here ({failed}); its tests are skipped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
