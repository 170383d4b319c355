"""The pages that people look at, in a real browser: they draw, ask nobody else, and log no error."""

from __future__ import annotations

import json
import re
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from tests.support.accessibility import violations
from tests.support.browser import kept, visit
from tests.support.chaos import experiment
from tests.support.load_server import Server, written
from tests.support.patience import eventually
from tests.support.plane_process import PlaneProcess
from tests.support.promoted import dead, follow_promotion, served
from tests.support.report_columns import write
from tests.support.traffic import count_traffic
from tests.support.two_arms import two_arms
from understudy.monitor.cli.main import main
from understudy.monitor.console.objectives import page as objectives_page

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.integration


def test_the_console_of_the_service(browser: Browser, tmp_path: Path) -> None:
    plane = PlaneProcess(tmp_path, objectives={"latency_p50": "<= 1s"})
    plane.stats()
    with plane:
        count_traffic(plane.stats())
        plane.report(0)
        eventually(lambda: plane.status()["arms"][0]["windows"]["start"]["count"])
        with visit(browser, plane.url) as seen:
            seen.page.get_by_role("heading", name="Understudy").wait_for()
            for title in ("Who serves", "The last 1h", "What happened"):
                seen.page.get_by_role("heading", name=title).first.wait_for()
            seen.page.get_by_role("row", name="champion").wait_for()
            assert seen.page.locator("#state").inner_text() == "degraded", (
                "its breaker is half open"
            )
            read = seen.page.locator("#age time").get_attribute("data-at")
            # It follows what happens.
            seen.page.wait_for_function(
                "was => document.querySelector('#age time').dataset.at !== was", arg=read
            )
            seen.page.locator("#chart-1 polyline").first.wait_for()
            # Of an hour, seconds are kept: charts show these, and say when they begin.
            begins = seen.page.get_by_text("Charts begin at").locator("time")
            since = float(begins.get_attribute("data-at") or 0)
            chart = seen.page.locator("#chart-1")
            assert since > time.time() - 1800
            assert abs(float(chart.get_attribute("data-since") or 0) - since) <= 60
            seen.fine(svgs=3)
            kept(seen, "status")
            seen.page.get_by_role("link", name="System").click()
            seen.page.get_by_role("heading", name="Workers").wait_for()
            seen.fine()
            # Of its scripts: without them, the page cannot notice.
            seen.page.locator("#live", has_text="Follows").wait_for()
            plane.kill()
            seen.page.locator("#state", has_text="no answer from the service").wait_for()
            assert "good" not in (seen.page.locator("#state").get_attribute("class") or "")
        with plane.start(), visit(browser, plane.url, dark=True, width=390) as seen:
            seen.page.get_by_role("heading", name="Who serves").wait_for()
            seen.fine()
            kept(seen, "status-dark")


def test_the_console_can_be_read_without_scripts(browser: Browser, tmp_path: Path) -> None:
    plane = PlaneProcess(tmp_path)
    plane.stats()
    with plane:
        count_traffic(plane.stats())
        plane.report(0)
        eventually(lambda: plane.status()["arms"][0]["windows"]["1m"]["count"])
        context = browser.new_context(java_script_enabled=False)
        page = context.new_page()
        for view, text in (("", "Who serves"), ("?view=system", "Workers"),
                           ("?view=requests", "None of the last requests"),
                           ("?view=archive", "Ended experiments")):  # fmt: skip
            page.goto(f"{plane.url}/{view}")
            assert text in page.locator("main").inner_text()
        page.goto(plane.url)
        row = page.get_by_role("row", name="champion").inner_text()
        assert "50 %" in row, "half of its requests timed out"
        assert page.locator("button[data-act]:visible").count() == 0
        context.close()


def test_the_console_asks_for_the_token(browser: Browser, tmp_path: Path) -> None:
    """On an address that others reach, the page shows nothing before its reader has signed in."""
    plane = PlaneProcess(tmp_path)
    plane.config["control"]["listen"] = f"0.0.0.0:{plane.port}"
    plane.stats()
    with plane.start(UNDERSTUDY_TEST_TOKEN="right"):
        plane.report(0)
        with visit(browser, f"{plane.url}/?view=system") as seen:
            token = seen.page.get_by_label("Token", exact=True)
            token.wait_for()
            assert seen.page.locator("#state").inner_text() == "not signed in"
            assert "champion" not in seen.page.content()
            kept(seen, "sign-in")
            token.fill("wrong")
            seen.page.get_by_role("button", name="Sign in").click()
            seen.page.locator("p.bad", has_text="token").wait_for()
            token.fill("right")
            token.press("Enter")
            seen.page.get_by_role("heading", name="Workers").wait_for()
            seen.page.reload()  # signed in by a cookie
            seen.page.get_by_role("heading", name="Workers").wait_for()
            (cookie,) = seen.page.context.cookies()
            assert cookie["httpOnly"]
            assert cookie["sameSite"] == "Strict"
            assert "right" not in cookie["value"]
            changed = seen.page.evaluate(
                "fetch('v1/findings/x/acknowledge', {method: 'POST'}).then(r => r.status)"
            )
            assert changed == 401, "the cookie allows reading only"
            with_header = seen.page.evaluate(
                """async () => {
                  const {csrf} = await (await fetch('v1/session')).json();
                  const answer = await fetch('v1/findings/x/acknowledge', {method: 'POST',
                    headers: {'x-understudy-csrf': csrf, 'content-type': 'application/json'},
                    body: JSON.stringify({who: 'ada'})});
                  return answer.status;
                }"""
            )
            assert with_header == 404, "with the session's header it is looked for"


def test_the_console_of_a_promoted_arm_that_is_dead(browser: Browser, tmp_path: Path) -> None:
    """It was green, and said "promoted 100 %"."""
    plane = PlaneProcess(tmp_path)
    stats = plane.stats()
    follow_promotion(plane)
    with plane:
        plane.report(0)
        eventually(lambda: plane.status()["ready"])
        served(stats, "candidate", 200)
        eventually(lambda: plane.status()["arms"][1]["shares"][0]["served"] == 1.0)
        for width, name in ((1280, "wide"), (390, "narrow")):
            with visit(browser, plane.url, width=width) as seen:
                seen.page.get_by_role("heading", name="Who serves").wait_for()
                assert seen.page.locator("#state").inner_text() == "ready"
                seen.fine()
                kept(seen, f"promoted-{name}")
        dead(stats)
        eventually(lambda: plane.status()["arms"][1]["diverted_1m"])
        for width, name in ((1280, "wide"), (390, "narrow")):
            with visit(browser, plane.url, width=width) as seen:
                seen.page.get_by_text("'candidate' should serve 100 % of 'delays'").wait_for()
                assert seen.page.locator("#state").inner_text() == "trouble"
                row = seen.page.get_by_role("row", name="candidate down")
                for text in ("should serve 100 %", "open 1", "400"):
                    assert text in row.inner_text()
                assert row.locator(".good").count() == 0, "nothing green that the API calls bad"
                assert seen.page.locator("#bar .good").count() == 0
                champion = seen.page.get_by_role("row", name="champion ok")
                assert "stands in for" in champion.inner_text()
                seen.fine()
                kept(seen, f"dead-{name}")


def first_line(page: Page, wanted: str) -> None:
    """A report begins with a sentence, and on paper it is dark on white, also for a reader whose
    screen is dark; axe-core finds nothing."""
    after = page.locator("main > h1 + p").inner_text()
    assert re.search(wanted, after), after
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.pdf()
    page.emulate_media(media="screen", color_scheme="light")
    for dark in (False, True):
        browser = page.context.browser
        assert browser is not None
        assert violations(browser, page.url, dark=dark) == []


def test_the_report_of_the_gate(browser: Browser, tmp_path: Path) -> None:
    pytest.importorskip("chaoslib", reason="NOT TESTED: the Chaos Toolkit is not installed")
    html = tmp_path / "gate.html"
    with Server(slots=4, seconds=0.01) as server:
        written(tmp_path, "pause.json", json.dumps(experiment(server, 0.5)))
        text = """
            objectives: {p90: 200ms, errors: 5 %}
            stages:
              - name: capacity
                capacity: {start: 100, most: 150, seconds: 1, at_least: 30/s, traffic: 1000,
                           concurrencies: [1, 2, 3, 4, 8], price_per_hour: 1}
              - name: pause
                chaos: {experiment: pause.json, load: {rate: 60}, before: 2s, after: 2s,
                        recovers_within: 2s, lost_at_most: 5 %}
        """
        plan = written(tmp_path, "gate.yaml", textwrap.dedent(text))
        arguments = ["gate", "--target", server.url, "--plan", str(plan), "--html", str(html)]
        said = CliRunner().invoke(main, arguments)
    assert html.exists(), said.output  # whatever the verdict: this test is about the page
    with visit(browser, html.as_uri()) as seen:
        for text in ("capacity", "pause", "Environment"):
            seen.page.get_by_role("heading", name=text).first.wait_for()
        for plot in ("latency over time", "requests per second", "latency by percentile",
                     "p99 by rate", "throughput by concurrency"):  # fmt: skip
            assert seen.page.get_by_role("img", name=plot).count() >= 1, plot
        assert seen.page.locator("rect.fault").first.is_visible()
        first_line(seen.page, r"\d of 2 stages passed")
        seen.fine(svgs=5)
        kept(seen, "gate")


def test_the_drift_report(browser: Browser, tmp_path: Path) -> None:
    old = write(tmp_path / "old.jsonl", 3000, 1)
    new = write(tmp_path / "new.jsonl", 3000, 2, factor=2.0, lost=True)
    html = tmp_path / "drift.html"
    arguments = ["drift", "report", str(old), str(new), "--html", str(html)]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    with visit(browser, html.as_uri()) as seen:
        seen.page.get_by_role("heading", name="Drift report").wait_for()
        seen.page.get_by_text("2 of 3 columns changed").wait_for()
        assert seen.page.get_by_role("img", name="shares by").count() >= 3
        first_line(seen.page, "2 of 3 columns changed: ")
        seen.fine(svgs=6)
        kept(seen, "drift")


def test_the_objectives_page(browser: Browser, tmp_path: Path) -> None:
    html = written(tmp_path, "objectives.html", objectives_page(two_arms()))
    with visit(browser, html.as_uri()) as seen:
        seen.page.get_by_role("heading", name="Objectives").wait_for()
        seen.page.get_by_text("is dominated by now").wait_for()
        assert seen.page.locator("circle.on").is_visible()
        first_line(seen.page, "(meets|misses) ")
        seen.fine(svgs=1)
        kept(seen, "objectives")
