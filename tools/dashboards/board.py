"""A dashboard: its variables, its marks (annotations), its links, and rows of panels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.models import dashboard as model

from tools.dashboards.panels import DATASOURCE, Panel

TAG = "understudy"
GATE_TAG = "understudy-gate"
"""The tag of the annotations that ``understudy gate --grafana`` posts."""
ALL = model.VariableOption(text="All", value=["$__all"], selected=True)


IDENTITY = 'cluster=~"$cluster", namespace=~"$namespace"'
"""Which installations: labels that Prometheus may have added to what it scrapes."""
WHERE = f'job=~"$job", {IDENTITY}, instance=~"$instance"'


@dataclass(frozen=True, slots=True)
class Choice:
    """A variable: the values of ``label`` of ``metric``, as far as other variables leave them.

    ``all_value`` is what "All" matches. It is ``.*`` where a series may lack the label (a model
    without a version), and ``.+`` where it cannot.
    """

    name: str
    metric: str
    label: str
    text: str
    within: str = WHERE
    title: str = ""
    all_value: str = ".*"


JOB = Choice("job", "understudy_build_info", "job", "The scrape job.", within="", all_value=".+")
CLUSTER = Choice(
    "cluster", "understudy_build_info", "cluster", "The cluster, where the series have that label.",
    within='job=~"$job"',
)  # fmt: skip
NAMESPACE = Choice(
    "namespace", "understudy_build_info", "namespace",
    "The namespace, where the series have that label.", within='job=~"$job", cluster=~"$cluster"',
)  # fmt: skip
INSTANCE = Choice(
    "instance", "understudy_build_info", "instance", "The sidecar or evaluator.",
    within=f'job=~"$job", {IDENTITY}', all_value=".+",
)  # fmt: skip
MODEL = Choice("model", "understudy_requests_total", "model", "The model, as the requests name it.")
VERSION = Choice(
    "version", "understudy_requests_total", "version", "Its version, where one is declared.",
    within=f'{WHERE}, model=~"$model"',
)  # fmt: skip
ARM = Choice(
    "arm", "understudy_requests_total", "arm", "The champion, or a challenger.",
    within=f'{WHERE}, model=~"$model"',
)  # fmt: skip
EXPERIMENT = Choice("experiment", "understudy_experiment_decision", "experiment", "The experiment.")
# Alerts that are not about objectives lack these labels, and must not be found by "All".
SERVICE = Choice(
    "service", "slo:objective:ratio", "sloth_service", "The service of the objectives.", within="",
    all_value=".+",
)  # fmt: skip
SLO = Choice(
    "slo", "slo:objective:ratio", "sloth_slo", "The objective.",
    within='sloth_service=~"$service"', title="SLO", all_value=".+",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """A heading and the panels below it. ``folded`` rows are closed at first.

    ``repeat`` names a variable: the row stands once for each of its values.
    """

    title: str
    panels: Sequence[Panel]
    folded: bool = False
    repeat: str = ""


@dataclass(frozen=True, slots=True)
class Board:
    """One dashboard; ``uid`` is also the name of its file."""

    uid: str
    title: str
    text: str
    rows: Sequence[Row]
    choices: Sequence[Choice] = ()
    since: str = "now-1h"
    refresh: str = "30s"
    extra: Sequence[build.CustomVariable] = ()

    def build(self) -> model.Dashboard:
        """The dashboard as Grafana's model; its panels have ids and places by their order."""
        made = (
            build.Dashboard(self.title)
            .uid(self.uid)
            .description(self.text)
            .tags([TAG])
            .readonly()
            .timezone("browser")
            .time(self.since, "now")
            .refresh(self.refresh)
            .tooltip(model.DashboardCursorSync.CROSSHAIR)
            .version(1)
        )
        made.link(
            build.DashboardLink("Understudy")
            .type(model.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .as_dropdown(True)
            .include_vars(True)
            .keep_time(True)
            .tooltip("The other dashboards of Understudy, for the same time and choices")
            .icon("external link")
        )
        made.with_variable(
            build.DatasourceVariable("datasource")
            .label("Data source")
            .description("The Prometheus that scrapes the sidecars.")
            .type("prometheus")
            .current(model.VariableOption(text="default", value="default", selected=True))
        )
        for choice in (JOB, CLUSTER, NAMESPACE, INSTANCE, *self.choices):
            made.with_variable(_variable(choice))
        for variable in self.extra:
            made.with_variable(variable)
        for mark in _marks():
            made.annotation(mark)
        _lay_out(made, self.rows)
        return made.build()


def _variable(choice: Choice) -> build.QueryVariable:
    selector = f"{choice.metric}{{{choice.within}}}" if choice.within else choice.metric
    return (
        build.QueryVariable(choice.name)
        .label(choice.title or choice.name.capitalize())
        .description(choice.text)
        .datasource(DATASOURCE)
        .query(f"label_values({selector}, {choice.label})")
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(choice.all_value)
        .current(ALL)
    )


_WHERE = f"{{{WHERE}}}"
_FOUND = f"sum by (model, kind) (understudy_findings_total{_WHERE}"
MARKS = (
    (
        "Rollout moved",
        "green",
        "{{experiment}}: {{challenger}} has another share",
        "max by (experiment, challenger) "
        f"(changes(understudy_experiment_weight{_WHERE}[$__rate_interval])) > 0",
    ),
    (
        "Configuration changed",
        "blue",
        "{{instance}}",
        f"changes(understudy_config_generation{_WHERE}[$__rate_interval]) > 0",
    ),
    (
        # The first finding of a kind is where its series begins: increase() would not see it.
        "Finding opened",
        "orange",
        "{{model}}: {{kind}}",
        f"{_FOUND}) - ({_FOUND} offset $__rate_interval) or {_FOUND}) * 0) > 0",
    ),
    (
        "Process restarted",
        "red",
        "{{instance}}",
        f"sum by (instance) (increase(understudy_worker_restarts_total{_WHERE}[$__rate_interval]))"
        " > 0 or sum by (instance) "
        f"(increase(understudy_evaluation_restarts_total{_WHERE}[$__rate_interval])) > 0",
    ),
)
"""Marks that come from Prometheus: name, colour, text, query."""


def _marks() -> list[build.AnnotationQuery]:
    grafana = model.DataSourceRef(type_val="grafana", uid="-- Grafana --")
    marks = [
        build.AnnotationQuery()
        .name("Load tests")
        .datasource(grafana)
        .enable(True)
        .icon_color("purple")
        .type("tags")
        .target(build.AnnotationTarget().type("tags").tags([GATE_TAG]).limit(100).match_any(False))
    ]
    marks += [
        build.AnnotationQuery()
        .name(name)
        .datasource(DATASOURCE)
        .enable(True)
        .icon_color(color)
        .expr(expr)
        for name, color, _, expr in MARKS
    ]
    return marks


def _lay_out(made: build.Dashboard, rows: Sequence[Row]) -> None:
    """Panels from left to right, rows below one another; ids in that order."""
    number = 0
    y = 0
    for row in rows:
        number += 1
        heading = build.Row(row.title).collapsed(row.folded).id(number)
        heading.grid_pos(model.GridPos(h=1, w=24, x=0, y=y))
        if row.repeat:
            heading.repeat(row.repeat)
        y += 1
        x = tallest = 0
        placed: list[model.Panel] = []
        for panel in row.panels:
            one = panel.build()
            assert one.grid_pos is not None
            if x + one.grid_pos.w > 24:
                x, y, tallest = 0, y + tallest, 0
            number += 1
            one.id_val = number
            one.grid_pos.x, one.grid_pos.y = x, y
            x, tallest = x + one.grid_pos.w, max(tallest, one.grid_pos.h)
            placed.append(one)
        y += tallest
        ready = [_Built(one) for one in placed]
        if row.folded:
            for built in ready:
                heading.with_panel(built)
            made.with_row(heading)
        else:
            made.with_row(heading)
            for built in ready:
                made.with_panel(built)


class _Built(build.Panel):
    """A panel that is built already, for builders that want a builder."""

    def __init__(self, panel: model.Panel) -> None:
        super().__init__()
        self._internal = panel
