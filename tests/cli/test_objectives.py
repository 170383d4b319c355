"""Objectives: what can be said, what is met, and who is better than whom."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.support.patience import eventually
from tests.support.plane_process import PlaneProcess
from tests.support.traffic import count_traffic
from tests.support.two_arms import two_arms
from understudy.monitor.cli.main import main
from understudy.monitor.config.objective import (
    Difference,
    Figure,
    Objective,
    compared,
    dominated,
    shown,
    verdicts,
)
from understudy.monitor.console.objectives import page
from understudy.monitor.stats.energy import Rapl
from understudy.monitor.telemetry.objective_status import wilson


@pytest.mark.parametrize(
    ("metric", "text", "limit", "less"),
    [
        ("accuracy", ">= 0.9", 0.9, False),
        ("accuracy", ">=90%", 0.9, False),
        ("latency_p99", "<= 50ms", 0.05, True),
        ("latency_p50", "<= 0.2 s", 0.2, True),
        ("throughput", ">= 100 /s", 100.0, False),
        ("energy_per_prediction", "<= 5 mJ", 0.005, True),
    ],
)
def test_objectives_are_parsed_from_text(metric: str, text: str, limit: float, less: bool) -> None:
    found = Objective.parse(metric, text)
    assert (found.limit, found.less) == (pytest.approx(limit), less)
    assert found.met(limit)
    assert not found.met(limit * 2 if less else limit / 2)


@pytest.mark.parametrize(
    ("metric", "text", "said"),
    [
        ("speed", "<= 1", "'speed' is not one of accuracy"),
        ("accuracy", "0.9", "write <= or >="),
        ("accuracy", "<= 5 ms", "the unit of accuracy is none, or %"),
        ("latency_p99", "<= 5 %", "the unit of latency_p99 is s"),
        ("latency_p99", "<= 1e999s", "not a finite number"),
        ("latency_p99", "<= 1e5e5s", "the unit of latency_p99 is s"),
    ],
)
def test_invalid_objectives_are_rejected(metric: str, text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Objective.parse(metric, text)


CLIENTS, MIRRORED = "requests of clients", "mirrored requests"


def arm(accuracy: float, latency: float, basis: str = CLIENTS) -> dict[str, Figure]:
    return {
        "accuracy": Figure(accuracy, "measured", accuracy - 0.02, accuracy + 0.02, "labels"),
        "latency_p99": Figure(latency, "measured", 0.9 * latency, 1.1 * latency, basis),
        "throughput": Figure(latency, "measured"),
        "cost_per_prediction": Figure(None, "absent"),
    }


def by(arms: dict[str, dict[str, Figure]], *differences: Difference) -> dict[str, list[str]]:
    return dominated(compared(arms, differences), list(arms))


def test_dominance_is_claimed_only_beyond_the_intervals() -> None:
    found = by({"a": arm(0.90, 0.05), "b": arm(0.91, 0.04), "c": arm(0.80, 0.06)})
    assert found == {"a": ["b"], "b": [], "c": ["a", "b"]}
    trade = by({"quick": arm(0.80, 0.01), "right": arm(0.95, 0.10)})
    assert trade == {"quick": [], "right": []}
    assert by({"a": {}, "b": arm(1.0, 0.0)}) == {"a": [], "b": []}
    said = verdicts([Objective.parse("accuracy", ">= 0.9")], {})
    assert (said[0]["met"], said[0]["source"]) == (None, "absent")


def test_only_like_is_compared_with_like() -> None:
    """Latencies of mirrored requests and a frozen accuracy made identical arms "surely worse"."""
    frozen = {**arm(0.85, 0.09, MIRRORED), "accuracy": Figure(0.85, "measured", basis="labels")}
    arms = {"now": arm(0.9, 0.05), "next": frozen}
    found = {one.metric: one for one in compared(arms)}
    assert by(arms) == {"now": [], "next": []}
    assert found["latency_p99"].result is found["accuracy"].result is None
    assert found["latency_p99"].why == (
        "that of next is of mirrored requests, that of now of requests of clients"
    )
    assert found["accuracy"].why == "that of next has no interval"
    # What an experiment has measured on both is compared, whatever the rest is measured on.
    worse = Difference("next", "now", "accuracy", -0.08, -0.01)
    assert {one.metric: one.result for one in compared(arms, [worse])}["accuracy"] == "worse"
    assert by(arms, worse) == {"now": [], "next": []}, "it may be quicker: nobody knows"
    quicker = Difference("next", "now", "latency_p99", 0.001, 0.02)
    assert by(arms, worse, quicker) == {"now": [], "next": ["now"]}


@pytest.mark.parametrize(("errors", "count"), [(0, 1000), (10, 1000), (5, 5), (1, 3)])
def test_the_interval_of_a_rate_ends_where_it_would_be_rejected(errors: int, count: int) -> None:
    """Wilson's definition: a score test at 3.29 standard errors."""
    rate = errors / count
    low, high = wilson(errors, count)
    assert 0.0 <= low <= rate <= high <= 1.0
    for end in (low, high):
        assert (rate - end) ** 2 * count == pytest.approx(3.29**2 * end * (1.0 - end), abs=1e-9)


def test_the_running_service(tmp_path: Path) -> None:
    wanted = {"latency_p50": "<= 1s", "error_rate": "<= 1 %", "accuracy": ">= 0.9"}
    plane = PlaneProcess(tmp_path, objectives=wanted)
    plane.stats()
    with plane:
        count_traffic(plane.stats())
        found = eventually(
            lambda: next(
                (
                    one["arms"]
                    for one in [plane.get("/v1/objectives").json()]
                    if one["arms"][0]["figures"]["latency_p50"]["value"]
                ),
                None,
            )
        )
        champion = {one["metric"]: one["met"] for one in found[0]["objectives"]}
        assert champion == {"latency_p50": True, "error_rate": False, "accuracy": None}
        assert found[0]["figures"]["energy_per_prediction"]["source"] == "absent"
        assert found[0]["figures"]["latency_p99"]["value"] is None, "too few requests for a p99"
        assert plane.metric("understudy_objective_met", objective="error_rate") == 0.0
        answered = plane.get("/v1/objectives").json()
        assert [one["dominated_by"] for one in answered["arms"]] == [[], []]
        latency = next(o for o in answered["comparisons"] if o["metric"] == "latency_p50")
        assert latency["result"] is None, "copies wait behind the champion's own requests"
        url = ("--url", plane.url)
        asked = CliRunner().invoke(main, ["objectives", *url, "--exit-code"])
        assert asked.exit_code == 1, asked.output
        assert "error_rate" in asked.output
        said = " ".join(asked.output.split())
        assert "not comparable, because that of candidate is of mirrored requests" in said
        assert json.loads(CliRunner().invoke(main, ["objectives", *url, "--json"]).output)["arms"]


def test_energy_is_that_of_the_packages_over_time(tmp_path: Path) -> None:
    # The kernel's own layout: two packages, and a domain that is part of the first.
    def counter(name: str, microjoules: int) -> None:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        (folder / "energy_uj").write_text(f"{microjoules}\n")
        (folder / "max_energy_range_uj").write_text("1000000000\n")

    now = [100.0]
    assert Rapl(tmp_path / "none", lambda: now[0]).watts() is None
    for name, start in (("intel-rapl:0", 0), ("intel-rapl:1", 999_000_000), ("intel-rapl:0:0", 5)):
        counter(name, start)
    rapl = Rapl(tmp_path, lambda: now[0])
    assert rapl.watts() is None, "one look says nothing"
    now[0] += 10.0
    counter("intel-rapl:0", 300_000_000)
    counter("intel-rapl:1", 199_000_000)  # it has wrapped around
    counter("intel-rapl:0:0", 900_000_000)
    assert rapl.watts() == pytest.approx((300.0 + 200.0) / 10.0)
    (tmp_path / "intel-rapl:0" / "energy_uj").unlink()
    now[0] += 10.0
    assert rapl.watts() is None


def test_the_page_shows_who_is_on_the_front() -> None:
    text = page(two_arms())
    assert text.count("<svg") == 1
    assert (text.count('class="on"'), text.count('class="off"')) == (1, 1)
    assert "&lt;b&gt;</b> is dominated by now" in text
    assert "latency p95 not comparable, because that of &lt;b&gt; and now has no interval" in text
    assert "79 % to 81 %" in text
    assert "<b><b>" not in text
    assert "http" not in text
    assert 'class="bad">80 %' in text


def test_arms_on_different_bases_are_not_drawn_in_one_plane() -> None:
    found = two_arms()
    found["arms"][1]["figures"]["latency_p95"]["basis"] = MIRRORED
    text = page(found)
    assert "<svg" not in text
    assert "No chart: no two arms have figures on the same basis" in text


def test_latencies_are_shown_in_seconds_from_one_on() -> None:
    assert [shown("latency_p99", value) for value in (0.05, 0.9991, 1.0, 12.34)] == [
        "50 ms", "999 ms", "1 s", "12.3 s",
    ]  # fmt: skip
