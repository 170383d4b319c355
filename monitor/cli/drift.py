"""``understudy drift``: compare files."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from understudy.common.terminal import echo
from understudy.monitor.cli.options import (
    FILE,
    delimiter_option,
    json_option,
    skip_broken_option,
)


@click.group("drift")
def drift() -> None:
    """Compare files for changes of inputs and predictions.

    \b
    Example:
      understudy drift report january.parquet february.parquet --html drift.html
    """


@drift.command("report")
@click.argument("reference", type=FILE)
@click.argument("current", type=FILE)
@click.option("--target", help="The column with the label (the truth).")
@click.option(
    "--prediction",
    "predictions",
    multiple=True,
    help="A column with an output of the model; may be repeated.",
)
@click.option("--time", help="The column with the time of the row: ISO 8601 or Unix seconds.")
@click.option(
    "--ignore", multiple=True, help="A column to leave out, such as an id; may be repeated."
)
@click.option(
    "--categorical", multiple=True, help="A column whose numbers are codes; may be repeated."
)
@click.option(
    "--declare",
    "declared",
    multiple=True,
    help="A feature to compare although it looks like an identifier, a timestamp or a counter; "
    "may be repeated.",
)
@click.option(
    "--segment",
    "segments",
    multiple=True,
    help="A feature whose values are compared one by one; may be repeated.",
)
@click.option(
    "--window",
    type=click.IntRange(0),
    default=0,
    help="Rows of one step of the timeline; default: as many as give up to 60 steps.",
)
@click.option(
    "--smallest",
    type=float,
    default=0.02,
    show_default=True,
    help="The smallest PSI beyond chance that matters.",
)
@click.option("--html", "html_path", type=FILE, help="Write the report as an HTML page.")
@json_option
@delimiter_option
@skip_broken_option
@click.option("--exit-code", is_flag=True, help="Exit 1 when something has changed.")
def report_command(
    reference: Path,
    current: Path,
    target: str | None,
    predictions: tuple[str, ...],
    time: str | None,
    ignore: tuple[str, ...],
    categorical: tuple[str, ...],
    declared: tuple[str, ...],
    segments: tuple[str, ...],
    window: int,
    smallest: float,
    html_path: Path | None,
    as_json: bool,
    delimiter: str | None,
    skip_broken: bool,
    exit_code: bool,
) -> None:
    """Compare the rows of CURRENT with REFERENCE, which is a file of rows or a baseline.

    Gives each column one verdict (missing, type, constancy, range, distribution, or as usual) with
    its reason, names columns that look like an identifier, a timestamp or a counter, compares the
    labels of both, and says what monitoring would have found, and when. A column has changed when
    that is more than chance, over all tests of all columns together, and large enough to matter.

    \b
    Examples:
      understudy drift report baseline.json february.csv --html drift.html
      understudy drift report jan.parquet feb.parquet --ignore id --json --exit-code
    """
    from understudy.common.files import is_json_list
    from understudy.common.screen import progress_bar
    from understudy.monitor.baseline.build import BuildOptions, build
    from understudy.monitor.baseline.files import Reader
    from understudy.monitor.baseline.model import Baseline
    from understudy.monitor.errors import BaselineError
    from understudy.monitor.health.report.analysis import Analysis, ReportOptions
    from understudy.monitor.health.report.html import page

    ignored = frozenset(ignore)
    with progress_bar() as bar:
        if reference.suffix.lower() == ".json" and not is_json_list(reference):
            baseline = Baseline.load(reference)
        else:
            task = bar.add_task("reading the reference", total=None)
            wanted = BuildOptions(
                "",
                "",
                target,
                predictions,
                time,
                ignored,
                frozenset(categorical),
                frozenset(declared),
                delimiter=delimiter,
            )
            baseline, _ = build(
                [reference],
                wanted,
                skip_broken,
                lambda read, total: bar.update(task, completed=read, total=total),
            )
        reader = Reader(current, skip_broken, delimiter)
        second = bar.add_task("reading the current rows", total=reader.size)
        reader.progress = lambda read: bar.advance(second, read)
        options = ReportOptions(time, ignored, window, smallest, segments, declared)
        analysis = Analysis(baseline, options)
        for table in reader.tables():
            analysis.take(table)
    if not analysis.rows:
        raise BaselineError(f"{current}: it has no rows")
    found = analysis.report()
    if html_path is not None:
        try:
            html_path.write_text(page(found, reference.name, current.name), encoding="utf-8")
        except OSError as error:
            raise click.ClickException(f"{html_path}: {error.strerror}") from error
    if as_json:
        echo(json.dumps(found))
    else:
        _print(found, html_path)
        if reader.skipped:
            echo(f"{reader.skipped:,} lines could not be read and were left out")
    if exit_code and found["changed"]:
        sys.exit(1)


def _print(found: dict[str, Any], html_path: Path | None) -> None:
    from understudy.common.screen import Text, console, plain_table

    psi: dict[str, float] = {}
    for one in found["series"]:
        psi[one["column"]] = max(psi.get(one["column"], 0.0), one["psi"] or 0.0)
    table = plain_table("column", "verdict", "PSI", "adjusted p", "why", wraps=["why"])
    for one in found["columns"]:
        p_value = "–" if one["adjusted_p"] is None else f"{one['adjusted_p']:.2g}"
        distance = psi.get(one["column"])
        table.add_row(
            one["column"],
            Text(one["verdict"], "red" if one["drifted"] else ""),
            "–" if distance is None else f"{distance:.3g}",
            p_value,
            one["reason"],
            style="bold" if one["drifted"] else "",
        )
    console().print(table)
    for text in found["notes"]:
        echo(text)
    if found["added"]:
        echo(f"not in the reference: {', '.join(found['added'])}")
    if found["joint"]:
        columns = ", ".join(found["joint"]["columns"])
        echo(f"together: {columns}: {found['joint']['reason']}")
    for one in found["performance"]:
        echo(
            f"{one['metric'].replace('_', ' ')}: {one['current']:.4g}, was {one['reference']:.4g}"
            + (" (changed)" if one["changed"] else "")
        )
    for one in found["findings"]:
        echo(f"monitoring would report after {one['after_rows']:,} rows: {one['title']}")
    echo(
        f"{len(found['drifted'])} of {len(found['columns'])} columns have changed in "
        f"{found['rows']:,} rows, compared with {found['baseline']['rows']:,}"
    )
    if html_path is not None:
        echo(f"{html_path} written")
