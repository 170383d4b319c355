"""``make release``: build everything that a release consists of, twice, and check it.

Nothing is published from here: ``.github/workflows/release.yaml`` does that for a tag.
"""

from __future__ import annotations

import datetime
import filecmp
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click

from tools import oci_chart
from understudy import __version__

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
CHANGELOG = ROOT / "CHANGELOG.md"
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
_UNRELEASED = "## [Unreleased]\n"


class ReleaseError(click.ClickException):
    """A release that cannot be made; the message says what to do."""


def say(text: str) -> None:
    """A line for people."""
    click.echo(text, err=True)


def run(command: list[str | Path], epoch: int, cwd: Path = ROOT, **variables: str) -> str:
    """The standard output of a command. Raises ReleaseError with its output when it fails."""
    hidden = ("PYTHONPATH", "VIRTUAL_ENV", "UNDERSTUDY_PURE", "UNDERSTUDY_COMPILED")
    environment = {k: v for k, v in os.environ.items() if k not in hidden} | variables
    if certificates := os.environ.get("PIP_CERT"):
        environment.setdefault("SSL_CERT_FILE", certificates)
    environment["SOURCE_DATE_EPOCH"] = str(epoch)
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        words = " ".join(map(str, command))
        raise ReleaseError(f"{words} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def epoch_of() -> int:
    """SOURCE_DATE_EPOCH: as given, else the time of the last commit."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if given:
        return int(given)
    done = subprocess.run(
        ["git", "log", "-1", "--format=%ct"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode or not done.stdout.strip():
        raise ReleaseError("this is not a git clone: set SOURCE_DATE_EPOCH to the release's time")
    return int(done.stdout)


def build(folder: Path, epoch: int, pythons: list[tuple[str, Path]]) -> None:
    """Wheels, source distribution, chart and SBOM, into an empty folder.

    One wheel is pure Python and fits every version; the others have the compiled data plane, one
    for each of ``pythons``.
    """
    folder.mkdir(parents=True)
    command: list[str | Path] = [BIN / "uv", "build", "--quiet"]
    # The build backend is pinned with its hashes, as for the image.
    command += ["--build-constraints", ROOT / "deploy" / "build.lock", "--require-hashes", ROOT]
    run([*command, "--out-dir", folder], epoch, UNDERSTUDY_PURE="1")
    for _, interpreter in pythons:
        with tempfile.TemporaryDirectory() as place:
            wheel = [*command, "--out-dir", place, "--wheel", "--python", interpreter]
            run(wheel, epoch, UNDERSTUDY_MUST_COMPILE="1")
            (built,) = Path(place).glob("*.whl")
            # Name the oldest C library that it runs with: an index takes no wheel for just "linux".
            repair: list[str | Path] = [BIN / "auditwheel", "repair", "--patcher", "none"]
            run([*repair, "--wheel-dir", folder, built], epoch)
    (folder / ".gitignore").unlink(missing_ok=True)
    oci_chart.write_layout(ROOT / "helm" / "understudy", folder / "chart-oci", epoch)
    for lock, name in (("requirements.lock", "image"), ("load.lock", "image-load")):
        output = folder / f"understudy-{__version__}-{name}.cdx.json"
        run([sys.executable, "-m", "tools.sbom", "--lock", lock, "--output", output], epoch)


def files_in(folder: Path) -> list[Path]:
    """Every file, by its path inside."""
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def differences(first: Path, second: Path) -> list[str]:
    """Files of two builds that are not the same bytes."""
    names = sorted({*files_in(first), *files_in(second)})
    _, differ, missing = filecmp.cmpfiles(first, second, names, shallow=False)
    return sorted({*map(str, differ), *map(str, missing)})


def check(folder: Path, epoch: int) -> None:
    """``twine check --strict``, the blobs of the chart, and the chart with Helm where it is."""
    packages = [*folder.glob("*.whl"), *folder.glob("*.tar.gz")]
    run([sys.executable, "-m", "twine", "check", "--strict", *packages], epoch)
    say("  wheel and source distribution: twine check passed")
    oci_chart.check_layout(folder / "chart-oci")
    helm = shutil.which("helm")
    if helm is None:
        say("  chart: the OCI layout is whole; SKIPPED helm lint: there is no helm here")
        return
    (packed,) = folder.glob("*.tgz")
    run([helm, "lint", "--quiet", packed], epoch)
    say("  chart: the OCI layout is whole, and helm lint passed")


def image(folder: Path, epoch: int) -> None:
    """The image as an OCI archive, where a container engine runs."""
    docker = shutil.which("docker")
    ready = (
        docker is not None
        and not subprocess.run([docker, "info"], capture_output=True, check=False).returncode
    )
    if not ready:
        say("  SKIPPED THE IMAGE: no container engine runs here (docker, with buildx)")
        return
    assert docker is not None
    for target in ("runtime", "load"):
        archive = folder / f"understudy-{__version__}-{target}.oci.tar"
        command: list[str | Path] = [docker, "buildx", "build", "--file", "deploy/Dockerfile"]
        command += ["--target", target, "--build-arg", f"SOURCE_DATE_EPOCH={epoch}"]
        command += ["--provenance=false", "."]
        command += ["--output", f"type=oci,dest={archive},rewrite-timestamp=true"]
        run(command, epoch)
        say(f"  image: {archive.name}")


def interpreter_of(version: str) -> Path | None:
    """A Python of that version: on PATH, or one of pyenv's; None without any."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    found = shutil.which(f"python{version}")
    candidates = [Path(found)] if found else []
    candidates += sorted(pyenv.glob(f"{version}*/bin/python{version}"), reverse=True)
    for one in candidates:
        code = "import sys; print('%d.%d' % sys.version_info[:2])"
        done = subprocess.run([one, "-c", code], capture_output=True, text=True, check=False)
        if done.stdout.strip() == version:
            return one
    return None


def interpreters() -> list[tuple[str, Path]]:
    """The Pythons of PYTHONS that are installed here."""
    found = []
    for version in PYTHONS:
        interpreter = interpreter_of(version)
        if interpreter is None:
            say(f"  SKIPPED Python {version}: it is not installed here")
        else:
            found.append((version, interpreter))
    return found


def install(folder: Path, epoch: int, pythons: list[tuple[str, Path]]) -> list[str]:
    """Install the package into an empty environment for each of ``pythons``; their versions."""
    tried = []
    for version, interpreter in pythons:
        with tempfile.TemporaryDirectory() as place:
            home = Path(place) / "env"
            run([BIN / "uv", "venv", "-q", "--python", interpreter, home], epoch)
            python = home / "bin" / "python"
            command: list[str | Path] = [BIN / "uv", "pip", "install", "-q", "--python", python]
            # pip takes the wheel that fits best: the compiled one.
            command += ["--find-links", folder, f"understudy-serving=={__version__}"]
            run(command, epoch)
            program = home / "bin" / "understudy"
            printed = run([program, "version"], epoch, cwd=home)
            if printed != f"understudy {__version__} (compiled)\n":
                raise ReleaseError(f"Python {version}: `understudy version` prints {printed!r}")
            run([program, "config", "check", ROOT / "docs" / "understudy.yaml"], epoch, cwd=home)
            if not (home / "share" / "man" / "man1" / "understudy.1").is_file():
                raise ReleaseError(f"Python {version}: the wheel has no man page")
            tried.append(version)
            say(f"  Python {version}: installed into an empty environment, and runs")
    if not tried:
        raise ReleaseError(f"none of the Pythons {', '.join(PYTHONS)} is installed here")
    return tried


def released(text: str, version: str) -> bool:
    """Whether the changelog has a section for the version."""
    return re.search(rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$", text, re.M) is not None


def with_section(text: str, version: str, day: str) -> str:
    """The changelog with what was unreleased as the version's section."""
    if released(text, version):
        raise ReleaseError(f"CHANGELOG.md: {version} is released already; raise __version__ first")
    head, found, rest = text.partition(_UNRELEASED)
    if not found or not rest.partition("\n## [")[0].strip():
        raise ReleaseError("CHANGELOG.md: there is nothing under [Unreleased]")
    return f"{head}{_UNRELEASED}\n## [{version}] - {day}\n{rest}"


def notes_of(text: str, version: str) -> str:
    """The section of a version, for the release page."""
    _, found, rest = text.partition(f"## [{version}] - ")
    if not found:
        raise ReleaseError(f"CHANGELOG.md has no section for {version}")
    return rest.partition("\n")[2].partition("\n## [")[0].strip() + "\n"


def _sums(folder: Path) -> Iterator[str]:
    for name in files_in(folder):
        if name.name != "SHA256SUMS":
            yield f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}"


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=ROOT / "dist",
    help="The folder to write, which is emptied first.  [default: dist]",
)
@click.option("--tag", help="Refuse unless this tag, such as v0.2.0, is the version in the tree.")
@click.option("--no-install", is_flag=True, help="Leave out the installation into environments.")
@click.pass_context
def main(context: click.Context, output: Path, tag: str | None, no_install: bool) -> None:
    """Build wheel, source distribution, chart, SBOM and image; build them twice; check them.

    \b
    Examples:
      python -m tools.release
      python -m tools.release --tag v0.2.0
      python -m tools.release section
      python -m tools.release notes
    """
    if context.invoked_subcommand is not None:
        return
    text = CHANGELOG.read_text(encoding="utf-8")
    if tag is not None:
        if tag != f"v{__version__}":
            raise ReleaseError(f"the tag is {tag}, and the version in the tree {__version__}")
        if not released(text, __version__):
            raise ReleaseError(f"write the section first: python -m tools.release section ({tag})")
    epoch = epoch_of()
    say(f"understudy {__version__}, built twice with SOURCE_DATE_EPOCH={epoch} …")
    if not released(text, __version__):
        say(f"  not released yet: CHANGELOG.md has no section for {__version__}")
    shutil.rmtree(output, ignore_errors=True)
    pythons = interpreters()
    build(output, epoch, pythons)
    with tempfile.TemporaryDirectory() as place:
        again = Path(place) / "again"
        build(again, epoch, pythons)
        differ = differences(output, again)
    if differ:
        raise ReleaseError(f"two builds differ: {', '.join(differ)}")
    say("  both builds are the same, byte for byte")
    check(output, epoch)
    if not no_install:
        install(output, epoch, pythons)
    image(output, epoch)
    (output / "SHA256SUMS").write_text("\n".join(_sums(output)) + "\n", encoding="utf-8")
    for path in sorted(output.iterdir()):
        click.echo(path)


@main.command()
def section() -> None:
    """Give what is unreleased in CHANGELOG.md the version in the tree and the date of today (UTC)."""
    day = datetime.datetime.now(datetime.UTC).date().isoformat()
    text = with_section(CHANGELOG.read_text(encoding="utf-8"), __version__, day)
    CHANGELOG.write_text(text, encoding="utf-8")
    say(f"CHANGELOG.md has a section for {__version__}; commit it, and tag v{__version__}")


@main.command()
def notes() -> None:
    """Print the version's section of CHANGELOG.md."""
    click.echo(notes_of(CHANGELOG.read_text(encoding="utf-8"), __version__), nl=False)


if __name__ == "__main__":
    main()
