"""The console in the states that matter, at the widths of a phone and of a desk: a rollout that
awaits a person, one that was decided, and a service that is gone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.accessibility import violations
from tests.support.browser import kept, visit
from tests.support.console_world import apply_routes
from tests.support.patience import eventually
from tests.support.plane_process import PlaneProcess, WorkerEnd, encoded
from tests.support.promoted import served
from understudy.monitor.records import frames, record

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.integration
STAGES = [{"weight": 0.0, "gate": "manual", "requests": 100}, {"weight": 0.5}]
NAME = "delays-canary"
EXPERIMENT = {
    "name": NAME,
    "challengers": ["candidate"],
    "mode": "canary",
    "stages": STAGES,
    "metrics": [{"metric": "error_rate", "margin": "5 pp"}],
}
PAIRS = 300
_WIDER = """() => [...document.querySelectorAll('body *')]
  .filter(one => !one.closest('.wide, svg, .skip, .hide, pre'))
  .filter(one => one.getBoundingClientRect().right > innerWidth + 1)
  .map(one => one.outerHTML.slice(0, 120))"""


@pytest.fixture(scope="module")
def waiting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlaneProcess]:
    """A rollout whose first stage is over, and that a person has to approve."""
    plane = PlaneProcess(tmp_path_factory.mktemp("waiting"), experiments=[EXPERIMENT])
    stats = plane.stats()
    with plane:
        plane.report(0)
        threading.Thread(target=apply_routes, args=(plane,), daemon=True).start()
        served(stats, "champion", PAIRS)
        worker = WorkerEnd(plane)
        bodies = [
            encoded({"x": [1.0]}, {"p": [0.5]}, arm=arm, role=role, request_id=f"r-{number}")
            for number in range(PAIRS)
            for arm, role in ((0, record.ROLE_PRIMARY), (1, record.ROLE_MIRROR))
        ]
        worker.batch(1, bodies)
        worker.wait_for(frames.ACK, 1)
        eventually(lambda: rollout_of(plane)["phase"] == "waiting")
        yield plane


def rollout_of(plane: PlaneProcess) -> dict[str, Any]:
    whole: dict[str, Any] = plane.get(f"/v1/experiments/{NAME}").raise_for_status().json()
    challenger: dict[str, Any] = whole["challengers"][0]
    return challenger


def test_limits_stand_in_the_timeline_and_in_the_metrics(waiting: PlaneProcess) -> None:
    """What a difference is held against, where it is read: margin, and thresholds by metric."""
    (point, *_) = reversed(waiting.get(f"/v1/experiments/{NAME}/timeline").json()["candidate"])
    found = point["metrics"]["error_rate"]
    assert found["margin"] == 0.05
    assert found["effect"] is None
    item = next(one for one in rollout_of(waiting)["metrics"] if one["metric"] == "error_rate")
    assert found["log_threshold"] == pytest.approx(item["log_threshold"], rel=1e-5)
    assert item["log_threshold_harm"] > item["log_threshold"], "two metrics share alpha"
    who = {"experiment": NAME, "challenger": "candidate", "metric": "error_rate"}
    assert waiting.metric("understudy_experiment_limit", **who, limit="margin") == 0.05
    for about, key in (("pass", "log_threshold"), ("harm", "log_threshold_harm")):
        exported = waiting.metric("understudy_experiment_e_value_threshold", **who, about=about)
        assert exported == pytest.approx(2.718281828459045 ** item[key], rel=1e-6)


@pytest.mark.parametrize("width", [390, 1200])
@pytest.mark.parametrize("dark", [False, True])
def test_a_rollout_that_awaits_a_person(
    browser: Browser, waiting: PlaneProcess, dark: bool, width: int
) -> None:
    with visit(browser, waiting.url, dark=dark, width=width) as seen:
        seen.page.locator("#counts", has_text="1 awaits you").wait_for()
        seen.page.locator("#counts a.warn").click()
        seen.page.locator(".tag", has_text="awaits you").wait_for()
        seen.page.get_by_role("button", name="Approve").wait_for()
        row = seen.page.locator("#metric-candidate-error_rate")
        text = row.inner_text()
        assert f"{PAIRS} counted" in text
        assert "margin 5 pp" in text
        assert "of 20," in text, "the threshold of the claim"
        assert row.locator("svg .margin").count() == 1
        table = seen.page.locator("#metrics-candidate .wide")
        wider = table.evaluate("one => one.scrollWidth - one.clientWidth")
        assert wider <= 0, "a column of the evidence is cut off"
        assert seen.page.evaluate(_WIDER) == []
        seen.fine(svgs=1)
        kept(seen, f"waiting-{width}-{'dark' if dark else 'light'}")


@pytest.mark.parametrize("width", [390, 1280])
def test_a_rollout_that_was_decided(browser: Browser, waiting: PlaneProcess, width: int) -> None:
    """Last of the tests that share the rollout: it ends it."""
    if rollout_of(waiting)["phase"] == "waiting":
        url = f"{waiting.url}/?experiment={NAME}"
        with visit(browser, url, width=width) as seen:
            seen.page.get_by_role("button", name="Abort").click()
            seen.page.get_by_label("Your name").fill("ada")
            seen.page.get_by_label("Reason").fill("the wrong build")
            seen.page.get_by_label("to confirm").fill("candidate")
            seen.page.get_by_role("dialog").get_by_role("button", name="Abort").click()
            seen.page.locator("#audit", has_text="by ada: the wrong build").wait_for()
    with visit(browser, f"{waiting.url}/?experiment={NAME}", width=width) as seen:
        seen.page.locator("#verdict-candidate", has_text="aborted after stage").wait_for()
        assert seen.page.locator("button[data-act]").count() == 0, "nothing is left to decide"
        assert seen.page.locator("#content section.edge.good").count() == 0
        assert seen.page.evaluate(_WIDER) == []
        seen.fine()
        kept(seen, f"decided-{width}")
    assert violations(browser, f"{waiting.url}/?experiment={NAME}", width=width) == []


@pytest.mark.parametrize("width", [390, 1280])
def test_a_service_that_is_gone_looks_well_nowhere(
    browser: Browser, tmp_path: Path, width: int
) -> None:
    plane = PlaneProcess(tmp_path)
    stats = plane.stats()
    with plane:
        plane.report(0)
        served(stats, "champion", 50)
        eventually(lambda: plane.get("/v1/arms").json()["tones"].get("good"))
        with visit(browser, plane.url, width=width) as seen:
            seen.page.locator("#arms .good").first.wait_for()
            plane.kill()
            seen.page.locator("#state", has_text="no answer").wait_for()
            green = seen.page.locator("#arms .good").first.evaluate(
                "one => getComputedStyle(one).color"
            )
            neutral = seen.page.locator("#foot .soft").last.evaluate(
                "one => getComputedStyle(one).color"
            )
            assert green == neutral, "old figures are not green"
            assert seen.page.evaluate(_WIDER) == []
            kept(seen, f"gone-{width}")
