"""``understudy records``: export, show and verify the log of records on disk."""

from __future__ import annotations

import json
import sys
from collections import deque
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from understudy.common.terminal import echo
from understudy.monitor.cli.options import FILE, json_lines_option, json_option
from understudy.monitor.errors import LogError
from understudy.monitor.records.record import OUTCOMES, ROLES

if TYPE_CHECKING:
    from understudy.monitor.archive.records import LabelItem, Log, RecordItem


class _Time(click.ParamType):  # type: ignore[type-arg]  # older clicks have none
    name = "time"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        try:
            return float(value)
        except ValueError:
            from understudy.monitor.baseline.kinds import instant

            result = instant(value)
        if result is None:
            self.fail(
                f"not a valid time: {value!r} (examples: 2026-01-31T12:00:00Z, or unix seconds)",
                param,
            )
        return result


_log = click.argument("log", type=click.Path(path_type=Path))
_since = click.option(
    "--from", "since", type=_Time(), help="Only from this time on, as in 2026-05-01T12:00:00Z."
)
_until = click.option("--to", "until", type=_Time(), help="Only before this time.")
_model = click.option("--model", help="Only records of this model.")
_version = click.option("--version", help="Only records of this version of a model.")
_skip = click.option(
    "--skip-broken", is_flag=True, help="Skip and count lines that cannot be read."
)


@click.group("records")
def records() -> None:
    """Read the log of records that `records.log` writes.

    LOG is its folder, or a file of JSON lines as earlier versions wrote them. It may be read while
    the service writes it; damaged parts are skipped and reported.

    \b
    Examples:
      understudy records show records -n 5
      understudy records verify records
      understudy records export records -o records.parquet --labels labels.parquet
    """


@records.command("export")
@_log
@click.option("--out", "-o", type=FILE, required=True, help="A .parquet or .jsonl file.")
@click.option("--labels", type=FILE, help="With Parquet: write the labels to this file.")
@click.option(
    "--config",
    "-c",
    "config_path",
    type=FILE,
    help="Configuration file: how payloads are read, and what is redacted.",
)
@_since
@_until
@_model
@_version
@_skip
@json_option
def export(
    log: Path,
    out: Path,
    labels: Path | None,
    config_path: Path | None,
    since: float | None,
    until: float | None,
    model: str | None,
    version: str | None,
    skip_broken: bool,
    as_json: bool,
) -> None:
    """Write the records of LOG to a file for pandas, DuckDB, Spark, or a load test.

    A Parquet file has a row for each row of a request, with typed columns: those of the exchange,
    `feature.NAME` and `prediction.NAME`, without payloads and redacted columns. JSON lines hold
    everything, payloads included.

    \b
    Examples:
      understudy records export records -o records.parquet
      understudy records export records -o may.parquet --from 2026-05-01T00:00:00Z --model delays
      understudy records export records -o recorded.jsonl --json
    """
    from understudy.common.files import LINES, PARQUET
    from understudy.common.screen import progress_bar
    from understudy.monitor.archive.export import (
        labels_to_parquet,
        to_lines,
        to_parquet,
    )
    from understudy.monitor.archive.reading import open_log
    from understudy.monitor.archive.records import Log, RecordFilter
    from understudy.monitor.config.load import load

    kind = out.suffix.lower()
    if kind not in PARQUET + LINES:
        raise click.UsageError(f"--out: {out.name} must end in .parquet or .jsonl")
    if labels is not None and kind in LINES:
        raise click.UsageError("--labels: JSON lines hold the labels anyway")
    result = Log(open_log(log), RecordFilter(since, until, model, version), skip_broken)
    config = load(config_path) if config_path is not None else None
    with progress_bar() as bar:
        passes = 1 if kind in LINES else 2 + (labels is not None)
        task = bar.add_task("exporting", total=passes * result.files.size)

        def progress(size: int) -> None:
            bar.advance(task, size)

        if kind in LINES:
            document = to_lines(result, out, progress)
        else:
            document = to_parquet(result, config, out, progress)
            if labels is not None:
                result.restart()
                document["labels"] = labels_to_parquet(result, labels, progress)
    document = {"file": str(out), **document, **_faults(result)}
    if as_json:
        echo(json.dumps(document))
        return
    rows = f" in {document['rows']:,} rows" if "rows" in document else ""
    echo(f"{out}: {document['records']:,} records{rows}")
    if "labels" in document:
        echo(f"{labels or out}: {document['labels']:,} labels")
    if document.get("undecoded"):
        hint = "" if config is not None else "; give --config to decode payloads"
        echo(f"{document['undecoded']:,} records have no readable features{hint}")
    _say_faults(log, document)


@records.command("show")
@_log
@click.option(
    "-n",
    "count",
    type=click.IntRange(1, 100_000),
    default=20,
    show_default=True,
    help="Number of the newest records and labels.",
)
@_since
@_until
@_model
@_version
@_skip
@json_lines_option
def show(
    log: Path,
    count: int,
    since: float | None,
    until: float | None,
    model: str | None,
    version: str | None,
    skip_broken: bool,
    as_json: bool,
) -> None:
    """Show the newest records and labels of LOG; with --json as they are, payloads included.

    \b
    Examples:
      understudy records show records -n 5
      understudy records show records --from 2026-05-01T12:00:00Z --json | jq .record.outcome
    """
    from understudy.common.screen import progress_bar
    from understudy.monitor.archive.reading import open_log
    from understudy.monitor.archive.records import LabelItem, Log, RecordFilter, RecordItem

    result = Log(open_log(log), RecordFilter(since, until, model, version), skip_broken)
    with progress_bar() as bar:
        task = bar.add_task("reading", total=result.files.size)
        items = result.items(lambda size: bar.advance(task, size))
        newest = deque((i for i in items if isinstance(i, (RecordItem, LabelItem))), maxlen=count)
    for item in newest:
        if as_json:
            echo(item.line.decode("utf-8", "replace").rstrip("\n"))
        else:
            echo(_shown(item))
    if not as_json:
        _say_faults(log, _faults(result))


@records.command("verify")
@_log
@json_option
def verify(log: Path, as_json: bool) -> None:
    """Read all of LOG and check that it is complete. Exits 1 when something is damaged.

    A torn tail of the newest file is not damage if the service is writing it or was killed: it
    is truncated when the service starts again.

    \b
    Example:
      understudy records verify records --json
    """
    from understudy.common.screen import progress_bar
    from understudy.monitor.archive.reading import open_log
    from understudy.monitor.archive.records import LabelItem, Log, RecordItem

    result = Log(open_log(log), skip_broken=True)
    times: list[float] = []
    counts = {"records": 0, "labels": 0}
    with progress_bar() as bar:
        task = bar.add_task("verifying", total=result.files.size)
        for item in result.items(lambda size: bar.advance(task, size)):
            if isinstance(item, RecordItem):
                counts["records"] += 1
                at = item.record.started
                times = [min([at, *times]), max([at, *times])]
            elif isinstance(item, LabelItem):
                counts["labels"] += 1
    document: dict[str, Any] = {
        "log": str(log),
        "files": len(result.files.files),
        "bytes": result.files.size,
        **counts,
        "from": _time(times[0]) if times else None,
        "to": _time(times[1]) if times else None,
        **_faults(result),
    }
    whole = not document["broken_lines"] and not document["damaged"]["places"]
    if as_json:
        echo(json.dumps({**document, "whole": whole}))
    else:
        span = f", {document['from']} to {document['to']}" if times else ""
        echo(
            f"{log}: {document['files']:,} files, {document['bytes']:,} bytes, "
            f"{counts['records']:,} records and {counts['labels']:,} labels{span}"
        )
        _say_faults(log, document)
        echo("whole" if whole else "damaged")
    sys.exit(0 if whole else 1)


def _faults(log: Log) -> dict[str, Any]:
    damage = log.files.damage
    return {
        "broken_lines": log.broken,
        "repeated": log.repeated,
        "damaged": {
            "places": damage.frames,
            "bytes": damage.bytes,
            "where": damage.places,
            "torn_bytes": damage.torn,
        },
    }


def _say_faults(log: Path, document: dict[str, Any]) -> None:
    damaged = document["damaged"]
    if document["broken_lines"]:
        echo(f"{log}: {document['broken_lines']:,} lines could not be read", err=True)
    if document["repeated"]:
        echo(f"{document['repeated']:,} records were written twice and are counted once", err=True)
    if damaged["places"]:
        where = ", ".join(damaged["where"])
        echo(
            f"skipped {damaged['bytes']:,} damaged bytes: {where}",
            err=True,
        )
    if damaged["torn_bytes"]:
        echo(f"skipped a torn tail of {damaged['torn_bytes']:,} bytes", err=True)


def _shown(item: RecordItem | LabelItem) -> str:
    from understudy.monitor.archive.records import LabelItem

    if isinstance(item, LabelItem):
        label = item.label
        value = label.label if label.label is not None else f"reward {label.reward}"
        return f"{_time(item.received)}  label   {label.request_id}[{label.row}] = {value}"
    record, (name, version, _) = item.record, item.model
    arms = item.names.arms
    arm = arms[record.arm] if record.arm < len(arms) else "other"
    request_id = record.request_id.decode("latin-1")
    return (
        f"{_time(record.started)}  {ROLES[record.role]:<7} {name} {version} {arm}  "
        f"{record.status} {OUTCOMES[record.outcome]}  {record.duration_ns / 1e6:,.1f} ms  "
        f"{request_id}"
    )


def _time(at: float) -> str:
    try:
        return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError) as error:
        raise LogError(f"not a valid time of a record: {at!r}") from error
