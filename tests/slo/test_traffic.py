"""When the alert about missing traffic fires, and that it lasts until there is traffic again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.support.promtool import is_true, left_open, passes, write
from understudy.monitor.cli.main import main
from understudy.monitor.config.hours import WEEK, weekly
from understudy.monitor.config.slo import SloFile
from understudy.monitor.errors import ConfigError
from understudy.monitor.slo.compile import compiled
from understudy.monitor.slo.compiled import Compiled
from understudy.monitor.slo.load import checked
from understudy.monitor.slo.traffic_alert import NAME

STEP = 5
"""Minutes between samples and evaluations."""
HOUR, DAY = 60, 1440
FILE: dict[str, Any] = {
    "version": 1,
    "service": "s",
    "slos": [{"name": "a", "objective": "99 %", "availability": {}}],
}
OK = 'understudy_requests_total{%smodel="m",version="1",arm="champion",role="primary",outcome="ok"}'
Rate = Callable[[int], float]
"""Requests per minute at a minute since 1970, a Thursday."""


def alert_of(**changes: Any) -> Compiled:
    """Only this alert."""
    found = compiled(SloFile.model_validate({**FILE, **changes}), "test")
    others = {one.name for one in found.alerts} - {NAME}
    return compiled(SloFile.model_validate({**FILE, **changes, "without": [*others]}), "test")


def counted(rate: Rate, until: int, ends: int | None = None) -> str:
    """The samples of a counter; it has no more after the minute ``ends``."""
    total, values = 0.0, []
    for minute in range(0, until + 1, STEP):
        total += rate(minute) * STEP
        gone = ends is not None and minute > ends
        values.append("_" if gone else f"{total:g}")
    return " ".join(values)


def office(minute: int) -> float:
    """Mondays to Fridays from 8 to 18."""
    weekday = (minute // DAY + 4) % 7
    return 20.0 if 1 <= weekday <= 5 and 8 * HOUR <= minute % DAY < 18 * HOUR else 0.0


def at(day: int, hour: float) -> int:
    """The minute of a day of January 1970 and an hour of it."""
    return (day - 1) * DAY + round(hour * HOUR)


def tried(
    folder: Path,
    found: Compiled,
    series: dict[str, str],
    checks: list[dict[str, Any]],
    alerts: list[dict[str, Any]] | None = None,
) -> None:
    given = [{"series": name, "values": values} for name, values in series.items()]
    (rules,) = [d for name, d in found.rule_files().items() if name == "s-alerts.rules.yml"]
    test = {"interval": f"{STEP}m", "input_series": given, "promql_expr_test": checks}
    write(folder, {"it.rules.yml": rules, "it.tests.yml": {
        "rule_files": ["it.rules.yml"], "evaluation_interval": f"{STEP}m",
        "tests": [{**test, "alert_rule_test": alerts or []}]}})  # fmt: skip
    passes(folder, "it.tests.yml")


def firing(minute: int, number: int, matchers: str = "") -> dict[str, Any]:
    alerts = f'ALERTS{{alertname="{NAME}",alertstate="firing"{matchers}}}'
    return is_true(f"(count({alerts}) or vector(0)) == bool {number}", f"{minute}m")


def never(begin: int, end: int) -> dict[str, Any]:
    """It does not fire at any evaluation between two minutes."""
    alerts = f'ALERTS{{alertname="{NAME}",alertstate="firing"}}'
    return is_true(f"absent(count_over_time({alerts}[{end - begin}m]))", f"{end}m")


def always(begin: int, end: int) -> dict[str, Any]:
    """It fires at every evaluation between two minutes."""
    alerts = f'ALERTS{{alertname="{NAME}",alertstate="firing"}}'
    count = (end - begin) // STEP
    return is_true(f"sum(count_over_time({alerts}[{end - begin - 1}m])) == bool {count}", f"{end}m")


@pytest.mark.integration
@pytest.mark.usefixtures("promtool")
def test_nights_and_weekends_have_no_traffic_and_no_alert(tmp_path: Path) -> None:
    checks = [never(at(9, 8), at(16, 8)), firing(at(16, 8), 0)]
    tried(tmp_path, alert_of(), {OK % "": counted(office, at(16, 8))}, checks)


@pytest.mark.integration
@pytest.mark.usefixtures("promtool")
def test_it_lasts_until_the_next_request_and_says_since_when(tmp_path: Path) -> None:
    """Over a night and a weekend, whatever is expected then."""

    def until_friday(minute: int) -> float:
        return office(minute) if minute < at(16, 17) or minute >= at(19, 9) else 0.0

    checks = [
        firing(at(16, 17.25), 0),
        always(at(16, 17.5), at(19, 9) - STEP),
        firing(at(19, 9), 0),
    ]
    # The last request is between two scrapes, and which of them is found depends on the version.
    since = "16:45" if left_open() else "16:50"
    text = {
        "summary": f"m has had no traffic since 1970-01-16 {since}:00 +0000 UTC",
        "description": "Requests are usual at this hour. Check the load balancer and the clients. "
        "This ends with the next request.",
    }
    found = alert_of(runbooks={"url": "https://r.example/{alert}"})
    alert = {
        "exp_labels": {"model": "m", "service": "s", "severity": "ticket",
                       "understudy_kind": "outage"},
        "exp_annotations": {**text, "runbook_url": f"https://r.example/{NAME}"},
    }  # fmt: skip
    expected = {"eval_time": f"{at(18, 3)}m", "alertname": NAME, "exp_alerts": [alert]}
    tried(tmp_path, found, {OK % "": counted(until_friday, at(19, 10))}, checks, [expected])


@pytest.mark.integration
@pytest.mark.usefixtures("promtool")
def test_a_model_without_a_sidecar_is_forgotten_after_a_week(tmp_path: Path) -> None:
    """One that a sidecar still has is missed until there is a request."""
    stops = at(9, 12)
    series = {
        OK % 'namespace="kept",': counted(lambda m: 20.0 if m < stops else 0.0, at(18, 0)),
        OK % 'namespace="gone",': counted(lambda m: 20.0, at(18, 0), ends=stops),
    }
    kept, gone = ',namespace="kept"', ',namespace="gone"'
    checks = [
        firing(at(9, 12.75), 1, kept),
        firing(at(9, 12.75), 1, gone),
        firing(at(16, 11), 1, gone),
        firing(at(16, 13), 0, gone),
        firing(at(18, 0), 1, kept),
    ]
    tried(tmp_path, alert_of(), series, checks)


@pytest.mark.integration
@pytest.mark.usefixtures("promtool")
def test_without_a_week_of_data_it_is_compared_with_the_day_before(tmp_path: Path) -> None:
    def daily(minute: int) -> float:
        return 20.0 if 8 * HOUR <= minute % DAY < 18 * HOUR and minute < at(4, 10) else 0.0

    checks = [never(at(2, 8), at(4, 10)), always(at(4, 10.75), at(5, 8))]
    tried(tmp_path, alert_of(), {OK % "": counted(daily, at(5, 8))}, checks)


@pytest.mark.integration
@pytest.mark.usefixtures("promtool")
@pytest.mark.parametrize("every", [30, 35, 40, 60])
def test_bursts_with_gaps_between_them_are_no_outage(tmp_path: Path, every: int) -> None:
    def bursts(minute: int) -> float:
        return 10.0 if minute % every == 0 else 0.0

    end = at(10, 0)
    tried(tmp_path, alert_of(), {OK % "": counted(bursts, end)}, [never(2 * HOUR, end)])


@pytest.mark.integration
@pytest.mark.usefixtures("promtool")
def test_declared_hours_replace_the_past(tmp_path: Path) -> None:
    """There is a request every half hour at most, which no past would make one expect."""

    def rare(minute: int) -> float:
        return 1.0 if office(minute) and minute % 25 == 0 and minute < at(6, 12) else 0.0

    found = alert_of(traffic_hours=["Mon-Fri 09:00-17:00"])
    checks = [
        never(0, at(6, 12)),
        always(at(6, 12.75), at(8, 8)),
        is_true("sum(understudy:requests:expected)", f"{at(7, 12)}m"),
        *(
            is_true(f"sum(understudy:requests:expected) == bool {value}", f"{minute}m")
            for minute, value in (
                (at(5, 9), 0), (at(5, 9.25), 1), (at(5, 16.9), 1), (at(5, 17), 0), (at(4, 12), 0),
            )
        ),
    ]  # fmt: skip
    tried(tmp_path, found, {OK % "": counted(rare, at(8, 8))}, checks)


@pytest.mark.integration
@pytest.mark.usefixtures("promtool")
def test_each_cluster_is_compared_with_itself(tmp_path: Path) -> None:
    """The label of one may be set by the file, too."""
    stops = at(2, 12)
    series = {
        OK % 'cluster="us",': counted(lambda m: 2000.0, at(3, 0)),
        OK % 'cluster="eu",': counted(lambda m: 20.0 if m < stops else 0.0, at(3, 0)),
    }
    file: dict[str, Any] = {"identity": ["cluster", "namespace"]}
    checks = [firing(at(2, 18), 1, ',cluster="eu"'), firing(at(2, 18), 0, ',cluster="us"')]
    tried(tmp_path, alert_of(**file), series, checks)
    series = {OK % "": series.popitem()[1]}
    tried(tmp_path, alert_of(**file, labels={"cluster": "eu"}), series, checks)


@pytest.mark.integration
@pytest.mark.usefixtures("promtool")
@pytest.mark.parametrize(
    "hours",
    [["mon-fri 07:00-19:00"], ["wed 22:30-23:30"], ["00:00-24:00"], ["thu 00:00-01:00"],
     ["fri-mon 20:00-04:00", "tue 09:00-11:00"]],
)  # fmt: skip
def test_the_generated_trial_fits_the_hours(tmp_path: Path, hours: list[str]) -> None:
    found = alert_of(traffic_hours=hours)
    ((name, tests),) = [item for item in found.test_files().items() if "alerts" in item[0]]
    write(tmp_path, {**found.rule_files(), name: tests})
    passes(tmp_path, name)


def test_the_command_reads_declared_hours(tmp_path: Path) -> None:
    file = tmp_path / "slo.yaml"
    slo = "{name: a, objective: 99 %, availability: }"
    file.write_text(
        f"version: 1\nservice: s\nslos: [{slo}]\ntraffic_hours: [Mon 07:00-19:00, 22:00-06:00]\n"
    )
    generate = ["slo", "generate", str(file), "--only", "rules", "--json"]
    done = CliRunner().invoke(main, generate)
    assert done.exit_code == 0, done.output
    rules = json.loads(done.stdout)["s-alerts.rules.yml"]["groups"][0]["rules"]
    (expected,) = [
        one["expr"] for one in rules if one.get("record") == "understudy:requests:expected"
    ]
    # Mondays, a quarter of an hour later: the rate looks back for so long, and the alert waits.
    assert f">= bool {DAY + 435})" in expected
    assert f"< bool {DAY + 1140})" in expected
    file.write_text(file.read_text().replace("19:00", "7 pm"))
    done = CliRunner().invoke(main, generate)
    assert done.exit_code == 2
    assert "traffic_hours[0]: not valid hours: 'Mon 07:00-7 pm' (examples: " in done.output


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        (["mon 07:00-19:00"], [(DAY + 420, DAY + 1140)]),
        (["fri-sun 08:00-09:00"], [(480, 540), (5 * DAY + 480, 5 * DAY + 540),
                                   (6 * DAY + 480, 6 * DAY + 540)]),
        (["00:00-24:00"], [(0, WEEK)]),
        (["Sat  22:00-06:00"], [(0, 360), (6 * DAY + 1320, WEEK)]),
        (["sun 08:00-12:00", "sun 11:00-13:00", "sun 13:00-14:00"], [(480, 840)]),
        (["mon 22:00-02:00"], [(DAY + 1320, 2 * DAY + 120)]),
    ],
)  # fmt: skip
def test_hours_of_the_week(texts: list[str], found: list[tuple[int, int]]) -> None:
    assert weekly(texts) == tuple(found)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mo-fr 9-17", "not valid hours: 'mo-fr 9-17' (examples: mon-fri 07:00-19:00, "),
        ("mon-fri 07:00-25:00", "not valid hours"),
        ("07:00-24:30", "a day ends at 24:00"),
        ("07:00-07:30", "too short: at least an hour"),
        ("07:00-07:00", "write 00:00-24:00 for all day"),
    ],
)
def test_hours_that_are_not_valid_are_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        checked({**FILE, "traffic_hours": ["mon 08:00-09:00", text]}, "slo.yaml")
    assert "traffic_hours[1]" in str(refused.value)
    assert message in str(refused.value)
