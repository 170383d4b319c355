"""The container image, as far as that goes without a container: see docs/deployment.md."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

import pytest

from tests.support.dockerfile import Instruction, Plain, instructions, stages
from tests.support.patience import eventually, patient
from tests.support.ports import free_port
from tools.lock import DEPLOY, PYTHON, requirements_by_lock
from tools.sbom import main as sbom

ROOT = DEPLOY.parent
DOCKERFILES = (DEPLOY / "Dockerfile", DEPLOY / "flights.Dockerfile")
LOCKS = ("requirements.lock", "load.lock", "build.lock")


def pinned(name: str) -> dict[str, str]:
    """Versions by package; every one has to have hashes."""
    text = (DEPLOY / name).read_text().replace("\\\n", " ")
    found = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            match = re.match(r"([a-z0-9._-]+)==([^\s;]+)", line)
            assert match is not None, line
            assert "--hash=sha256:" in line, line
            found[match[1]] = match[2]
    return found


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda path: path.name)
def test_the_linter_finds_nothing(file: Path) -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if hadolint is None:
        pytest.skip("NOT TESTED: hadolint is not to be had for this platform")
    done = subprocess.run(
        [hadolint, "--failure-threshold", "style", str(file)], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda path: path.name)
def test_it_runs_as_nobody_in_particular(file: Path) -> None:
    found = instructions(file.read_text())
    users = [rest for word, rest in found if word == "USER"]
    assert users == ["65532:65532"]
    last = max(number for number, (word, _) in enumerate(found) if word == "USER")
    assert not [word for word, _ in found[last:] if word == "RUN"]
    for word, rest in found:
        if word in ("CMD", "ENTRYPOINT"):
            assert json.loads(rest), "not through a shell, which would keep signals to itself"


def test_the_service_is_the_last_stage() -> None:
    assert list(stages(DOCKERFILES[0].read_text()))[-1] == "runtime"


@pytest.mark.parametrize("name", LOCKS)
def test_locks_hold_what_is_declared(name: str) -> None:
    have = pinned(name)
    for requirement in requirements_by_lock()[name]:
        assert re.split(r"[<>=\[ ;]", requirement)[0].lower() in have, "run `make lock`"


def test_both_images_have_the_same_versions() -> None:
    service, load = pinned("requirements.lock"), pinned("load.lock")
    assert service.items() <= load.items()
    assert f":{PYTHON}-slim" in DOCKERFILES[0].read_text()


def test_the_list_of_what_is_in_it(tmp_path: Path) -> None:
    target = tmp_path / "sbom.json"
    sbom(["--output", str(target)], standalone_mode=False)
    document = json.loads(target.read_text())
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    listed = {item["name"]: item["version"] for item in document["components"]}
    assert listed == pinned("requirements.lock")
    assert document["metadata"]["component"]["name"] == "understudy-serving"


@pytest.mark.integration
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_its_steps_lead_to_a_service_that_is_healthy(tmp_path: Path) -> None:
    if f"{sys.version_info.major}.{sys.version_info.minor}" != PYTHON:
        pytest.skip(f"NOT TESTED: the image has Python {PYTHON}, and this is another one")
    index = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(tmp_path / "x")]
    if subprocess.run([*index, "click"], capture_output=True).returncode != 0:
        pytest.skip(
            "NOT TESTED: no package index can be reached to carry out the Dockerfile's steps"
        )
    found = stages(DOCKERFILES[0].read_text())
    with tempfile.TemporaryDirectory(prefix="image-") as short:  # for the sockets in it
        carry_out(found, Plain(ROOT, Path(short)))


def carry_out(found: dict[str, list[Instruction]], plain: Plain) -> None:
    for stage in ("service", "base", "runtime"):
        plain.carry_out(found[stage])
    assert plain.user == "65532:65532"
    assert plain.left_out == ["groupadd --gid 65532 understudy && useradd --uid 65532 --gid 65532 "
                              "--no-create-home --home-dir /var/lib/understudy understudy && "
                              "install --directory --owner 65532 --group 65532 "
                              "/var/lib/understudy /etc/understudy"]  # fmt: skip
    assert not list(plain.place("/opt/understudy/bin").glob("pip*"))
    have = subprocess.run(
        [plain.place("/opt/understudy/bin/python"), "-c",
         "import importlib.metadata as m, understudy; print(understudy.__file__); "
         "print(*sorted(d.name.lower().replace('_', '-') for d in m.distributions()))"],
        capture_output=True, text=True, check=True, cwd=plain.cwd, env=plain.environment,
    ).stdout.splitlines()  # fmt: skip
    assert have[0].startswith(str(plain.place("/opt/understudy")))
    installed = set(have[1].split())
    markers = {"colorama", "tzdata"}  # of other systems
    assert (
        installed - {"understudy-serving", "setuptools"}
        == set(pinned("requirements.lock")) - markers
    )

    control, listen = free_port(), free_port()
    plain.place("/etc/understudy/understudy.yaml").write_text(
        f"version: 1\nlisten: 127.0.0.1:{listen}\nworkers: 1\n"
        f"state_dir: {plain.place('/var/lib/understudy')}\n"
        f"control: {{listen: '127.0.0.1:{control}'}}\n"
        "models: [{name: m}]\nchampion: {url: 'http://127.0.0.1:9'}\n"
    )
    files = {path for path in plain.root.rglob("*") if path.is_file()}
    process = subprocess.Popen(
        [*plain.entrypoint, *plain.command], cwd=plain.cwd, env=plain.environment
    )
    try:
        check = [word.replace("9090", str(control)) for word in plain.health]
        assert check != plain.health

        def healthy() -> bool:
            asked = subprocess.run(check, env=plain.environment, capture_output=True)
            return asked.returncode == 0

        eventually(healthy)
        with urllib.request.urlopen(
            f"http://127.0.0.1:{control}/metrics", timeout=patient(5)
        ) as answer:
            assert b'understudy_build_info{data_plane="compiled",' in answer.read()
        process.terminate()
        assert process.wait(patient(30)) == 0
        assert subprocess.run(check, env=plain.environment, capture_output=True).returncode != 0
    finally:
        process.kill()
    new = {path for path in plain.root.rglob("*") if path.is_file()} - files
    assert new
    assert all(path.is_relative_to(plain.place("/var/lib/understudy")) for path in new), new
