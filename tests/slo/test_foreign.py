"""Files of objectives from other projects: read with the right meaning, or refused with what to do.

The files have the shape of those projects' own examples.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from tests.support.promtool import check, is_true, passes, write
from tests.support.slo_files import loaded, problems
from understudy.monitor.cli.main import main
from understudy.monitor.config.runbooks import PUBLIC
from understudy.monitor.errors import ConfigError
from understudy.monitor.slo.burn import LEAST_BAD
from understudy.monitor.slo.model import WINDOW, Events, Slices

DAY = 86400
SLOTH: dict[str, Any] = {
    "version": "prometheus/v1",
    "service": "shop",
    "labels": {"owner": "web", "tier-1": "yes", "severity": "x"},
    "slos": [
        {
            "name": "availability",
            "objective": 99.9,
            "description": "Answers\n  without errors.",
            "labels": {"category": "availability"},
            "sli": {
                "events": {
                    "error_query": 'sum(rate(http_total{code=~"(5..|429)"}[{{.window}}]))',
                    "total_query": "sum(rate(http_total[{{.window}}]))",
                }
            },
            "alerting": {
                "name": "ShopErrors",
                "labels": {"category": "availability"},
                "page_alert": {"labels": {"severity": "pageteam"}},
                "ticket_alert": {"disable": True},
            },
        },
        {
            "name": "satisfaction",
            "objective": 95,
            "sli": {
                "raw": {"error_ratio_query": "1 - (\n  avg_over_time(good_ratio[{{.window}}])\n)"}
            },
        },
    ],
}
LATENCY = 'http_seconds_%s{job="a",path=~"/v[0-9]{1,2}"%s}'
PYRRA: dict[str, Any] = {
    "apiVersion": "pyrra.dev/v1alpha1",
    "kind": "ServiceLevelObjective",
    "metadata": {
        "name": "errors",
        "namespace": "monitoring",
        "labels": {"prometheus": "k8s", "pyrra.dev/team": "web"},
    },
    "spec": {
        "target": "99.9",
        "window": "4w",
        "description": "",
        "indicator": {
            "ratio": {
                "errors": {"metric": 'http_total{code=~"5.."}'},
                "total": {"metric": "http_total"},
                "grouping": ["handler"],
            }
        },
        "alerting": {"name": "Burn", "burnrates": True},
    },
}
ALPHA: dict[str, Any] = {
    "apiVersion": "openslo/v1alpha",
    "kind": "SLO",
    "metadata": {"name": "latency", "displayName": "Latency"},
    "spec": {
        "service": "api",
        "description": "Fast enough.",
        "objectives": [
            {
                "ratioMetrics": {
                    "good": {
                        "source": "prometheus",
                        "queryType": "promql",
                        "query": f'sum(rate(seconds_bucket{{le="{le}"}}[{{{{.window}}}}]))',
                    },
                    "total": {
                        "source": "prometheus",
                        "queryType": "promql",
                        "query": "sum(rate(seconds_count[{{.window}}]))",
                    },
                },
                "target": target,
            }
            for le, target in (("0.4", 0.99), ("5", 0.999))
        ],
        "timeWindows": [{"count": 28, "unit": "Day"}],
    },
}


def spec_of(document: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**document, "spec": {**document["spec"], **changes}}


def resource(document: dict[str, Any]) -> dict[str, Any]:
    """A file of Sloth as its resource, with its names in camel case."""
    text = json.dumps({key: value for key, value in document.items() if key != "version"})
    for snake in ("error_query", "total_query", "error_ratio_query", "page_alert", "ticket_alert"):
        first, *others = snake.split("_")
        text = text.replace(snake, first + "".join(map(str.capitalize, others)))
    metadata = {"name": "shop", "namespace": "monitoring"}
    return {
        "apiVersion": "sloth.slok.dev/v1", "kind": "PrometheusServiceLevel",
        "metadata": metadata, "spec": json.loads(text),
    }  # fmt: skip


@pytest.mark.parametrize("form", [dict, resource, lambda one: json.dumps(one)])
def test_sloth(tmp_path: Path, form: Any) -> None:
    found = loaded(tmp_path, form(SLOTH))
    available, satisfied = found.slos
    assert (available.id, available.objective, available.period) == ("shop-availability", 0.999, 30 * DAY)  # fmt: skip
    events = SLOTH["slos"][0]["sli"]["events"]
    assert isinstance(available.sli, Events)
    assert (available.sli.bad, available.sli.total) == (
        events["error_query"],
        events["total_query"],
    )
    assert available.labels == {"owner": "web", "category": "availability"}
    assert available.description == "Answers without errors."
    assert {burn.window.severity for burn in available.burns} == {"page"}
    assert {burn.window.severity for burn in satisfied.burns} == {"page", "ticket"}
    assert {slo.least_bad for slo in found.slos} == {0.0}, "as Sloth's own alerts"
    assert satisfied.objective == 0.95
    assert isinstance(satisfied.sli, Slices)
    assert satisfied.sli.bad == "avg(1 - (\n  avg_over_time(good_ratio[5m])\n))"
    said = "\n".join(found.notices)
    for text in ("the label 'tier-1'", "the label 'severity'", "Sloth's default", "over 5m at a"):
        assert text in said, text
    for key in ("alerting.name", "alerting.labels", "alerting.page_alert.labels"):
        assert key in said, key


def test_several_documents_of_sloth(tmp_path: Path) -> None:
    other = {**SLOTH, "service": "api"}
    found = loaded(tmp_path, yaml.safe_dump_all([SLOTH, None, other]))
    assert [slo.service for slo in found.slos] == ["shop", "shop", "api", "api"]
    one = {**SLOTH, "slos": SLOTH["slos"][:1]}
    wrong = problems(tmp_path, yaml.safe_dump_all([one, one]))
    assert "duplicate objective 'shop-availability'" in wrong[""]


@pytest.mark.parametrize(
    ("change", "path", "message"),
    [
        ({"sli": {"plugin": {"id": "sloth-common/x"}}}, "sli.plugin", "write their queries"),
        ({"sli": {}}, "sli", "neither events nor raw"),
        ({"objective": 100}, "objective", "between 0 and 100"),
        ({"objective": 0}, "objective", "between 0 and 100"),
        ({"objective": -0.5}, "objective", "between 0 and 100"),
        ({"objective": 99.99999999999999}, "objective", "between 0 and 100"),
        ({"objective": True}, "objective", "between 0 and 100"),
        ({"sli": {"events": {"error_query": "a", "total_query": "b"}}}, "sli.events.error_query", WINDOW),
        ({"sli": {"events": {"error_query": f"a[{WINDOW}]", "total_query": f"a [{WINDOW}]"}}}, "sli.events.error_query",
         "is the same query as total"),
        ({"name": "a b"}, "name", "not a valid name"),
        ({"alerting": []}, "alerting", None),
    ],
)  # fmt: skip
def test_faults_in_sloth(tmp_path: Path, change: Any, path: str, message: str | None) -> None:
    one = {**SLOTH, "slos": [{**SLOTH["slos"][0], **change}]}
    if message is None:  # an empty list says nothing
        assert loaded(tmp_path, one).slos
        return
    assert message in problems(tmp_path, one)[f"[0].slos[0].{path}"]
    wrong = problems(tmp_path, {**SLOTH, "version": "prometheus/v2"})
    assert wrong["[0].version"].startswith("'prometheus/v2' is not supported; use prometheus/v1")
    for slos in ([], {}, "availability", None):
        wrong = problems(tmp_path, {**SLOTH, "slos": slos})
        assert "a list with at least one" in wrong["[0].slos"]
    other = {**resource(SLOTH), "kind": "Other"}
    wrong = problems(tmp_path, other)
    assert "with kind 'Other' is not supported" in wrong["[0].apiVersion"]


def test_pyrra(tmp_path: Path) -> None:
    success, total = LATENCY % ("bucket", ',le="0.5"'), LATENCY % ("count", "")
    latency = {"success": {"metric": success}, "total": {"metric": total}}
    native = {"latency": "200ms", "total": {"metric": "sum(http_seconds)"}}
    documents = [
        PYRRA,
        {**spec_of(PYRRA, indicator={"latency": latency}, window="2w"), "metadata": {"name": "slow", "namespace": "m"}},
        {**spec_of(PYRRA, indicator={"latencyNative": native}), "metadata": {"name": "native", "namespace": "m"}},
        {**spec_of(PYRRA, indicator={"bool_gauge": {"metric": 'up{job="p"}'}}, alerting={"disabled": True}),
         "metadata": {"name": "up", "namespace": "m"}},
    ]  # fmt: skip
    found = loaded(tmp_path, {"apiVersion": "v1", "kind": "List", "items": documents})
    ratio, slow, natively, up = found.slos
    assert (ratio.id, ratio.objective, ratio.period) == ("monitoring-errors", 0.999, 28 * DAY)
    assert ratio.labels == {"team": "web"}
    assert isinstance(ratio.sli, Events)
    assert ratio.sli.bad == f'sum(rate(http_total{{code=~"5.."}}[{WINDOW}]))'
    assert ratio.sli.total == f"sum(rate(http_total[{WINDOW}]))"
    assert slow.period == 14 * DAY
    assert isinstance(slow.sli, Events)
    good, every = f"sum(rate({success}[{WINDOW}]))", f"sum(rate({total}[{WINDOW}]))"
    assert slow.sli.bad == f"{every} - ({good} or 0 * {every})"
    assert isinstance(natively.sli, Events)
    assert "histogram_fraction(0, 0.2, sum(rate(http_seconds[" in natively.sli.bad
    assert isinstance(up.sli, Slices)
    assert up.sli.bad == '1 - avg(up{job="p"})'
    assert up.burns == (), "Pyrra's alerts are disabled"
    for slo in (ratio, slow, natively):
        assert {burn.window.severity for burn in slo.burns} == {"page", "ticket"}, slo.id
    assert (ratio.least_bad, up.least_bad) == (LEAST_BAD, 0.0), "time is not counted by events"
    said = "\n".join(found.notices)
    for text in ("grouping by handler", "alerting.name", "alerting.burnrates", "namespace m;"):
        assert text in said, text
    assert loaded(tmp_path, PYRRA, service="shop").slos[0].id == "shop-errors"


@pytest.mark.parametrize(
    ("change", "path", "message"),
    [
        ({"target": "100"}, "target", "between 0 and 100"),
        ({"target": "0"}, "target", "between 0 and 100"),
        ({"target": "most"}, "target", "between 0 and 100"),
        ({"target": "99.99999999999999"}, "target", "between 0 and 100"),
        ({"target": None}, "target", "between 0 and 100"),
        ({"window": "59m"}, "window", "an hour or more"),
        ({"indicator": {"ratio": {"errors": {"metric": 5}, "total": {"metric": "a"}}}},
         "indicator.ratio.errors.metric", "must be a selector"),
        ({"indicator": {"ratio": {"errors": {"metric": " "}, "total": {"metric": "a"}}}},
         "indicator.ratio.errors.metric", "must be a selector"),
        ({"window": "soon"}, "window", "duration"),
        ({"window": "5m"}, "window", "an hour or more"),
        ({"indicator": {"magic": {}}}, "indicator", "not magic"),
        ({"indicator": {}}, "indicator", "not none"),
        ({"indicator": {"latency": {"success": {"metric": "s_bucket{a=\"le=1\"}"}, "total": {"metric": "s_count"}}}},
         "indicator.latency.success.metric", "selects every bucket"),
        ({"indicator": {"ratio": {"errors": {"metric": "a"}, "total": {"metric": "a"}}}},
         "indicator.ratio.errors.metric", "is the same query as total"),
        ({"indicator": {"latency": {"success": {"metric": 'a{le="5"}'}, "total": {"metric": 'a{le="5.0"}'}}}},
         "indicator.latency.success.metric", "is the same query as total"),
        ({"indicator": {"bool_gauge": {"metric": "up > 0"}}}, "indicator.bool_gauge.metric", "is not a selector"),
    ],
)  # fmt: skip
def test_faults_in_pyrra(tmp_path: Path, change: Any, path: str, message: str) -> None:
    assert message in problems(tmp_path, spec_of(PYRRA, **change))[f"[0].spec.{path}"]


def test_openslo_v1alpha(tmp_path: Path) -> None:
    found = loaded(tmp_path, yaml.safe_dump_all([{"apiVersion": "openslo/v1alpha", "kind": "Service",
                                                  "metadata": {"name": "api"}, "spec": {}}, ALPHA]))  # fmt: skip
    first, second = found.slos
    assert (first.objective, second.objective) == (0.99, 0.999)
    assert (first.service, first.period) == ("api", 28 * DAY)
    assert isinstance(second.sli, Events)
    assert second.sli.total == "sum(rate(seconds_count[{{.window}}]))"
    assert r'le=~"5|5\\.0"' in second.sli.bad
    assert isinstance(first.sli, Events)
    assert 'le="0.4"' in first.sli.bad
    assert not any("calendar" in one for one in found.notices)
    metric = {"source": "prometheus", "queryType": "promql", "query": "p99_seconds"}
    threshold = spec_of(
        ALPHA, indicator={"thresholdMetric": metric}, timeWindows=[{"unit": "Month", "count": 1, "isRolling": False}],
        objectives=[{"op": "lte", "value": 0.2, "target": 0.95}],
    )  # fmt: skip
    found = loaded(tmp_path, threshold)
    assert found.slos[0].sli.bad == "max((p99_seconds) > bool 0.2)"
    assert found.slos[0].period == 30 * DAY
    assert any("instead of a calendar window" in one for one in found.notices)
    wrong = problems(tmp_path, spec_of(ALPHA, timeWindows=[{"unit": "Fortnight", "count": 1}]))
    assert "one of Minute, Hour, Day" in wrong["[0].spec.timeWindows[0]"]


def test_openslo_v1_in_one_line_with_labels_and_slices(tmp_path: Path) -> None:
    """The field's file of slices, as JSON in one line; bad and total; labels; a calendar month."""

    def source(query: str) -> dict[str, Any]:
        return {"metricSource": {"type": "Prometheus", "spec": {"query": query}}}

    ratio = {"counter": True, "good": source("good_total"), "total": source("all_total")}
    document = {
        "apiVersion": "openslo/v1",
        "kind": "SLO",
        "metadata": {"name": "ts", "labels": {"team": ["a", "b"], "env": "prod", "x/y": "z"}},
        "spec": {
            "service": "web",
            "indicator": {"metadata": {"name": "x"}, "spec": {"ratioMetric": ratio}},
            "timeWindow": [{"duration": "7d", "isRolling": True}],
            "budgetingMethod": "Timeslices",
            "objectives": [{"target": 0.9995, "timeSliceTarget": 0.95, "timeSliceWindow": "1m"}],
        },
    }
    found = loaded(tmp_path, json.dumps(document))
    (slo,) = found.slos
    assert (slo.id, slo.objective, slo.period) == ("web-ts", 0.9995, 7 * DAY)
    assert isinstance(slo.sli, Slices)
    assert slo.sli.bad.endswith("> bool 0.05")
    assert "sum(rate(good_total[1m]))" in slo.sli.bad
    assert slo.labels == {"team": "a,b", "env": "prod"}
    assert "ts: left out: the label 'x/y'" in found.notices
    bad = {"counter": True, "bad": source("bad_total"), "total": source("all_total")}
    calendar = {"startTime": "2026-01-01 12:00:00", "timeZone": "Europe/Berlin"}
    monthly = spec_of(
        document, budgetingMethod="Occurrences", objectives=[{"target": 0.999}],
        indicator={"spec": {"ratioMetric": bad}}, timeWindow=[{"duration": "1M", "isRolling": False, "calendar": calendar}],
    )  # fmt: skip
    found = loaded(tmp_path, json.dumps([monthly]))
    assert found.slos[0].sli == Events(
        f"sum(rate(bad_total[{WINDOW}]))", f"sum(rate(all_total[{WINDOW}]))", "events", "as the queries are"
    )  # fmt: skip
    assert any("instead of a calendar window" in one for one in found.notices)
    short = spec_of(monthly, timeWindow=[{"duration": "1m", "isRolling": False}])
    assert "a month is 1M" in problems(tmp_path, short)["[0].spec.timeWindow[0].duration"]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"apiVersion": "n9/v1alpha", "kind": "SLO"}, "a file of Nobl9: write"),
        ({"apiVersion": "sre.google.com/v2", "kind": "ServiceLevelObjective"}, "slo-generator"),
        ({"apiVersion": "monitoring.coreos.com/v1", "kind": "PrometheusRule"}, "Prometheus Operator"),
        ({"groups": [{"name": "a", "rules": []}]}, "Prometheus rules, which is what is generated"),
        ({"apiVersion": "example.com/v1"}, "'example.com/v1', an unknown format"),
    ],
)  # fmt: skip
def test_other_formats_are_refused_by_name(tmp_path: Path, document: Any, message: str) -> None:
    said = problems(tmp_path, document)[""]
    assert message in said
    for known in ("docs/slo.md", "openslo/v1", "prometheus/v1", "pyrra.dev/v1alpha1"):
        assert known in said
    for format_, text in ((SLOTH, "names the service in service"), (ALPHA, "in spec.service")):
        with pytest.raises(ConfigError, match=text):
            loaded(tmp_path, format_, service="other")


@pytest.mark.usefixtures("promtool")
@pytest.mark.parametrize("document", [SLOTH, PYRRA, ALPHA])
def test_prometheus_takes_the_rules(tmp_path: Path, document: Any) -> None:
    """From the command line, checked by promtool; what is left out is on standard error."""
    file, out = tmp_path / "slo.yaml", tmp_path / "rules"
    file.write_text(yaml.safe_dump(document))
    result = CliRunner().invoke(main, ["slo", "generate", str(file), "-o", str(out)])
    assert result.exit_code == 0, result.output
    assert "left out" in result.stderr or document is ALPHA
    rules = [path.name for path in out.iterdir() if "rules" in yaml.safe_load(path.read_text()).get("groups", [{}])[0]]  # fmt: skip
    assert rules, sorted(out.iterdir())
    check(out, *rules)


def ratio_of(**queries: str) -> dict[str, Any]:
    sources = {
        key: {"metricSource": {"type": "Prometheus", "spec": {"query": query}}}
        for key, query in queries.items()
    }
    indicator = {"metadata": {"name": "x"}, "spec": {"ratioMetric": {"counter": True, **sources}}}
    return {
        "apiVersion": "openslo/v1", "kind": "SLO", "metadata": {"name": "a"},
        "spec": {"service": "web", "indicator": indicator, "budgetingMethod": "Occurrences",
                 "timeWindow": [{"duration": "30d", "isRolling": True}], "objectives": [{"target": 0.99}]},
    }  # fmt: skip


@pytest.mark.parametrize("key", ["good", "bad"])
def test_an_objective_by_one_query_says_nothing(tmp_path: Path, key: str) -> None:
    """OpenSLO's validator takes it."""
    wrong = problems(tmp_path, ratio_of(**{key: "sum(all_total)", "total": "sum( all_total )"}))
    path = f"[0].spec.indicator.spec.ratioMetric.{key}.metricSource.spec.query"
    assert "is the same query as total" in wrong[path]
    own = {"version": 1, "service": "s", "slos": [{"name": "a", "objective": "99 %", "events": {
        "bad": f"sum(rate(a[{WINDOW}]))", "total": f"sum(rate(a[{WINDOW}]))"}}]}  # fmt: skip
    assert "every event is bad" in problems(tmp_path, own)["slos[0].events"]


@pytest.mark.parametrize(
    ("edge", "message"),
    [
        ('le=~".*"', "is not the edge of one bucket"),
        ('le=~"0.1|0.5"', "is not the edge of one bucket"),
        ('le="fast"', "is not the edge of one bucket"),
        ('le="+Inf"', "every response is in the bucket +Inf"),
        ('code="200"', "selects every bucket"),
        ("", "selects every bucket"),
    ],
)
def test_good_responses_of_several_buckets_would_silence_all_alerts(
    tmp_path: Path, edge: str, message: str
) -> None:
    """There would be more good responses than responses, or none could be late."""
    good = f"s_bucket{{{edge}}}" if edge else "s_bucket"
    latency = {"success": {"metric": good}, "total": {"metric": "s_count"}}
    wrong = problems(tmp_path, spec_of(PYRRA, indicator={"latency": latency}))
    assert message in wrong["[0].spec.indicator.latency.success.metric"]
    for query in (good, f"sum(rate({good}[{WINDOW}]))"):
        wrong = problems(tmp_path, ratio_of(good=query, total="s_count"))
        path = "[0].spec.indicator.spec.ratioMetric.good.metricSource.spec.query"
        assert message in wrong[path]
    either = r's_bucket{le=~"5|5\\\\.0"}'
    latency = {"success": {"metric": either}, "total": {"metric": "s_count"}}
    assert loaded(tmp_path, spec_of(PYRRA, indicator={"latency": latency})).slos
    assert loaded(tmp_path, ratio_of(good=either, total="s_count")).slos


@pytest.mark.integration
@pytest.mark.usefixtures("promtool")
@pytest.mark.parametrize("stored", ["5", "5.0"])
@pytest.mark.parametrize("written", ["5", "5.0"])
def test_a_whole_edge_is_found_however_it_is_written(
    tmp_path: Path, stored: str, written: str
) -> None:
    """Prometheus 3 stores the edge 5 as 5.0: by an objective that names it in the other way, no
    response would be in time."""
    latency = {"success": {"metric": f's_bucket{{le="{written}"}}'}, "total": {"metric": "s_count"}}
    found = loaded(tmp_path, spec_of(PYRRA, indicator={"latency": latency}))
    (rules,) = [d for name, d in found.rule_files().items() if name.endswith("errors.rules.yml")]
    series = [{"series": f's_bucket{{le="{stored}"}}', "values": "0+54x60"},
              {"series": "s_count", "values": "0+60x60"}]  # fmt: skip
    checks = [is_true("abs(sum(slo:sli_error:ratio_rate1h) - 0.1) < bool 1e-9", "60m")]
    test = {"interval": "1m", "input_series": series, "promql_expr_test": checks}
    write(tmp_path, {"it.rules.yml": rules, "it.tests.yml": {
        "rule_files": ["it.rules.yml"], "evaluation_interval": "1m", "tests": [test]}})  # fmt: skip
    passes(tmp_path, "it.tests.yml")


def test_a_file_without_objectives_says_so(tmp_path: Path) -> None:
    service = {"apiVersion": "openslo/v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {}}
    assert problems(tmp_path, service) == {"": "contains no SLO"}
    broken = {**PYRRA, "metadata": {"name": "a b", "namespace": "m"}}
    assert list(problems(tmp_path, broken)) == ["[0].metadata.name"], "that is all that is wrong"


def test_several_services_and_their_runbooks(tmp_path: Path) -> None:
    """The first service names the files; runbooks are the public ones unless they are given."""
    found = loaded(tmp_path, yaml.safe_dump_all([SLOTH, {**SLOTH, "service": "api"}]))
    assert found.service == "shop"
    assert found.runbooks == PUBLIC
    own = "https://r.example/{alert}"
    assert loaded(tmp_path, SLOTH, runbooks=own).runbooks == own


def test_the_shortest_window_and_the_description_of_pyrra(tmp_path: Path) -> None:
    for window in ("1h", "61m"):
        wrong = problems(tmp_path, spec_of(PYRRA, window=window))
        assert "is too short" in wrong["[0].spec.window"], "for alerts, not for Pyrra"
    found = loaded(tmp_path, spec_of(PYRRA, description="Answers\n  well."))
    assert found.slos[0].description == "Answers well."
    wrong = problems(tmp_path, {**PYRRA, "kind": "Other"})
    assert "use pyrra.dev/v1alpha1 with ServiceLevelObjective" in wrong["[0].apiVersion"]


def test_raw_ratios_and_what_openslo_leaves_open(tmp_path: Path) -> None:
    def raw(kind: str) -> dict[str, Any]:
        document = ratio_of(raw="some_ratio")
        document["spec"]["indicator"]["spec"]["ratioMetric"]["rawType"] = kind
        return document

    for kind, bad in (("failure", "avg(some_ratio)"), ("success", "1 - avg(some_ratio)")):
        (slo,) = loaded(tmp_path, raw(kind)).slos
        assert (slo.sli.bad, slo.least_bad) == (bad, 0.0)
        assert {burn.window.severity for burn in slo.burns} == {"page", "ticket"}
    ratio = "[0].spec.indicator.spec.ratioMetric"
    assert "success or failure" in problems(tmp_path, raw("other"))[f"{ratio}.rawType"]
    for sources in ({"good": "a"}, {"total": "a"}, {"good": "a", "bad": "b", "total": "c"}):
        assert "needs total" in problems(tmp_path, ratio_of(**sources))[ratio]
    counted = ratio_of(bad="a", total="b")
    (slo,) = loaded(tmp_path, counted).slos
    assert slo.least_bad == LEAST_BAD
    del counted["spec"]["timeWindow"]
    found = loaded(tmp_path, counted)
    assert found.slos[0].period == 30 * DAY
    assert "a: no timeWindow; using 30 days" in found.notices
    for text, days in (("1Q", 90), ("1Y", 365), ("2w", 14)):
        window = [{"duration": text, "isRolling": True}]
        (slo,) = loaded(tmp_path, spec_of(counted, timeWindow=window)).slos
        assert slo.period == days * DAY
