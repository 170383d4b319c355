"""``understudy replay``: the evaluation over a recorded log."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from understudy.common.terminal import echo
from understudy.monitor.cli.options import config_option, json_option, skip_broken_option

if TYPE_CHECKING:
    from understudy.monitor.records.log import Damage
    from understudy.monitor.replay.run import Replay

_LOG = click.Path(path_type=Path)


@click.command("replay")
@click.argument("log", type=_LOG)
@config_option("The configuration; it may differ from that of the recording.")
@skip_broken_option
@json_option
@click.option("--exit-code", is_flag=True, help="Exit 1 when there is a finding.")
def replay(log: Path, config_path: Path, skip_broken: bool, as_json: bool, exit_code: bool) -> None:
    """Run the whole evaluation over LOG, written by `records.log`, in the time of the log.

    Findings and experiments are the same as live, so another baseline, threshold or margin can be
    tried on past traffic. LOG is a folder, or a file of JSON lines as earlier versions wrote them,
    with its parts LOG.1, LOG.2 … before it. Damaged parts of a folder are skipped and reported. The
    running service is not affected.

    \b
    Examples:
      understudy replay records
      understudy replay records --config stricter.yaml --json
    """
    from understudy.common.screen import progress_bar
    from understudy.monitor.archive.reading import open_log
    from understudy.monitor.config.load import load
    from understudy.monitor.replay.run import Replay

    found = open_log(log)
    run = Replay(load(config_path), skip_broken)
    try:
        with progress_bar() as bar:
            task = bar.add_task("replaying", total=found.size)
            run.run(found, lambda read, _: bar.update(task, completed=read))
        document = _document(run, found.damage)
    finally:
        run.close()
    if as_json:
        echo(json.dumps(document))
    else:
        _print(document)
    if exit_code and document["findings"]:
        sys.exit(1)


def _document(run: Replay, damage: Damage) -> dict[str, Any]:
    from understudy.monitor.experiments.summary import explanation

    return {
        "records": run.records,
        "labels": run.labels,
        "broken_lines": run.broken,
        "repeated": run.repeated,
        "damaged": {"places": damage.frames, "bytes": damage.bytes + damage.torn},
        "from": _time(run.first or run.now),
        "to": _time(run.now),
        "findings": [finding.to_dict() for finding in run.findings_loop.service.ledger.all()],
        "not_tested": run.findings_loop.watches.untested(),
        "experiments": {
            name: {
                challenger: {
                    "decision": contestant.decision.verdict,
                    "cause": contestant.decision.cause,
                    "reasons": list(contestant.decision.reasons),
                    **explanation(live, contestant, run.now).to_dict(),
                    "phase": contestant.rollout.phase,
                }
                for challenger, contestant in live.contestants.items()
            }
            for name, live in run.experiments.live.items()
        },
    }


def _print(document: dict[str, Any]) -> None:
    echo(
        f"{document['records']:,} records and {document['labels']:,} labels, "
        f"{document['from']} to {document['to']}"
    )
    if document["broken_lines"]:
        echo(f"{document['broken_lines']:,} lines could not be read")
    if document["repeated"]:
        echo(f"{document['repeated']:,} records were written twice and are counted once")
    damaged = document["damaged"]
    if damaged["bytes"]:
        echo(
            f"skipped {damaged['bytes']:,} damaged bytes in {damaged['places']:,} places of the log"
        )
    findings = document["findings"]
    echo(f"{len(findings)} findings" if findings else "no findings")
    for found in findings:
        echo(f"  {found['title']}")
        since = found.get("since")
        echo(
            f"    opened {_time(found['opened'])}"
            + (f", since {_time(since)}" if since is not None else "")
            + (f", closed {_time(found['closed'])}" if found.get("closed") else ", open")
        )
    for one in document["not_tested"]:
        echo(f"  not tested ({one['model']}): {one['words']}")
    for name, challengers in document["experiments"].items():
        for challenger, one in challengers.items():
            echo(f"  experiment {name}: {challenger} {one['outcome']} ({one['phase']})")
            for line in (*one["why"], *one["next"]):
                echo(f"    {line}")


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
