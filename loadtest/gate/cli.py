"""``understudy gate``: is this model server ready for production?"""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from understudy.common.terminal import echo, echo_lines
from understudy.loadtest.errors import LoadTestError, PlanError

if TYPE_CHECKING:
    from understudy.loadtest.gate.result import Result

# The rest is imported by the commands when they run, so that help costs nothing.
_OUT = click.Path(dir_okay=False, path_type=Path)


@click.group("gate", invoke_without_command=True)
@click.option("--target", metavar="URL", help="The server to load; default: the plan's target.")
@click.option("--plan", "plan_file", type=_OUT, help="The plan: stages and their limits.")
@click.option("--html", type=_OUT, help="Write a report with plots.")
@click.option("--json-file", type=_OUT, help="Write the result as JSON, for `gate compare`.")
@click.option("--junit", type=_OUT, help="Write JUnit XML, for CI.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
@click.option(
    "--i-own-this-target",
    "own",
    is_flag=True,
    help="Allow load on a public address. It must be yours.",
)
@click.option(
    "--grafana",
    metavar="URL",
    envvar="UNDERSTUDY_GRAFANA",
    show_envvar=True,
    help="Grafana in which to annotate the stages.",
)
@click.option(
    "--no-verdict",
    is_flag=True,
    help="Show results without a verdict; objectives are not judged.",
)
@click.option(
    "--check", "only_check", is_flag=True, help="Check the plan and print its limits; send no load."
)
@click.pass_context
def gate(
    context: click.Context,
    target: str | None,
    plan_file: Path | None,
    html: Path | None,
    json_file: Path | None,
    junit: Path | None,
    as_json: bool,
    own: bool,
    grafana: str | None,
    no_verdict: bool,
    only_check: bool,
) -> None:
    """Load test a model server, inject faults, and decide if it is ready for production.

    Exit code 0: passed. 1: failed. 2: no verdict: inconclusive, for example because of too few
    requests or a late load generator, or not measured, for example because nothing was asked of a
    stage, no answer was good, or the target is unreachable.

    \b
    Examples:
      understudy gate --target http://127.0.0.1:8080 --plan gate.yaml --html report.html
      understudy gate --target http://127.0.0.1:8080 --plan gate.yaml --check
      understudy gate --target http://127.0.0.1:8080 --plan load.yaml --no-verdict
      understudy gate compare last.json now.json
      understudy gate fault pause-champion > pause.json
      understudy gate mesh pause-model.json -n serving -l app=model
    """
    if context.invoked_subcommand is not None:
        return
    from understudy.loadtest.gate.annotations import AnnotatingProgress
    from understudy.loadtest.gate.junit import to_xml
    from understudy.loadtest.gate.limits import understood
    from understudy.loadtest.gate.plan_file import load_plan
    from understudy.loadtest.gate.report import page
    from understudy.loadtest.gate.run import Gate
    from understudy.loadtest.gate.show import SilentProgress, Terminal

    if plan_file is None:
        raise click.UsageError("name a plan: --plan gate.yaml")
    try:
        plan = load_plan(plan_file)
        url = target or plan.target
        if url is None:
            raise click.UsageError("name the target: --target http://host:port")
        show = SilentProgress() if as_json else Terminal()
        if grafana:
            show = AnnotatingProgress(show, grafana)
        run = Gate(plan, url, str(plan_file), show, own, not no_verdict)
    except LoadTestError as error:
        echo_lines(f"understudy: {error}", err=True)
        sys.exit(2)
    if only_check:
        stages, payloads = len(plan.stages), len(run.requests)
        echo(
            f"{plan_file}: OK: {stages} stage{'s'[: stages != 1]}, {payloads:,} "
            f"payload{'s'[: payloads != 1]}"
        )
        for line in understood(plan):
            echo(line)
        for note in run.notes:
            echo(f"note: {note}")
        return

    def keep(so_far: Result) -> None:
        # So that a gate that is killed leaves what it has measured.
        if json_file is not None:
            _write(json_file, _json(so_far))

    result = run.run(keep)
    problems = [
        problem
        for path, text in ((html, page), (json_file, _json), (junit, to_xml))
        if path is not None and (problem := _write(path, text(result)))
    ]
    unwritten = any(problem.startswith(f"{json_file}:") for problem in problems)
    if as_json or unwritten:
        echo_lines(_json(result))  # what cannot be written is not lost
    if not as_json:
        _print(result, err=unwritten)
    for problem in problems:
        echo_lines(f"understudy: {problem}", err=True)
    sys.exit(max(result.exit_code, 2 if problems else 0))


@gate.command("compare")
@click.argument("old", type=_OUT)
@click.argument("new", type=_OUT)
@click.option(
    "--margin",
    default=0.1,
    show_default=True,
    type=click.FloatRange(min=0.0),
    help="Smallest relative change that matters.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
def compare(old: Path, new: Path, margin: float, as_json: bool) -> None:
    """Check whether anything got worse between two results of the same plan.

    Exit code 0: nothing got worse. 1: something did. 2: it cannot be told, for example because of
    too few requests, or because the results have no stage in common or are of machines with another
    number of cores.

    \b
    Example:
      understudy gate compare last.json now.json --margin 0.2
    """
    from understudy.common.screen import Table, Text, console
    from understudy.loadtest.gate.regression import changes, overall
    from understudy.loadtest.gate.stored import read

    try:
        result = changes(read(old), read(new), margin)
    except LoadTestError as error:
        echo_lines(f"understudy: cannot be compared: {error}", err=True)
        sys.exit(2)
    code, sentence = overall(result)
    if as_json:
        echo(json.dumps([one.to_dict() for one in result]))
    else:
        table = Table(box=None, pad_edge=False)
        for name in ("stage", "figure", "before", "after", "change", "verdict"):
            table.add_column(name, wraps=name == "verdict")
        styles = {"worse": "red", "better": "green", "cannot be told": "yellow"}
        for one in result:
            verdict = f"{one.verdict}{': ' + one.why if one.why else ''}"
            style = styles.get(one.verdict, "")
            table.add_row(
                one.stage, one.figure, *one.values(), one.interval(), Text(verdict, style)
            )
        console().print(table)
    echo_lines(sentence, err=as_json)
    sys.exit(code)


@gate.command("fault")
@click.argument("name", required=False)
@click.option("--seconds", default=5.0, show_default=True, help="Duration of the fault in seconds.")
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change an argument of the fault; may be repeated.",
)
@click.option("--answers", metavar="URL", help="URL that must respond before and after the fault.")
def fault(name: str | None, seconds: float, changes: tuple[str, ...], answers: str | None) -> None:
    """Print a ready experiment with the fault NAME; without a name, list the faults.

    Exit code 2: the fault is unknown, or does not take this argument.

    \b
    Examples:
      understudy gate fault
      understudy gate fault pause-champion --set port=9001 --seconds 2 > pause.json
      understudy gate fault latency --set latency=300 --answers http://127.0.0.1:8080/ready
    """
    from understudy.loadtest.chaos.library import FAULTS, experiment

    if name is None:
        for key, one in FAULTS.items():
            echo(f"{key:<18} {one.title}: {one.func} {json.dumps(dict(one.arguments))}")
        return
    try:
        pairs = [part.partition("=") for part in changes]
        if any(not key or not middle for key, middle, _ in pairs):
            raise PlanError("--set: write KEY=VALUE")
        given = {key: _value(key, value) for key, _, value in pairs}
        result = experiment(name, given, seconds, answers)
    except LoadTestError as error:
        echo_lines(f"understudy: {error}", err=True)
        sys.exit(2)
    echo_lines(json.dumps(result, indent=2))


@gate.command("mesh")
@click.argument("file", metavar="EXPERIMENT", type=_OUT)
@click.option(
    "--namespace", "-n", default="default", show_default=True, help="Namespace of the pods."
)
@click.option(
    "--selector", "-l", required=True, help="Labels of the pods, such as app=model,tier=web."
)
def mesh(file: Path, namespace: str, selector: str) -> None:
    """Print the faults of a Chaos Toolkit EXPERIMENT as Chaos Mesh resources.

    Exit code 2: a fault has no counterpart in Chaos Mesh, or the file is not an experiment.

    \b
    Example:
      understudy gate mesh pause-model.json -n serving -l app=model | kubectl apply -f -
    """
    import yaml

    from understudy.loadtest.chaos.experiment import load_experiment
    from understudy.loadtest.chaos.mesh import resources

    pairs = [part.partition("=") for part in selector.split(",")]
    try:
        if any(not key or not value for key, _, value in pairs):
            raise PlanError(f"--selector {selector!r}: write app=model")
        labels = {key: value for key, _, value in pairs}
        result = resources(load_experiment(file), namespace, labels)
    except LoadTestError as error:
        echo_lines(f"understudy: {error}", err=True)
        sys.exit(2)
    echo_lines(yaml.safe_dump_all(result, sort_keys=False), end="")


def _value(key: str, text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise PlanError(f"--set {key}={text}: the value is not valid YAML") from error


def _json(result: Result) -> str:
    return json.dumps(result.to_dict(), default=float)


def _write(path: Path, text: str) -> str:
    """What went wrong, or an empty text. Written whole or not at all."""
    fresh = path.with_name(f".{path.name}.fresh")
    try:
        fresh.write_text(text)
        fresh.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            fresh.unlink()
        return f"{path}: cannot be written: {error.strerror}"
    return ""


def _print(result: Result, err: bool) -> None:
    for note in result.notes:
        echo(f"note: {note}", err=err)
    if result.broken:
        echo(f"ended early: {result.broken}", err=err)
    elif result.why:
        echo(result.why, err=err)
    words = {
        "passed": "PASSED: ready for production",
        "failed": "FAILED: not ready for production",
        "invalid": "INCONCLUSIVE: no verdict",
        "not measured": "NOT MEASURED: no verdict",
        "shown": "SHOWN: no verdict was asked for",
    }
    echo(words[result.verdict], err=err)
