"""Runs of the chaos that were kept in files, as one result: python -m benchmarks.kafka.combine."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks.harness import RESULTS
from benchmarks.kafka.chaos import of_runs
from benchmarks.kafka.comparison import equal


def combined(files: Sequence[Path]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The environment of the first file, and the runs of all by their seeds, each of which may be
    there once."""
    runs: dict[int, dict[str, Any]] = {}
    results = [json.loads(file.read_text()) for file in files]
    for file, part in zip(files, results, strict=True):
        for run in part["runs"]:
            if run["seed"] in runs:
                raise click.ClickException(f"{file}: seed {run['seed']} is there already")
            runs[run["seed"]] = run
    return results[0]["environment"], [runs[seed] for seed in sorted(runs)]


@click.command()
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option(
    "--into",
    type=click.Path(file_okay=False, path_type=Path),
    default=RESULTS,
    help="Folder of the result.  [default: benchmarks/results]",
)
@click.option("--note", help="What should be known of these runs.")
def main(files: tuple[Path, ...], into: Path, note: str | None) -> None:
    """Write kafka-chaos.json and .md of the runs in FILES; exit 1 when one found a difference."""
    where, runs = combined(files)
    result = of_runs(runs)
    result.environment = {**where, "note": note} if note else where
    click.echo(result.write(into))
    sys.exit(0 if all(map(equal, runs)) else 1)


if __name__ == "__main__":
    main()
