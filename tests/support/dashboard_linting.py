"""The rules of ``grafana/dashboard-linter`` (version 0.1), as its documentation states them.

That linter is a Go program that is not to be had from a package registry, so its rules are written here
anew, over the syntax tree of a real parser of PromQL. What is excused, with its reason, is read from
``deploy/grafana/dashboards/.lint``, the file from which the linter itself reads it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import yaml
from promql_parser import (
    AggregateExpr,
    BinaryExpr,
    Call,
    MatchOp,
    MatrixSelector,
    ParenExpr,
    SubqueryExpr,
    UnaryExpr,
    VectorSelector,
)

from tools.dashboards.prometheus import filled, panels

CHECKED = ("stat", "gauge", "timeseries", "state-timeline", "bargauge", "heatmap")
UNITS = {"none", "short", "percentunit", "s", "bytes", "Bps", "reqps", "ops"}
"""Those of Grafana's that this project uses; the linter knows them all."""
RATE_INTERVAL = "29580s"


def parsed(expr: str) -> Any:
    """The syntax tree; variables are replaced as the linter replaces them."""
    return promql_parser.parse(filled(expr, {"__rate_interval": RATE_INTERVAL}))


def nodes(node: Any, *above: Any) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """Every node with those above it, the nearest last."""
    yield node, above
    match node:
        case AggregateExpr():
            below = [node.expr, *([node.param] if node.param is not None else [])]
        case BinaryExpr():
            below = [node.lhs, node.rhs]
        case Call():
            below = list(node.args)
        case MatrixSelector():
            below = [node.vector_selector]
        case ParenExpr() | UnaryExpr() | SubqueryExpr():
            below = [node.expr]
        case _:
            below = []
    for one in below:
        yield from nodes(one, *above, node)


def metric(selector: VectorSelector) -> str:
    name: str | None = selector.name
    if name is not None:
        return name
    return next((m.value for m in selector.matchers.matchers if m.name == "__name__"), "")


def excused(folder: Path) -> dict[str, set[tuple[str, str]]]:
    """By rule: titles of dashboard and panel; an empty title stands for all."""
    found = yaml.safe_load((folder / ".lint").read_text())["exclusions"]
    for rule, what in found.items():
        assert what["reason"], rule
    return {
        rule: {(e.get("dashboard", ""), e.get("panel", "")) for e in what["entries"]}
        for rule, what in found.items()
    }


def lint(dashboard: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """What is wrong: rule, title of the panel or nothing, and what it is."""
    yield from ((rule, "", said) for rule, said in _whole(dashboard))
    for panel in panels(dashboard):
        yield from ((rule, panel["title"], said) for rule, said in _panel(panel))
        for target in panel["targets"]:
            yield from ((rule, panel["title"], said) for rule, said in _target(target["expr"]))


def _whole(dashboard: dict[str, Any]) -> Iterator[tuple[str, str]]:
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    sources = [v for v in variables.values() if v["type"] == "datasource"]
    if [(v["name"], v["label"], v["query"]) for v in sources] != [
        ("datasource", "Data source", "prometheus")
    ]:
        yield "template-datasource-rule", str(sources)
    for name in ("job", "instance"):
        variable = variables.get(name)
        if variable is None or not (
            variable["type"] == "query"
            and variable["datasource"]["uid"] == "${datasource}"
            and variable["label"] == name.capitalize()
            and variable["multi"]
            and variable["allValue"] == ".+"
        ):
            yield f"template-{name}-rule", str(variable)
    for variable in variables.values():
        if variable["type"] != "query":
            continue
        if variable["refresh"] != 2:
            yield "template-on-time-change-reload-rule", variable["name"]
        match = re.fullmatch(r"label_values\((.+), \w+\)", variable["query"])
        if match is None:
            yield "template-label-promql-rule", variable["query"]
        else:
            parsed(match[1])
    if dashboard["editable"]:
        yield "uneditable-dashboard", "it can be edited"


def _panel(panel: dict[str, Any]) -> Iterator[tuple[str, str]]:
    assert panel["type"] in CHECKED, f"{panel['type']}: say here what is to be checked of it"
    if panel["datasource"]["uid"] != "${datasource}":
        yield "panel-datasource-rule", str(panel["datasource"])
    if not (panel["title"] and panel.get("description")):
        yield "panel-title-description-rule", "no title or description"
    defaults = panel["fieldConfig"]["defaults"]
    unit = panel["options"]["yAxis"]["unit"] if panel["type"] == "heatmap" else defaults.get("unit")
    if unit not in UNITS:
        yield "panel-units-rule", str(unit)
    if not panel["targets"]:
        yield "panel-no-targets-rule", "no queries"


def _target(expr: str) -> Iterator[tuple[str, str]]:
    try:
        tree = parsed(expr)
    except ValueError as error:
        yield "target-promql-rule", f"{error}: {expr}"
        return
    for node, above in nodes(tree):
        if isinstance(node, MatrixSelector) and isinstance(above[-1], Call):
            seconds = node.range.total_seconds()
            if above[-1].func.name in ("rate", "irate") and f"{seconds:.0f}s" != RATE_INTERVAL:
                yield "target-rate-interval-rule", expr
        if not isinstance(node, VectorSelector):
            continue
        for name in ("job", "instance"):
            if not any(
                m.name == name and m.op == MatchOp.Re and m.value == f"${name}"
                for m in node.matchers.matchers
            ):
                yield f"target-{name}-rule", f"{metric(node)}: {expr}"
        if metric(node).endswith("_total") and not (
            len(above) >= 2
            and isinstance(above[-1], MatrixSelector)
            and isinstance(above[-2], Call)
            and above[-2].func.name in ("rate", "irate", "increase")
        ):
            yield "target-counter-agg-rule", expr
