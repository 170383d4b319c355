"""Every view of an experiment gives the same explanation: why, and what now."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.support.running_experiment import METRICS, NOW, pairs, running
from understudy.common.screen import Console
from understudy.monitor.cli import experiment_watch, top_view
from understudy.monitor.cli.experiment_offline import explained
from understudy.monitor.cli.main import main
from understudy.monitor.experiments.report import html, parts_of
from understudy.monitor.experiments.summary import document, summary

CASES = {
    "no improvement": (30_000, 0.9, "rollback", "no_improvement", "stop: no improvement"),
    "harm": (3_000, 0.7, "rollback", "harm", "roll back: harm"),
    "open": (60, 0.92, "continue", "", "continue"),
}


def drawn(item: Any) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(item)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


@pytest.mark.parametrize("case", CASES)
def test_all_views_show_the_same_explanation(case: str) -> None:
    n, rate, decision, cause, outcome = CASES[case]
    live = running(n, rate)
    whole = document(live, NOW + 200.0)
    one = whole["challengers"][0]
    assert (one["decision"], one["cause"], one["outcome"]) == (decision, cause, outcome)
    assert one["why"]
    assert one["next"]
    json.dumps(whole, allow_nan=False)

    page = html(parts_of(live, NOW + 200.0), [], NOW + 200.0, {})
    watched = drawn(experiment_watch.view(whole, {}))
    shown = "\n".join(explained(one))
    for view in (page, watched, shown):
        assert one["headline"] in view
    for line in one["next"][:4]:
        assert line in shown
        assert line.split("'")[0].split("`")[0] in " ".join(page.split())
        assert line[:80] in watched
    top = "\n".join(map(str, top_view._experiments({"experiments": [summary(live, NOW)]})))
    assert outcome in top
    assert f'class="verdict {one["tone"]}"' in page
    for item in one["metrics"]:
        assert item["odds"] in page


def test_want_of_improvement_is_not_shown_in_the_colour_of_harm() -> None:
    tones = {}
    for case in ("no improvement", "harm"):
        n, rate, *_ = CASES[case]
        tones[case] = document(running(n, rate), NOW + 200.0)["challengers"][0]["tone"]
    assert tones == {"no improvement": "neutral", "harm": "bad"}


def test_the_audit_and_a_restart_keep_the_cause() -> None:
    n, rate, *_ = CASES["no improvement"]
    live = running(n, rate)
    assert live.contestants["candidate"].rollout.cause == "no_improvement"
    again = running(0, 0.9)
    again.resume(live.assignment(), {})
    assert again.contestants["candidate"].decision.cause == "no_improvement"
    assert document(again, NOW)["challengers"][0]["outcome"] == "stop: no improvement"


def test_what_is_missing_is_told_at_the_present_rate() -> None:
    live = running(60, 0.92)
    one = document(live, NOW + 240.0)["challengers"][0]
    # 40 requests came after the first point, 180 s ago.
    minutes = (100 - 60) / (40 / 180.0) / 60.0
    assert "40 more requests until `minimum` is reached" in one["next"]
    assert minutes == pytest.approx(3.0)
    assert "the stage takes 40 more requests, about 3 minutes at the present rate" in one["next"]


def test_replay_explains_as_well(tmp_path: Path) -> None:
    lines = ["champion.error,challenger.error,champion.correct,challenger.correct"]
    batch = pairs(3000, 0.7)
    for first, second in zip(*batch.columns["correct"], strict=True):
        lines.append(f"0,0,{first:g},{second:g}")
    log = tmp_path / "pairs.csv"
    log.write_text("\n".join(lines) + "\n")
    file = tmp_path / "x.yaml"
    file.write_text(json.dumps({"name": "x", "metrics": METRICS}))
    done = CliRunner().invoke(main, ["experiment", "replay", str(log), "--experiment", str(file)])
    assert done.exit_code == 11
    assert "rollback: Roll back: the challenger is worse" in done.output
    assert "what now:" in done.output
    assert "less than 1 in a billion if nothing had changed" in done.output
    as_json = CliRunner().invoke(
        main, ["experiment", "replay", str(log), "--experiment", str(file), "--json"]
    )
    found = json.loads(as_json.output)
    assert found["cause"] == "harm"
    assert found["metrics"][0]["odds_harm"] == "less than 1 in a billion if nothing had changed"
