"""The views of the console in a real browser: what they say, what people can order, what they
look like in each state and width."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.accessibility import violations
from tests.support.browser import kept, visit
from tests.support.console_world import HOSTILE, apply_routes, past_findings, past_traffic
from tests.support.patience import eventually
from tests.support.plane_process import LABELS, PlaneProcess, WorkerEnd, encoded
from tests.support.promoted import served
from tests.support.traffic import count_traffic
from understudy.common.text import visible
from understudy.monitor.proxy import breaker
from understudy.monitor.records import frames
from understudy.monitor.stats.sketch import observe

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.integration
EXPERIMENT = {
    "name": "delays-canary",
    "challengers": ["candidate"],
    "mode": "canary",
    "metrics": [{"metric": "error_rate", "margin": "1 pp"}],
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[PlaneProcess, list[str]]]:
    plane = PlaneProcess(tmp_path_factory.mktemp("console"), experiments=[EXPERIMENT])
    now = time.time()
    past_traffic(plane.state_dir, now)
    ids = past_findings(plane.state_dir, now)
    stats = plane.stats()
    with plane:
        plane.report(0)
        threading.Thread(target=apply_routes, args=(plane,), daemon=True).start()
        count_traffic(stats)
        worker = WorkerEnd(plane)
        bodies = [encoded({HOSTILE: [1.5]}, {"p": [0.25]}, request_id="first")]
        worker.batch(1, bodies)
        worker.wait_for(frames.ACK, 1)
        yield plane, ids


VIEWS = ("", "?view=requests", "?view=system", "?view=archive", "?model=delays",
         "?experiment=delays-canary", "?finding={}", "?incident=i{}")  # fmt: skip


@pytest.mark.parametrize("width", [390, 1280])
def test_every_view_fits_and_logs_no_error(
    browser: Browser, world: tuple[PlaneProcess, list[str]], width: int
) -> None:
    plane, ids = world
    for view in VIEWS:
        url = f"{plane.url}/{view.format(ids[0])}"
        with visit(browser, url, dark=width == 390, width=width) as seen:
            seen.page.locator("#live", has_text="Follows").wait_for()
            assert seen.page.locator("#state").inner_text() == "trouble"
            assert seen.page.title().startswith("(2)")
            assert seen.page.locator("#bar .good").count() == 0
            assert seen.page.locator("img").count() == 0, "a name was obeyed"
            seen.fine()
            kept(seen, f"view-{VIEWS.index(view)}-{width}")


@pytest.mark.parametrize("dark", [False, True])
def test_every_view_is_accessible(
    browser: Browser, world: tuple[PlaneProcess, list[str]], dark: bool
) -> None:
    """By axe-core: names, roles, contrast, landmarks, order of headings."""
    plane, ids = world
    for view in (*VIEWS, "?finding=nothing", "v1/experiments/delays-canary/report"):
        url = f"{plane.url}/{view.format(ids[0])}"
        found = violations(browser, url, dark=dark, width=390 if dark else 1280)
        assert found == [], view


def test_a_finding_says_what_changed_and_is_acknowledged(
    browser: Browser, world: tuple[PlaneProcess, list[str]]
) -> None:
    plane, ids = world
    with visit(browser, f"{plane.url}/?finding={ids[0]}") as seen:
        page = seen.page
        text = page.locator("main").inner_text()
        for part in ("Accuracy of delays fell", visible(HOSTILE), "was 0.91", "0.68 to 0.72",
                     "compare the labels", "updated", "opened", "labels come for all"):  # fmt: skip
            assert part in text, part
        assert page.locator(".marks text", has_text="changed").is_visible()
        page.locator("#examples summary").click()
        assert visible(HOSTILE) in page.locator("#examples").inner_text()
        page.get_by_role("button", name="Acknowledge").click()
        # Nothing is ordered without a name.
        page.get_by_role("dialog").get_by_role("button", name="Acknowledge").click()
        assert page.get_by_role("dialog").is_visible()
        page.get_by_label("Your name").fill("ada")
        page.get_by_label("Reason").fill("the vendor looks at it")
        page.get_by_role("dialog").get_by_role("button", name="Acknowledge").click()
        page.locator("#what", has_text="acknowledged").wait_for()
        page.locator("#changes", has_text="by ada: the vendor looks at it").wait_for()
        assert page.locator("#examples details").get_attribute("open") is not None, "still open"
        page.get_by_role("button", name="Silence 1 h").click()
        page.get_by_label("Reason").fill("until the fix")
        page.get_by_role("dialog").get_by_role("button", name="Silence 1 h").click()
        page.locator("#what", has_text="silenced").wait_for()
        seen.fine()
    other: Any = plane.get(f"/v1/findings/{ids[1]}").json()
    assert not other["silent"], "a key is not a pattern"
    found: Any = plane.get(f"/v1/findings/{ids[0]}").json()
    assert [note["who"] for note in found["notes"]] == ["ada"]


def test_the_page_of_a_model_lists_its_findings(
    browser: Browser, world: tuple[PlaneProcess, list[str]]
) -> None:
    """The link of alerts of Prometheus."""
    plane, ids = world
    with visit(browser, f"{plane.url}/?model=delays") as seen:
        link = seen.page.locator("#findings a").first
        assert "Accuracy of delays fell" in link.inner_text()
        link.click()
        seen.page.get_by_role("heading", name="Findings").wait_for()
        seen.page.get_by_role("link", name="carrier: 'AA' rose").click()
        seen.page.get_by_role("heading", name="What this rests on").wait_for()
        assert ids[1] in seen.page.url


def test_a_rollout_is_ordered_with_a_reason_and_the_typed_name(
    browser: Browser, world: tuple[PlaneProcess, list[str]]
) -> None:
    plane, _ = world
    with visit(browser, f"{plane.url}/?experiment=delays-canary") as seen:
        page = seen.page
        assert page.locator(".ladder .now").inner_text().startswith("shadow")
        page.get_by_role("row", name="error_rate").first.wait_for()
        page.get_by_role("button", name="Abort").click()
        dialog = page.get_by_role("dialog")
        page.get_by_label("Your name").fill("ada")
        page.get_by_label("Reason").fill("the wrong build")
        page.get_by_label("to confirm").fill("champion")
        dialog.get_by_role("button", name="Abort").click()
        dialog.get_by_text("The name is not candidate").wait_for()
        page.get_by_label("to confirm").fill("candidate")
        dialog.get_by_role("button", name="Abort").click()
        page.locator("#audit", has_text="by ada: the wrong build").wait_for()
        page.get_by_role("button", name="Abort").wait_for(state="detached")  # it has ended
        seen.fine()


def test_charts_show_what_the_history_has(
    browser: Browser, world: tuple[PlaneProcess, list[str]]
) -> None:
    plane, _ = world
    with visit(browser, f"{plane.url}/?range=1h") as seen:
        figure = seen.page.locator("#chart-2")
        figure.focus()
        seen.page.keyboard.press("End")
        for _ in range(4):
            seen.page.keyboard.press("ArrowLeft")
        read = figure.locator(".read").inner_text()
        assert "champion" in read
        data = figure.evaluate("one => JSON.parse(one.dataset.chart)")
        wanted: Any = plane.get("/v1/history?series=error_rate&arm=champion&from=-3600").json()
        known = {
            at: value
            for one in wanted["series"] if one["role"] == "primary"
            for at, value in zip(wanted["times"], one["values"], strict=True)
        }  # fmt: skip
        shown = dict(zip(data["times"], data["values"][data["names"].index("champion")],
                         strict=True))  # fmt: skip
        settled = sorted(set(known) & set(shown))[:-2]
        assert len(settled) > 20
        for at in settled:
            assert (known[at] is None) == (shown[at] is None)
            assert shown[at] is None or shown[at] == pytest.approx(known[at], rel=1e-3, abs=1e-9)
        zone = seen.page.get_by_role("button", name="Times are in UTC")
        before = seen.page.locator("#age time").inner_text()
        zone.click()
        assert before.endswith("UTC")
        assert not seen.page.locator("#age time").inner_text().endswith("UTC")
        seen.fine(svgs=3)


def test_a_refresh_keeps_the_focus_and_is_small(
    browser: Browser, world: tuple[PlaneProcess, list[str]]
) -> None:
    plane, _ = world
    with visit(browser, f"{plane.url}/?view=requests") as seen:
        field = seen.page.get_by_label("Outcome")
        field.fill("time")
        with seen.page.expect_response("**/?view=requests") as answered:
            pass
        assert len(answered.value.body()) <= 50_000
        seen.page.wait_for_timeout(300)
        assert field.input_value() == "time"
        assert field.evaluate("one => one === document.activeElement")
    assert len(plane.get("/").content) <= 50_000


def test_what_is_not_there_is_said(browser: Browser, tmp_path: Path) -> None:
    plane = PlaneProcess(tmp_path)
    plane.stats()
    with plane:
        plane.report(0)
        for view in ("?finding=nothing", "?experiment=nothing", "?model=nothing"):
            assert plane.get(f"/{view}").status_code == 404
            assert "Not found" in plane.get(f"/{view}").text
        with visit(browser, plane.url) as seen:  # without traffic nothing is known to be well
            assert seen.page.locator("#state").inner_text() == "ready, no traffic"
            assert seen.page.locator(".good").count() == 0
            assert "No data in this range yet" in seen.page.locator("#chart-1").inner_text()
            seen.fine()


def test_many_arms_make_no_large_page(browser: Browser, tmp_path: Path) -> None:
    """A page of bounded size, those in trouble first; a search finds the others, and hides no
    trouble."""
    arms = [{"name": f"arm-{n:03d}", "url": f"http://127.0.0.1:{n + 2}"} for n in range(120)]
    plane = PlaneProcess(tmp_path, challengers=arms)
    stats = plane.stats()
    with plane:
        plane.report(0)
        for arm in arms:
            labels: dict[str, Any] = {**LABELS, "arm": arm["name"], "role": "mirror"}
            sketch = stats.sketch("duration", labels)
            stats.words[stats.counter("requests", labels)] += 5
            observe(stats.words, sketch, 10_000_000)
        stats.words[stats.gauge("breaker", {"arm": "arm-100"})] = breaker.OPEN
        served(stats, "champion", 50)
        eventually(lambda: plane.status()["arms"][0]["windows"]["1m"]["count"])
        assert len(plane.get("/").content) <= 50_000
        with visit(browser, plane.url, width=390) as seen:
            rows = seen.page.locator("#arms tbody tr")
            assert rows.first.inner_text().startswith("arm-100")
            assert rows.count() == 40
            seen.fine()
            seen.page.get_by_label("Name").fill("arm-11")
            seen.page.get_by_role("button", name="Filter").click()
            seen.page.get_by_text("10 of 121 arms").wait_for()
            assert seen.page.locator("#state").inner_text() == "degraded"
            assert seen.page.locator("#bar .good").count() == 0
