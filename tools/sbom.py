"""``make sbom``: the packages of the image, as a CycloneDX document."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click

from tools.lock import DEPLOY, PROJECT


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--lock",
    type=click.Choice(["requirements.lock", "load.lock"]),
    default="requirements.lock",
    show_default=True,
    help="The lock of the service, or of the service with the load generator.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=DEPLOY.parent / "build" / "sbom.json",
    help="The file to write.  [default: build/sbom.json]",
)
def main(lock: str, output: Path) -> None:
    """List the packages of the image with their hashes, as CycloneDX 1.6.

    \b
    Examples:
      python -m tools.sbom
      python -m tools.sbom --lock load.lock --output load-sbom.json
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    # It warns that a lock does not contain dependencies.
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "cyclonedx_py",
        "requirements",
        str(DEPLOY / lock),
    ]
    command += ["--pyproject", str(PROJECT), "--output-reproducible", "--spec-version", "1.6"]
    command += ["--output-file", str(output)]
    subprocess.run(command, check=True)
    click.echo(f"wrote {output}")


if __name__ == "__main__":
    main()
