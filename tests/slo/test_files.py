"""Files of objectives: what they come to, and what is wrong with them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.documented import blocks
from tests.support.openslo import NONE, OPENSLO
from tests.support.slo_files import loaded, problems
from understudy.monitor.errors import ConfigError
from understudy.monitor.slo.model import WINDOW, Events, Slices
from understudy.monitor.slo.promql import example, plain_sum
from understudy.monitor.slo.rules import ALERT
from understudy.monitor.slo.text import dumped


def ours(*slos: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"version": 1, "service": "delays", "slos": list(slos), **more}


AVAILABLE = {"name": "a", "objective": "99.9 %", "availability": {}}


def test_shares_and_scopes(tmp_path: Path) -> None:
    found = loaded(
        tmp_path,
        ours(AVAILABLE, scrape={"job": "x", "namespace=~": "prod-.*"}, model="m", arm="new"),
    )
    (slo,) = found.slos
    assert slo.budget == pytest.approx(0.001)
    assert isinstance(slo.sli, Events)
    assert slo.sli.total.startswith("sum by (namespace) (")
    assert (
        'rate(understudy_requests_total{job="x",namespace=~"prod-.*",model="m",arm="new",'
        'role="primary",outcome!~"cancelled|rejected|incomplete|client_stalled"}[{{.window}}])'
    ) in slo.sli.total
    assert 'job="x"' in found.alerts[0].expr
    assert found.slo_group(slo)["rules"][-1]["labels"]["service"] == "delays"


def test_latencies_at_default_and_configured_edges_and_between_them(tmp_path: Path) -> None:
    def sli(**latency: Any) -> Events:
        found = loaded(tmp_path, ours({"name": "l", "latency": {"quantile": 0.99, **latency}}))
        assert isinstance(found.slos[0].sli, Events)
        assert found.slos[0].objective == 0.99
        return found.slos[0].sli

    exact, between = sli(within="50ms"), sli(within="60ms")
    assert exact.exactness.startswith("exact")
    assert 'le="0.05"' in exact.bad
    assert "0.4 * sum" in between.bad, "60 lies 40 % of the way from 50 to 75"
    assert between.exactness.startswith("interpolated")
    assert 'le="0.05"' in sli(within="60ms", by="strict").bad
    assert "histogram_fraction(0, 0.06," in sli(within="60ms", by="native").bad
    own = sli(within="60ms", edges=["60ms"])
    assert 'le="0.06"' in own.bad
    assert "within 0.55 %" in own.exactness
    said = problems(tmp_path, ours({"name": "l", "objective": "90 %", "latency": {
        "within": "60ms", "by": "edge"}}))  # fmt: skip
    assert "not a bucket boundary of the histogram" in said["slos[0].latency"]
    said = problems(
        tmp_path, ours({"name": "l", "objective": "90 %", "latency": {"within": "20s"}})
    )
    assert "above the last boundary" in said["slos[0].latency"]


@pytest.mark.parametrize(
    ("data", "path", "message"),
    [
        ({"version": 1, "service": "x"}, "", "the file has no objectives"),
        (ours({"name": "a", "objective": "99 %"}), "slos[0]", "has no indicator"),
        (ours({**AVAILABLE, "cost": {"at_most": 1.0}}), "slos[0]", "availability and cost"),
        (ours({"name": "a", "availability": {}}), "slos[0]", "objective is required"),
        (ours({**AVAILABLE, "objective": "99.9"}), "slos[0].objective", "99.9 %"),
        (ours({**AVAILABLE, "objective": 99.9}), "slos[0].objective", "99.9 has no unit: write 99.9 %"),
        (ours({"name": "a", "objective": "90 %", "latency": None}), "slos[0]", "needs its settings"),
        (ours(AVAILABLE, interval="500ms"), "interval", "must be whole seconds"),
        (ours(AVAILABLE, scrape_interval="1.5s"), "scrape_interval", "must be whole seconds"),
        (ours(AVAILABLE, labels={"severity": "x"}), "", "'severity' is set by the rules"),
        (ours({**AVAILABLE, "labels": {"__name__": "x"}}), "", "is set by the rules"),
        (ours({**AVAILABLE, "objective": "100 %"}), "slos[0].objective", "less than 1"),
        (ours({**AVAILABLE, "objektive": 1}), "slos[0].objektive", "did you mean 'objective'"),
        (ours(AVAILABLE, AVAILABLE), "", "duplicate name 'a'"),
        (ours(AVAILABLE, identity=["model"]), "identity[0]", "cannot tell installations apart"),
        (ours(AVAILABLE, identity=["sloth_id"]), "identity[0]", "cannot tell installations apart"),
        (ours(AVAILABLE, identity=["a", "a"]), "", "duplicate label 'a'"),
        (ours(AVAILABLE, namespace="a", scrape={"namespace=~": "b"}), "", "is given twice"),
        (ours(AVAILABLE, scrape={"outcome": "ok"}), "", "rules that need another value could never hold"),
        (ours(AVAILABLE, scrape={"role!=": "shadow"}), "", "'role' is a label of the metrics"),
        (ours(AVAILABLE, scrape={"model=~": "a|b"}), "", "could never hold; use `model`"),
        (ours(AVAILABLE, scrape={"version": "1"}), "", "could never hold; use `version_of_model`"),
        (ours(AVAILABLE, scrape={"__name__": "up"}), "", "'__name__' is a label of the metrics"),
        (ours(AVAILABLE, runbooks={"url": "docs/runbooks"}), "runbooks.url", "not an absolute URL"),
        (ours(AVAILABLE, service="installation"), "", "names the rules about sidecars"),
        (ours(AVAILABLE, without=["UnderstudyNo"]), "without[0]", "is not one of"),
        (ours(AVAILABLE, alerting={"windows": [
            {"severity": "page", "budget": "2 %", "long": "1h", "short": "2h"}]}),
         "alerting.windows[0]", "short must be shorter"),
        (ours({"name": "a", "objective": "90 %", "availability": {}},
              alerting={"unreachable": "refuse"}), "slos[0].objective", "it can never fire"),
        (ours({"name": "a", "objective": "90 %", "quantile": {"quantile": 0.98, "at_most": "1s"}}),
         "slos[0].quantile.quantile", "p98 is not one of p50"),
        (ours({"name": "e", "objective": "90 %", "events": {"bad": "a", "total": "b"}}),
         "slos[0].events", "{{.window}}"),
        ("a: [", "", "line"),
        ("- a", "", "must be a mapping"),
    ],
)  # fmt: skip
def test_faults_name_their_place(tmp_path: Path, data: Any, path: str, message: str) -> None:
    found = problems(tmp_path, data)
    assert message in found[path], found


def test_objectives_of_a_sidecars_configuration(tmp_path: Path) -> None:
    found = loaded(
        tmp_path,
        {
            "version": 1, "listen": "127.0.0.1:0", "models": [{"name": "delays"}],
            "champion": {"url": "http://127.0.0.1:1", "name": "old"},
            "objectives": {"latency_p99": "<= 60ms", "error_rate": "<= 1 %", "accuracy": ">= 0.9",
                           "cost_per_prediction": "<= 0.01", "throughput": ">= 5/s"},
        },
    )  # fmt: skip
    assert found.service == "delays"
    by = {slo.name: slo for slo in found.slos}
    assert by["latency-p99"].objective == 0.99
    assert 'le="0.06"' in str(by["latency-p99"].sli.bad)
    assert by["availability"].objective == 0.99
    assert isinstance(by["accuracy"].sli, Slices)
    assert 'arm="old"' in by["cost"].sli.bad
    assert any("throughput" in notice for notice in found.notices)


def test_a_sidecar_without_objectives_gets_one(tmp_path: Path) -> None:
    found = loaded(tmp_path, NONE, service="other", runbooks="https://wiki/{alert}")
    assert [slo.id for slo in found.slos] == ["other-availability"]
    rule = found.slo_group(found.slos[0])["rules"][-1]
    assert rule["annotations"]["runbook_url"] == "https://wiki/UnderstudyErrorBudgetBurn"


def test_openslo(tmp_path: Path) -> None:
    found = loaded(tmp_path, OPENSLO)
    web, tail = found.slos
    assert web.objective == 0.995
    assert web.period == 28 * 86400
    total = f"sum(rate(http_total{{}}[{WINDOW}]))"
    good = f'sum(rate(http_total{{code!~"5.."}}[{WINDOW}]))'
    assert web.sli == Events(f"{total} - ({good} or 0 * {total})", total, "events",
                             "as the queries are")  # fmt: skip
    assert tail.sli.bad == "max((latency_p99_seconds) < bool 0.5)"
    said = "\n".join(found.notices)
    assert "alertPolicies are not used" in said
    assert "the wrong direction" in said
    assert "no timeWindow; using 30 days" in said
    assert "AlertPolicy x: not used" in said


@pytest.mark.parametrize(
    ("old", "new", "path", "message"),
    [
        ("openslo/v1\nkind: SLO\nmetadata: {name: web}", "openslo/v2alpha\nkind: SLO\nmetadata: {}",
         "[1].apiVersion", "use openslo/v1"),
        ("indicatorRef: good", "indicatorRef: bad", "[1].spec.indicatorRef", "no SLI 'bad'"),
        ("targetPercent: 99.5", "targetPercent: 100", "[1].spec.objectives[0].targetPercent",
         "must be between 0 and 100 %"),
        ("type: Prometheus, spec: {query: 'http_total{}'}", "type: Datadog, spec: {query: x}",
         "[1].spec.indicator.spec.total.metricSource.type", "use prometheus"),
        ("'http_total{}'", "'sum(rate(http_total[5m]))'",
         "[1].spec.indicator.spec.ratioMetric.total.metricSource.spec.query", "{{.window}}"),
        ("op: gte", "op: above", "[2].spec.objectives[0].op", "not one of"),
        ("duration: 4w", "duration: soon", "[1].spec.timeWindow[0].duration", "not a valid duration"),
    ],
)  # fmt: skip
def test_faults_in_openslo(tmp_path: Path, old: str, new: str, path: str, message: str) -> None:
    assert old in OPENSLO
    found = problems(tmp_path, OPENSLO.replace(old, new))
    assert message in found.get(path, ""), found


def test_methods_of_openslo(tmp_path: Path) -> None:
    """Slices of a ratio, a ratio that is ready, and gauges."""

    def bad(old: str, new: str) -> Any:
        assert old in OPENSLO
        return loaded(tmp_path, OPENSLO.replace(old, new)).slos[0].sli

    one = "Occurrences\n  objectives: [{targetPercent: 99.5}]"
    sliced = bad(one, "Timeslices\n  objectives: [{target: 0.9, timeSliceTarget: 0.95, "
                 "timeSliceWindow: 5m}]")  # fmt: skip
    assert isinstance(sliced, Slices)
    assert sliced.bad.endswith("> bool 0.05")
    assert "[5m]" in sliced.bad
    mean = bad(one, "RatioTimeslices\n  objectives: [{target: 0.9, timeSliceWindow: 1m}]")
    assert isinstance(mean, Slices)
    assert "bool" not in mean.bad
    gauges = bad("counter: true", "counter: false")
    assert f"avg_over_time(http_total{{}}[{WINDOW}])" in gauges.total


def test_times_of_tokens_are_read_at_the_edges_of_vllm(tmp_path: Path) -> None:
    def sli(kind: str, **settings: Any) -> Events:
        one = {"name": "t", kind: {"quantile": 0.99, **settings}, "model": "chat"}
        found = loaded(tmp_path, ours(one))
        assert (found.slos[0].objective, found.slos[0].kind) == (0.99, kind)
        assert isinstance(found.slos[0].sli, Events)
        return found.slos[0].sli

    exact = sli("ttft", within="500ms")
    first = (
        'understudy_llm_time_to_first_token_seconds_bucket{model="chat",arm="champion",le="0.5"}'
    )
    assert first in exact.bad
    assert exact.exactness == "exact: the limit is a bucket boundary"
    between = sli("tpot", within="60ms")
    assert "understudy_llm_time_per_output_token_seconds_bucket" in between.bad
    assert "0.4 * sum" in between.bad, "60 lies 40 % of the way from 50 to 75"
    assert problems(tmp_path, ours({"name": "t", "ttft": {"within": "1s", "by": "native"}}))
    assert problems(tmp_path, ours({"name": "t", "tpot": {"within": "1s"}})) == {
        "slos[0]": "objective is required"
    }


def test_yaml_round_trips() -> None:
    data = {"a": "x\ny\n", "b": ["1", 2, {"c": "{{ $labels.x }}: 5 %"}], "d": "on", "e": ""}
    assert yaml.safe_load(dumped(data)) == data


def test_the_file_in_the_documentation_is_valid(tmp_path: Path) -> None:
    block, _ = blocks("slo.md", "The objectives file", "yaml")
    found = loaded(tmp_path, block)
    assert [slo.kind for slo in found.slos] == [
        "availability", "latency", "quantile", "predictions", "features", "performance",
        "freshness", "cost",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("scrape", "labels"),
    [
        ({"job": "x"}, {"job": "x"}),
        ({"job=~": "prod|stage"}, {"job": "prod"}),
        ({"job=~": "under(study|dog)-.+"}, {"job": "understudy-a"}),
        ({"job=~": r"a\.b[0-9]+"}, {"job": "a.b1"}),
        ({"job!=": ""}, {"job": "a"}),
        ({"job!~": "x.*", "pod!=": "y"}, {}),
        ({"job=~": ".*"}, {"job": "a"}),
    ],
)
def test_series_of_trials_match_the_scrape(scrape: dict[str, str], labels: dict[str, str]) -> None:
    assert example(scrape) == labels


def test_a_scrape_that_cannot_be_tried_says_so(tmp_path: Path) -> None:
    found = loaded(tmp_path, ours(AVAILABLE, scrape={"job=~": "x{5}y{7}"}))
    assert found.test_files() == {}
    assert any("no unit tests" in notice for notice in found.notices)
    said = problems(tmp_path, ours(AVAILABLE, scrape={"job=~": "a("}))
    assert "is not a valid pattern" in said["scrape"]


def test_windows_too_far_apart_for_promtool(tmp_path: Path) -> None:
    window = {"severity": "page", "budget": "2 %", "long": "1d", "short": "5s"}
    found = loaded(tmp_path, ours(AVAILABLE, alerting={"windows": [window]}, alerts="none"))
    assert found.test_files() == {}
    assert any("too short compared with its longest" in notice for notice in found.notices)


@pytest.mark.parametrize(
    ("expression", "summed"),
    [
        ("sum(rate(a[{{.window}}]))", "sum(rate(a[{{.window}}]))"),
        ("sum by (b) (rate(a[1m]))", "sum(sum by (b) (rate(a[1m])))"),
        ("sum(a) by (b)", "sum(sum(a) by (b))"),
        ("sum(a) / sum(b)", "sum(sum(a) / sum(b))"),
        ('sum(a{b=")"})', 'sum(a{b=")"})'),
    ],
)
def test_custom_expressions_yield_one_series(expression: str, summed: str) -> None:
    assert plain_sum(expression) == summed


def test_labels_of_the_file_are_on_all_alerts(tmp_path: Path) -> None:
    found = loaded(tmp_path, ours(AVAILABLE, labels={"team": "ml"}, installation=True))
    alerts = [
        rule
        for data in found.rule_files().values()
        for group in data["groups"]
        for rule in group["rules"]
        if "alert" in rule
    ]
    assert len(alerts) > 30
    assert {rule["labels"].get("team") for rule in alerts} == {"ml"}


def test_a_limit_without_a_budget_is_left_out(tmp_path: Path) -> None:
    config = yaml.safe_load(NONE)
    limits = {"error_rate": "<= 0 %", "cost_per_prediction": "<= 0"}
    found = loaded(tmp_path, {**config, "objectives": limits})
    assert [slo.name for slo in found.slos] == ["availability"]
    assert sum("not valid over time" in notice for notice in found.notices) == 2


def test_names_for_a_service(tmp_path: Path) -> None:
    for data, service, message in ((ours(AVAILABLE), 'a "b"', "not a valid name"),
                                   (OPENSLO, "other", "names the service in")):  # fmt: skip
        with pytest.raises(ConfigError, match=message):
            loaded(tmp_path, data, service=service)


def test_a_page_and_a_ticket_have_their_own_windows(tmp_path: Path) -> None:
    """And the minimum number of bad events, which `least_bad` switches off."""
    own = {"page": {"5m", "1h", "30m", "6h"}, "ticket": {"2h", "1d", "6h", "3d"}}
    for least in (5, 0):
        found = loaded(tmp_path, ours(AVAILABLE, alerting={"least_bad": least}))
        rules = {
            rule["labels"]["severity"]: rule["expr"]
            for data in found.rule_files().values()
            for group in data["groups"]
            for rule in group["rules"]
            if rule.get("alert") == ALERT
        }
        assert set(rules) == set(own)
        for severity, expression in rules.items():
            windows = set(re.findall(r"slo:sli_error:ratio_rate(\w+)\{", expression))
            assert windows == own[severity]
            assert expression.count(">= 5") == (2 if least else 0), expression


def test_the_version_of_an_objective_is_before_that_of_the_file(tmp_path: Path) -> None:
    two = {**AVAILABLE, "name": "b", "version": "2"}
    first, second = loaded(tmp_path, ours(AVAILABLE, two, version_of_model="1")).slos
    for slo, version in ((first, "1"), (second, "2")):
        assert f'version="{version}"' in str(slo.sli.bad)
