"""The dashboards as files: current, well formed, and free of what the linters find."""

from __future__ import annotations

import copy
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from promql_parser import AggregateExpr, BinaryExpr, Call, ParenExpr

from tests.support.dashboard_linting import excused, lint, nodes, parsed
from tools.dashboards.board import TAG
from tools.dashboards.generate import FOLDER, documents, texts
from tools.dashboards.preview.values import shown
from tools.dashboards.prometheus import filled, panels
from tools.parts.npm import schema

DASHBOARDS = documents()
Dashboard = dict[str, Any]
each = pytest.mark.parametrize("dashboard", DASHBOARDS.values(), ids=DASHBOARDS)


def test_the_files_are_current() -> None:
    wanted = texts()
    assert set(wanted) == set(FOLDER.glob("*.json")), "run `make docs`"
    for path, text in wanted.items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: run `make docs`"


def problems(name: str, document: object) -> list[str]:
    """What the schema ``name``, made of Grafana's own types, has against a document."""
    found = jsonschema.Draft7Validator(schema(name)).iter_errors(document)
    return [f"{error.json_path}: {error.message}" for error in found]


@each
def test_grafanas_own_types_have_nothing_against_them(dashboard: Dashboard) -> None:
    whole = copy.deepcopy(dashboard)
    for mark in whole["annotations"]["list"]:
        for key in ("expr", "titleFormat", "textFormat"):
            mark.pop(key, None)  # the Prometheus data source's own
    assert problems("dashboard", whole) == []
    for panel in panels(dashboard):
        kind = panel["type"].replace("-", "")
        assert problems(f"{kind}-Options", panel["options"]) == [], panel["title"]
        if kind in ("timeseries", "heatmap", "statetimeline"):
            custom = panel["fieldConfig"]["defaults"].get("custom", {})
            assert problems(f"{kind}-FieldConfig", custom) == [], panel["title"]


def test_the_schemas_find_what_is_wrong() -> None:
    whole = copy.deepcopy(DASHBOARDS["slo.json"])
    whole["panels"][1]["gridPos"]["w"] = "wide"
    whole["templating"]["list"][0]["hide"] = 7
    assert problems("dashboard", whole)
    panel = next(one for one in panels(DASHBOARDS["slo.json"]) if one["type"] == "stat")
    assert problems("stat-Options", {**panel["options"], "graphMode": "wild"})
    assert problems("stat-Options", {**panel["options"], "colour": "red"})


def test_they_know_each_other() -> None:
    assert len(DASHBOARDS) == 7
    uids = Counter(dashboard["uid"] for dashboard in DASHBOARDS.values())
    assert max(uids.values()) == 1
    for dashboard in DASHBOARDS.values():
        assert dashboard["tags"] == [TAG]
        (link,) = dashboard["links"]
        assert (link["tags"], link["keepTime"], link["includeVars"]) == ([TAG], True, True)
    leading = {
        panel["links"][0]["url"].removeprefix("/d/").partition("?")[0]
        for panel in panels(DASHBOARDS["overview.json"])
        if panel.get("links")
    }
    assert len(leading) == 4
    assert leading < set(uids)


@each
def test_panels_say_what_they_are_and_what_nothing_means(dashboard: Dashboard) -> None:
    for panel in panels(dashboard):
        assert panel["description"].endswith("."), panel["title"]
        assert len(panel["description"]) > 15, panel["title"]
        assert panel["fieldConfig"]["defaults"]["noValue"], panel["title"]


@each
def test_panels_have_places_of_their_own(dashboard: Dashboard) -> None:
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (place["x"] + right, place["y"] + down)
            for right in range(place["w"])
            for down in range(place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
    width = max(x for x, _ in taken) + 1
    for row in {y for _, y in taken}:
        filled_cells = sum(1 for _, y in taken if y == row)
        assert filled_cells == width == 24, f"a hole in line {row}"


@each
def test_every_variable_is_used_and_known(dashboard: Dashboard) -> None:
    known = {variable["name"] for variable in dashboard["templating"]["list"]}
    text = json.dumps({**dashboard, "title": "", "description": ""})
    for name in known:
        assert f"${name}" in text or f"${{{name}}}" in text, name
    of_grafana = ("__rate_interval", "__url_time_range", "__all_variables")
    values = dict.fromkeys((*known, *of_grafana), "")
    assert not re.search(r"\$\{?\w", filled(json.dumps(dashboard["panels"]), values))


@each
def test_the_rules_of_the_linter(dashboard: Dashboard) -> None:
    excuses = excused(FOLDER)
    left = [
        found
        for found in lint(dashboard)
        if not excuses.get(found[0], set())
        & {(dashboard["title"], found[1]), (dashboard["title"], ""), ("", "")}
    ]
    assert left == []


def test_the_linter_finds_what_is_wrong() -> None:
    def found(expr: str) -> set[str]:
        panel = {**next(panels(DASHBOARDS["overview.json"])), "targets": [{"expr": expr}]}
        dashboard = {**DASHBOARDS["overview.json"], "panels": [panel], "editable": True}
        return {rule for rule, _, _ in lint(dashboard)} - {"uneditable-dashboard"}

    where = '{job=~"$job", instance=~"$instance"}'
    assert found(f"rate(a_total{where}[$__rate_interval])") == set()
    assert found("rate(a_total{") == {"target-promql-rule"}
    assert found("rate(a_total[5m])") == {
        "target-job-rule", "target-instance-rule", "target-rate-interval-rule",
    }  # fmt: skip
    assert found(f"sum(a_total{where})") == {"target-counter-agg-rule"}
    assert found('a{job="$job", instance=~"$instance"}') == {"target-job-rule"}


@each
def test_annotations_can_be_asked_for(dashboard: Dashboard) -> None:
    marks = dashboard["annotations"]["list"]
    assert marks[0]["name"] == "Load tests"
    for mark in marks[1:]:
        assert list(nodes(parsed(mark["expr"])))
        assert mark["titleFormat"] == mark["name"]
        labels = kept(parsed(mark["expr"]))
        named = set(re.findall(r"{{(\w+)}}", mark["textFormat"]))
        assert named
        assert labels is None or named <= labels, mark["name"]


def kept(tree: Any) -> set[str] | None:
    """Labels that the outermost sum leaves; None where there is no sum."""
    match tree:
        case AggregateExpr() if tree.modifier is None and tree.param is not None:  # topk
            return kept(tree.expr)
        case AggregateExpr():
            return set(tree.modifier.labels) if tree.modifier is not None else set()
        case BinaryExpr():
            return kept(tree.lhs)
        case ParenExpr():
            return kept(tree.expr)
        case Call() if tree.args:
            return kept(tree.args[-1])
    return None


def test_legends_name_what_the_queries_keep() -> None:
    """A label in a legend that is summed away is a curve without a name."""
    for dashboard in DASHBOARDS.values():
        for panel in panels(dashboard):
            for target in panel["targets"]:
                labels = kept(parsed(target["expr"]))
                named = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
                assert labels is None or named <= labels, (panel["title"], target["expr"])


def test_each_has_a_picture_that_is_no_burden() -> None:
    folder = FOLDER.parents[2] / "docs" / "images" / "dashboards"
    assert {path.stem for path in folder.glob("*.png")} == {
        name.removesuffix(".json") for name in DASHBOARDS
    }
    for path in folder.glob("*.png"):
        assert path.stat().st_size < 200_000, path.name


def test_nothing_is_excused_in_vain() -> None:
    found = {
        (rule, dashboard["title"], panel)
        for dashboard in DASHBOARDS.values()
        for rule, panel, _ in lint(dashboard)
    }
    for rule, entries in excused(Path(FOLDER)).items():
        for title, panel in entries:
            assert any((r, t) == (rule, title) and panel in ("", p) for r, t, p in found), (
                rule,
                title,
                panel,
            )


def test_every_query_is_of_the_chosen_installations() -> None:
    """A model of the same name in another cluster or namespace is another model."""
    selectors = 0
    for dashboard in documents().values():
        names = [variable["name"] for variable in dashboard["templating"]["list"]]
        assert names.index("cluster") < names.index("namespace") < names.index("instance")
        for expression in re.findall(r'"expr": "((?:[^"\\]|\\.)*)"', json.dumps(dashboard)):
            plain = expression.replace('\\"', '"')
            for inside in re.findall(r"(?:understudy_|slo:)[\w:]*\{([^}]*)\}", plain):
                selectors += 1
                assert 'cluster=~"$cluster", namespace=~"$namespace"' in inside, plain
    assert selectors > 200


@each
def test_only_a_whole_is_a_hundred_percent(dashboard: Dashboard) -> None:
    """Whatever Grafana's decimals would round: 99.999 % of an objective is not 100 %."""
    for panel in panels(dashboard):
        settings = panel.get("fieldConfig", {}).get("defaults", {})
        if settings.get("unit") != "percentunit":
            continue
        places = settings.get("decimals", 1)
        for nines in range(1, 11):
            share = 1.0 - 10.0**-nines
            text, _ = shown(panel, share)
            assert float(text.lstrip("> ").rstrip(" %")) < 100.0, (panel["title"], share, text)
            rounded = f"{100.0 * share:.{places}f}"
            assert text.startswith(">") == (float(rounded) == 100.0), (panel["title"], share, text)
        assert float(shown(panel, 1.0)[0].rstrip(" %")) == 100.0, panel["title"]


def test_objectives_have_their_nines() -> None:
    (panel,) = [one for one in panels(DASHBOARDS["slo.json"]) if one["title"] == "Objective"]
    assert [shown(panel, share)[0] for share in (0.95, 0.999, 0.99999, 0.999999, 0.9999999)] == [
        "95.0000 %", "99.9000 %", "99.9990 %", "99.9999 %", "> 99.9999 %",
    ]  # fmt: skip
