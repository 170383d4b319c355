"""``make lock``: resolve what the image holds, pin it, hash it.

``requirements.lock`` is what the service needs, ``load.lock`` what the load generator needs
besides, ``build.lock`` what turns the source into a wheel. Each names hashes of the files for every
platform, so that one lock serves amd64 and arm64; ``pip --require-hashes`` refuses anything else.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import click

DEPLOY = Path(__file__).resolve().parents[1] / "deploy"
PROJECT = DEPLOY.parent / "pyproject.toml"
PYTHON = "3.11"
"""Of the image; see the Dockerfile."""


def declared() -> dict[str, list[str]]:
    """What has to be resolved, by the name of the lock."""
    found = tomllib.loads(PROJECT.read_text(encoding="utf-8"))
    project = found["project"]
    extras = project["optional-dependencies"]
    service = [*project["dependencies"], *extras.get("kafka", [])]
    return {
        "requirements.lock": service,
        "load.lock": [*service, *extras["load"]],
        "build.lock": found["build-system"]["requires"],
    }


def resolve(name: str, wanted: list[str], upgrade: bool) -> None:
    """Write one lock; what an earlier one pinned stays, unless ``upgrade``."""
    target = DEPLOY / name
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "requirements.in"
        source.write_text("\n".join(wanted) + "\n", encoding="utf-8")
        command = [str(Path(sys.executable).with_name("uv")), "pip", "compile", str(source)]
        command += ["--output-file", str(target), "--python-version", PYTHON, "--universal"]
        command += ["--generate-hashes", "--no-annotate", "--custom-compile-command", "make lock"]
        command += ["--quiet", "--upgrade"] if upgrade else ["--quiet"]
        if name == "load.lock":
            # The same versions in both, so that one image is a part of the other.
            command += ["--constraint", str(DEPLOY / "requirements.lock")]
        certificates = os.environ.get("PIP_CERT")
        trusted = {"SSL_CERT_FILE": certificates} if certificates else {}
        subprocess.run(command, check=True, env={**os.environ, **trusted})


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--upgrade", is_flag=True, help="Take newer versions where there are any.")
def main(upgrade: bool) -> None:
    """Pin and hash what the image holds, in deploy/*.lock.

    \b
    Examples:
      python -m tools.lock
      python -m tools.lock --upgrade
    """
    for name, wanted in declared().items():
        resolve(name, wanted, upgrade)
        click.echo(f"wrote deploy/{name}")


if __name__ == "__main__":
    main()
