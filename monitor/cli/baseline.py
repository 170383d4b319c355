"""``understudy baseline``: build, show, compare, merge."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from understudy.common.terminal import echo
from understudy.monitor.cli.options import (
    FILE,
    delimiter_option,
    json_option,
    skip_broken_option,
)

if TYPE_CHECKING:
    from understudy.monitor.baseline.model import Baseline

_output = click.option(
    "--output", "-o", type=FILE, default=Path("baseline.json"), show_default=True,
    help="The file to write.",
)  # fmt: skip


@click.group("baseline")
def baseline() -> None:
    """Describe what the inputs and predictions of a model usually look like.

    \b
    Examples:
      understudy baseline build validation.parquet --target late --prediction p_late
      understudy baseline show baseline.json
      understudy baseline diff baseline.json this-month.json
    """


@baseline.command("build")
@click.argument("files", nargs=-1, type=FILE)
@click.option("--target", help="The column with the label (the truth).")
@click.option(
    "--prediction",
    "predictions",
    multiple=True,
    help="A column with an output of the model; may be repeated.",
)
@click.option("--time", help="The column with the time of the row: ISO 8601 or Unix seconds.")
@click.option(
    "--ignore",
    "--id",
    "ignore",
    multiple=True,
    help="A column to leave out, such as an id; may be repeated.",
)
@click.option(
    "--categorical",
    multiple=True,
    help="A column whose numbers are codes, such as postcodes; may be repeated.",
)
@click.option(
    "--declare", "declared", multiple=True,
    help="A feature to watch although it looks like an identifier, a timestamp or a counter; may "
    "be repeated.",
)  # fmt: skip
@click.option(
    "--most-categories", type=click.IntRange(1), default=1024, show_default=True,
    help="A column with more categories is treated as an identifier.",
)  # fmt: skip
@click.option(
    "--regions",
    is_flag=True,
    help="Learn with small trees what a score means in different regions of the data (half a "
    "minute for 70,000 rows).",
)
@click.option(
    "--threshold", type=float, default=0.5, show_default=True,
    help="Score above which a prediction is positive, as in `performance`.",
)  # fmt: skip
@click.option("--model", default="", help="Name of the model; default: any.")
@click.option("--model-version", default="", help="Version of the model; default: any.")
@click.option(
    "--from-live",
    "url",
    metavar="URL",
    help="Control address of a service: save the baseline that it uses.",
)
@delimiter_option
@skip_broken_option
@_output
@json_option
def build_command(
    files: tuple[Path, ...],
    target: str | None,
    predictions: tuple[str, ...],
    time: str | None,
    ignore: tuple[str, ...],
    categorical: tuple[str, ...],
    declared: tuple[str, ...],
    most_categories: int,
    regions: bool,
    threshold: float,
    model: str,
    model_version: str,
    url: str | None,
    delimiter: str | None,
    skip_broken: bool,
    output: Path,
    as_json: bool,
) -> None:
    """Build a baseline from FILES (.parquet, .csv, .jsonl, .json), or from a running service.

    Use rows that the model has not been trained on, such as validation data: on its training data a
    model is more confident than it will be in production. The size of a baseline is bounded.

    With --time, daily and weekly cycles become a part of it, so a normal morning is not drift. With
    --regions and labels, the accuracy without labels is estimated better when the mix of the inputs
    changes. A feature that looks like an identifier, a timestamp or a counter is proposed to be
    left out; until it is declared, its values are not compared with the baseline.

    \b
    Examples:
      understudy baseline build validation.parquet --target late --prediction p_late
      understudy baseline build jan.csv feb.csv --ignore id --time sent_at -o winter.json
      understudy baseline build --from-live http://127.0.0.1:9090 --model delays -o live.json
    """
    from understudy.monitor.baseline.build import BuildOptions, build

    if bool(files) == (url is not None):
        raise click.UsageError("name files, or --from-live URL")
    skipped = 0
    if url is not None:
        found = _from_live(url, model, model_version)
    else:
        wanted = BuildOptions(
            model,
            model_version,
            target,
            predictions,
            time,
            frozenset(ignore),
            frozenset(categorical),
            frozenset(declared),
            most_categories,
            regions,
            threshold,
            delimiter,
        )
        found, skipped = _with_progress(
            lambda progress: build(files, wanted, skip_broken, progress)
        )
    found.save(output)
    if as_json:
        document = {"file": str(output), "rows": found.rows, "columns": len(found.columns)}
        echo(json.dumps({**document, "skipped_lines": skipped}))
        return
    _print(found)
    if skipped:
        echo(f"{skipped:,} lines could not be read and were left out")
    echo(f"{output} written: {found.rows:,} rows, {len(found.columns)} columns")


@baseline.command("show")
@click.argument("file", type=FILE)
@json_option
def show_command(file: Path, as_json: bool) -> None:
    """Draw the baseline in FILE.

    \b
    Example:
      understudy baseline show baseline.json
    """
    from understudy.monitor.baseline.model import Baseline

    found = Baseline.load(file)
    if as_json:
        echo(json.dumps(found.to_dict()))
    else:
        _print(found)


@baseline.command("diff")
@click.argument("first", type=FILE)
@click.argument("second", type=FILE)
@click.option(
    "--threshold", type=float, default=0.1, show_default=True, help="PSI that counts as different."
)
@click.option("--exit-code", is_flag=True, help="Exit 1 when something is different.")
@json_option
def diff_command(
    first: Path, second: Path, threshold: float, exit_code: bool, as_json: bool
) -> None:
    """Compare the baselines FIRST and SECOND, series by series, the furthest apart first.

    \b
    Example:
      understudy baseline diff validation.json live.json --exit-code
    """
    from understudy.common.screen import console, plain_table
    from understudy.monitor.baseline import show as showing
    from understudy.monitor.baseline.model import Baseline

    differences, apart = showing.diff(Baseline.load(first), Baseline.load(second))
    far = [d for d in differences if d.psi >= threshold]
    if as_json:
        document = {"series": [d.to_dict() for d in differences], "apart": apart}
        echo(json.dumps(document))
    else:
        table = plain_table("series", "PSI", "Jensen-Shannon", "mean, in sd", "missing, by points")
        for item in differences:
            shift = "–" if item.shift is None else f"{item.shift:+.3g}"
            points = f"{item.missing * 100:+.2g}"
            cells = [item.series, f"{item.psi:.3g}", f"{item.js:.3g}", shift, points]
            table.add_row(*cells, style="bold" if item in far else "")
        console().print(table)
        for line in apart:
            echo(line)
        echo(f"{len(far)} of {len(differences)} series differ (PSI of {threshold:g} or more)")
    if exit_code and (far or apart):
        sys.exit(1)


@baseline.command("merge")
@click.argument("files", nargs=-1, required=True, type=FILE)
@_output
@json_option
def merge_command(files: tuple[Path, ...], output: Path, as_json: bool) -> None:
    """Add up baselines of the same model, as of several days or replicas.

    \b
    Example:
      understudy baseline merge monday.json tuesday.json -o both.json
    """
    from understudy.monitor.baseline.model import Baseline

    found = Baseline.load(files[0])
    for path in files[1:]:
        found = found.merge(Baseline.load(path))
    found.save(output)
    if as_json:
        document = {"file": str(output), "rows": found.rows, "columns": len(found.columns)}
        echo(json.dumps(document))
        return
    echo(f"{output} written: {found.rows:,} rows, {len(found.columns)} columns")


def _from_live(url: str, model: str, version: str) -> Baseline:
    from urllib.parse import urlencode

    from understudy.monitor.baseline.model import Baseline
    from understudy.monitor.cli.client import Client

    query = urlencode({"model": model, "version": version})
    data = json.loads(Client(url).text(f"/v1/baseline?{query}"))
    return Baseline.from_dict(data, url)


def _with_progress(
    work: Callable[[Callable[[int, int], None]], tuple[Baseline, int]],
) -> tuple[Baseline, int]:
    from understudy.common.screen import progress_bar

    with progress_bar() as bar:
        task = bar.add_task("reading", total=None)
        return work(lambda read, total: bar.update(task, completed=read, total=total))


def _print(found: Baseline) -> None:
    from understudy.common.screen import console, plain_table
    from understudy.monitor.baseline import show as showing

    name = " ".join(part for part in (found.model, found.model_version) if part) or "any model"
    echo(f"{name}, {found.rows:,} rows of {found.source or 'live traffic'}, {found.created}")
    table = plain_table("series", "role, kind", "missing", "histogram", "values", wraps=["values"])
    for row in showing.table(found):
        table.add_row(*row)
    console().print(table)
    for metric, one in (found.performance or {}).items():
        echo(f"  {metric.replace('_', ' ')} {one['value']:.4g} ({one['rows']:,} rows)")
    for note in showing.notes(found):
        echo(f"  note: {note}")
