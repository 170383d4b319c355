"""``understudy slo``: generate, explain and test rules and alerts from objectives."""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from understudy.common.terminal import echo, echo_lines
from understudy.monitor.cli.options import FILE, json_option
from understudy.monitor.errors import ConfigError

if TYPE_CHECKING:
    from understudy.monitor.slo.compiled import Compiled

PARTS = ("rules", "tests", "prometheusrule", "alertmanager")


class _Share(click.ParamType[float]):
    """0.1 or 10%."""

    name = "share"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        from understudy.common.units import ratio

        try:
            result = ratio(float(value) if str(value).replace(".", "", 1).isdigit() else value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if not 0.0 < result <= 1.0:
            self.fail(f"not a valid share: {value} (examples: 0.05, 5%)", param, ctx)
        return result


def _reads(command: Callable[..., Any]) -> Callable[..., Any]:
    """The arguments that all commands of the group share."""
    for option in (
        click.option(
            "--installation",
            is_flag=True,
            help="Also the rules about sidecars, evaluators and Kafka: once for each Prometheus.",
        ),
        click.option(
            "--service", metavar="NAME", help="Name of the service, instead of the one in the file."
        ),
        click.argument("file", type=FILE),
    ):
        command = option(command)
    return command


@click.group("slo")
def slo() -> None:
    """Turn objectives into rules and alerts, explain them, and test them.

    FILE holds objectives in our own format, or in that of OpenSLO, Sloth or Pyrra; or it is a
    sidecar's configuration, whose `objectives` are taken. See docs/slo.md.

    \b
    Examples:
      understudy slo explain slo.yaml
      understudy slo generate slo.yaml -o rules/
      understudy slo test slo.yaml
    """


@slo.command("generate")
@_reads
@click.option(
    "--output",
    "-o",
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder for the files; default: print everything.",
)
@click.option(
    "--only",
    type=click.Choice(PARTS),
    multiple=True,
    help="Only this part; may be repeated.",
)
@click.option("--runbooks", metavar="URL", help="Base URL of the runbooks; may contain {alert}.")
@click.option(
    "--label", metavar="NAME=VALUE", multiple=True, help="A label of the manifest; may be repeated."
)
@click.option("--namespace", default="", help="The namespace of the manifest.")
@click.option("--page-webhook", metavar="URL", default="", help="Webhook that receives pages.")
@click.option("--ticket-webhook", metavar="URL", default="", help="Webhook that receives tickets.")
@json_option
def generate(
    file: Path,
    service: str | None,
    installation: bool,
    output: Path | None,
    only: tuple[str, ...],
    runbooks: str | None,
    label: tuple[str, ...],
    namespace: str,
    page_webhook: str,
    ticket_webhook: str,
    as_json: bool,
) -> None:
    """Write rules, their unit tests, a PrometheusRule and Alertmanager's routes.

    \b
    Examples:
      understudy slo generate slo.yaml -o rules/ --installation
      understudy slo generate understudy.yaml --only prometheusrule --label release=prometheus
      understudy slo generate slo.yaml -o . --page-webhook http://127.0.0.1:8090/page
    """
    from understudy.monitor.slo.load import load
    from understudy.monitor.slo.text import dumped

    result = load(file, service=service, runbooks=runbooks, installation=installation)
    _notices(result)
    labels = dict(_pair(one) for one in label)
    webhooks = {"page": page_webhook, "ticket": ticket_webhook}
    files = files_of(result, only or PARTS, labels, namespace, webhooks)
    if as_json:
        echo(json.dumps(files))
        return
    if output is None:
        echo_lines("---\n".join(f"# {name}\n{dumped(data, '')}" for name, data in files.items()))
        return
    try:
        output.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            (output / name).write_text(dumped(data), encoding="utf-8")
    except OSError as error:
        raise ConfigError(str(output), [("", f"cannot be written: {error.strerror}")]) from error
    for name in files:
        echo(str(output / name))
    if "alertmanager.yml" in files and not page_webhook:
        _notice("alertmanager.yml: pages have no receiver; give --page-webhook, or add a receiver")
    if "rules" in (only or PARTS):
        for name in _left_over(output, result, files):
            _notice(f"{output / name}: of an objective that is gone; remove it and its tests")


def _left_over(output: Path, found: Compiled, files: dict[str, Any]) -> list[str]:
    """Rule files of the same services that an earlier run wrote and this one did not."""
    from understudy.monitor.slo.compiled import INSTALLATION
    from understudy.monitor.slo.text import HEADER

    ours = {found.service, *(slo.service for slo in found.slos)}
    old = []
    for path in sorted(output.glob("*.rules.yml")):
        if path.name in files or path.name == f"{INSTALLATION}.rules.yml":
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        services = set(re.findall(r"^ +service: (\S+)$", text, re.MULTILINE))
        if text.startswith(HEADER) and services and services <= ours:
            old.append(path.name)
    return old


def files_of(
    found: Compiled,
    parts: tuple[str, ...] = PARTS,
    labels: dict[str, str] | None = None,
    namespace: str = "",
    webhooks: dict[str, str] | None = None,
) -> dict[str, Any]:
    """The content of every file, by name."""
    from understudy.monitor.slo import alertmanager

    files: dict[str, Any] = {}
    if "rules" in parts:
        files |= found.rule_files()
    if "tests" in parts:
        files |= found.test_files()
    if "prometheusrule" in parts:
        files |= found.prometheus_rules(labels or {}, namespace)
    if "alertmanager" in parts:
        files["alertmanager.yml"] = alertmanager.document(webhooks or {}, found.scope.identity)
    return files


@slo.command("explain")
@_reads
@click.option(
    "--bad", type=_Share(), multiple=True, help="Share of bad events, such as 5%; may be repeated."
)
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="Events per second.")
@json_option
def explain_command(
    file: Path,
    service: str | None,
    installation: bool,
    bad: tuple[float, ...],
    rate: float | None,
    as_json: bool,
) -> None:
    """Explain when each objective's alerts fire, in words and minutes.

    Times count from the start of a fault, after traffic without errors for as long as the longest
    window; add one evaluation and one scrape interval.

    \b
    Examples:
      understudy slo explain slo.yaml
      understudy slo explain slo.yaml --bad 5% --rate 0.2
    """
    from understudy.monitor.slo import explain
    from understudy.monitor.slo.compiled import INSTALLATION
    from understudy.monitor.slo.load import load
    from understudy.monitor.slo.trials import FAULTS

    result = load(file, service=service, installation=installation)
    faults = bad or FAULTS
    if as_json:
        explanations = [explain.explained(one, faults, rate) for one in result.slos]
        echo(json.dumps({"slos": explanations, "notices": result.notices}))
        return
    echo_lines("\n\n".join(explain.text(one, faults, rate) for one in result.slos))
    _notices(result, but=tuple(f"{one.name}: " for one in result.slos))
    for name, alerts in result.parts().items():
        scope = result.scope
        of = scope.describe_scrape() if name == INSTALLATION else scope.describe()
        about = f"installation, all sidecars {of}" if name == INSTALLATION else of
        names = ", ".join(sorted({alert.name for alert in alerts}))
        echo_lines(f"\nBesides, {about}: {names}")


@slo.command("test")
@_reads
@click.option(
    "--promtool", "tool", metavar="PROGRAM", help="Path of promtool; default: search for it."
)
@click.option(
    "--only", metavar="TEXT", default="", help="Only files whose name contains this text."
)
@click.option("--quick", is_flag=True, help="Test total outages only, which is faster.")
@json_option
def test(
    file: Path,
    service: str | None,
    installation: bool,
    tool: str | None,
    only: str,
    quick: bool,
    as_json: bool,
) -> None:
    """Check the rules with promtool, and that each alert fires when predicted.

    Exits 0 when everything is as predicted, 1 when not.

    \b
    Examples:
      understudy slo test slo.yaml
      understudy slo test slo.yaml --only availability --quick
    """
    from understudy.monitor.slo import promtool
    from understudy.monitor.slo.load import load
    from understudy.monitor.slo.text import dumped
    from understudy.monitor.slo.trials import FAULTS

    outcome = load(file, service=service, installation=installation)
    program = promtool.program(tool)
    _notices(outcome)
    rules, tests = outcome.rule_files(), outcome.test_files((1.0,) if quick else FAULTS)
    tests = {name: data for name, data in tests.items() if only in name}
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for name_, data in {**rules, **tests}.items():
            (folder / name_).write_text(dumped(data), encoding="utf-8")
        good, output = promtool.run(program, ["check", "rules", *rules], folder)
        results.append({"file": "rules", "passed": good, "tests": 0, "output": output})
        _print_result(results[-1], as_json)
        for name_, data in tests.items():
            good, output = promtool.run(program, ["test", "rules", name_], folder)
            count = len(data["tests"])
            results.append({"file": name_, "passed": good, "tests": count, "output": output})
            _print_result(results[-1], as_json)
    passed = all(result["passed"] for result in results)
    if as_json:
        echo(json.dumps({"passed": passed, "results": results}))
    else:
        number = sum(result["tests"] for result in results)
        echo(f"{number} tests of {len(rules)} rule files: {'passed' if passed else 'FAILED'}")
    sys.exit(0 if passed else 1)


def _print_result(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        return
    echo(f"{'ok' if result['passed'] else 'FAILED':<7} {result['file']}")
    if not result["passed"]:
        echo_lines(result["output"])


def _notices(found: Compiled, but: tuple[str, ...] = ()) -> None:
    """Print notices, without those that start with one of ``but``, which are printed elsewhere."""
    for notice in found.notices:
        if but and notice.startswith(but):
            continue
        _notice(notice)


def _notice(text: str) -> None:
    echo(f"notice: {text}", err=True)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise click.BadParameter(f"{text!r}: write NAME=VALUE", param_hint="--label")
    return name, value
