"""``make lock``: resolve, pin and hash the packages of the image.

``requirements.lock`` is for the service, ``load.lock`` for the service with the load generator,
``build.lock`` for building the wheel, compiled. Each has the hashes of the files for every platform, so that one
lock serves amd64 and arm64; ``pip --require-hashes`` refuses other files.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import click

from tools.compiled import REQUIRES

DEPLOY = Path(__file__).resolve().parents[1] / "deploy"
PROJECT = DEPLOY.parent / "pyproject.toml"
PYTHON = "3.11"
"""The Python of the image; see the Dockerfile."""


def requirements_by_lock() -> dict[str, list[str]]:
    """Requirements by the name of the lock."""
    data = tomllib.loads(PROJECT.read_text(encoding="utf-8"))
    project = data["project"]
    extras = project["optional-dependencies"]
    service = [*project["dependencies"], *extras["kafka"], *extras["otel"]]
    return {
        "requirements.lock": service,
        "load.lock": [*service, *extras["load"]],
        "build.lock": [*data["build-system"]["requires"], *REQUIRES],
    }


def resolve(name: str, requirements: list[str], upgrade: bool) -> None:
    """Write one lock; earlier pins stay unless ``upgrade``."""
    target = DEPLOY / name
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "requirements.in"
        source.write_text("\n".join(requirements) + "\n", encoding="utf-8")
        command = [str(Path(sys.executable).with_name("uv")), "pip", "compile", str(source)]
        command += ["--output-file", str(target), "--python-version", PYTHON, "--universal"]
        command += ["--generate-hashes", "--no-annotate", "--custom-compile-command", "make lock"]
        command += ["--quiet", "--upgrade"] if upgrade else ["--quiet"]
        if name == "load.lock":
            # The same versions in both, so that the images share layers.
            command += ["--constraint", str(DEPLOY / "requirements.lock")]
        certificates = os.environ.get("PIP_CERT")
        trusted = {"SSL_CERT_FILE": certificates} if certificates else {}
        subprocess.run(command, check=True, env={**os.environ, **trusted})


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--upgrade", is_flag=True, help="Upgrade to the newest versions.")
def main(upgrade: bool) -> None:
    """Pin and hash the packages of the image, in deploy/*.lock.

    \b
    Examples:
      python -m tools.lock
      python -m tools.lock --upgrade
    """
    for name, requirements in requirements_by_lock().items():
        resolve(name, requirements, upgrade)
        click.echo(f"wrote deploy/{name}")


if __name__ == "__main__":
    main()
