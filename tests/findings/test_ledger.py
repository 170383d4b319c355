"""The life cycle of a finding: opened once, updated when it matters, closed once."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.signals import signal
from understudy.monitor.errors import FindingError, FindingStateError, UnknownFindingError
from understudy.monitor.findings.changes import Change
from understudy.monitor.findings.finding import Contribution, Finding, Signal, Size
from understudy.monitor.findings.ledger import SUMMARY, Findings
from understudy.monitor.findings.limits import Limits

START = 1_790_000_000.0


def kinds(changes: list[Change]) -> list[str]:
    return [change.kind for change in changes]


def test_opens_once_and_closes_after_the_hold_time() -> None:
    findings = Findings()
    opened = findings.report("watch", [signal()], START)
    assert kinds(opened) == ["opened"]
    for second in range(1, 100):
        assert findings.report("watch", [signal()], START + second) == []
    gone = START + 100
    for second in (0, 100, 299):
        assert findings.report("watch", [], gone + second) == []
    closed = findings.report("watch", [], gone + 300)
    assert kinds(closed) == ["closed"]
    assert closed[0].finding.id == opened[0].finding.id
    assert closed[0].finding.reason == "recovered"
    assert findings.open() == []


def test_a_flickering_signal_keeps_its_finding_open() -> None:
    findings = Findings()
    changes = []
    for second in range(0, 3000, 10):
        changes += findings.report("watch", [signal()] if second % 200 == 0 else [], START + second)
    assert kinds(changes) == ["opened"]


def test_only_its_own_source_closes_a_finding() -> None:
    findings = Findings()
    findings.report("watch", [signal()], START)
    for second in range(0, 2000, 100):
        assert findings.report("validation", [], START + second) == []
    assert len(findings.open()) == 1


def test_the_first_report_after_a_pause_closes_nothing() -> None:
    findings = Findings()
    findings.report("watch", [signal()], START)
    assert findings.report("watch", [], START + 86_400) == []
    assert kinds(findings.report("watch", [], START + 86_700)) == ["closed"]


def test_a_finding_reopens_only_within_the_grace_time() -> None:
    findings = Findings(Limits(hold=10, grace=100))
    first = findings.report("watch", [signal()], START)[0].finding.id
    findings.report("watch", [], START + 1)
    assert kinds(findings.report("watch", [], START + 11)) == ["closed"]
    back = findings.report("watch", [signal()], START + 110)
    assert kinds(back) == ["reopened"]
    assert back[0].finding.id == first
    assert back[0].finding.reopened == 1
    assert back[0].finding.opened == START
    findings.report("watch", [], START + 111)
    findings.report("watch", [], START + 121)
    later = findings.report("watch", [signal()], START + 221)
    assert kinds(later) == ["opened"]
    assert later[0].finding.id != first
    assert findings.totals == {("delays", "drift"): 2}
    assert findings.reopened == 1


def test_a_worse_severity_updates_at_once_and_a_milder_one_after_the_hold_time() -> None:
    findings = Findings()
    findings.report("watch", [signal()], START)
    worse = signal(severity="critical")
    assert kinds(findings.report("watch", [worse], START + 1)) == ["updated"]
    assert findings.report("watch", [signal()], START + 2) == []
    assert findings.report("watch", [signal()], START + 299) == []
    told = findings.report("watch", [signal()], START + 301)
    assert kinds(told) == ["updated"]
    assert told[0].detail == "severity changed from critical to warning"


def test_small_movements_add_up_until_they_leave_the_reported_interval() -> None:
    findings = Findings()
    findings.report("watch", [signal()], START)
    changes = []
    for step in range(1, 8):
        size = Size("temp", "standard deviations", 0.0, 2.0 + step / 10, 1.5 + step / 10, 3.0)
        changes += findings.report("watch", [signal(size=size)], START + 100 * step)
    assert kinds(changes) == ["updated"]
    assert changes[0].finding.signal.size is not None
    assert changes[0].finding.signal.size.value == pytest.approx(2.6)
    assert "temp is 2.6 standard deviations, was 2" in changes[0].detail


@pytest.mark.parametrize(
    ("value", "told"), [(2.1, False), (3.9, False), (4.0, True), (1.1, False), (1.0, True)]
)
def test_without_an_interval_twice_or_half_as_far_is_an_update(value: float, told: bool) -> None:
    findings = Findings()
    bare = Size("missing", "", 0.0, 2.0, None, None)
    findings.report("watch", [signal(size=bare)], START)
    changes = findings.report("watch", [signal(size=replace(bare, value=value))], START + 100)
    assert kinds(changes) == (["updated"] if told else [])


def test_a_new_leading_feature_is_an_update_and_a_new_title_is_not() -> None:
    findings = Findings()
    findings.report("watch", [signal()], START)
    assert findings.report("watch", [signal(title="Other words")], START + 100) == []
    assert findings.open()[0].signal.title == "Other words"
    other = signal(features=(Contribution("wind", 0.9), Contribution("temp", 0.1)))
    changes = findings.report("watch", [other], START + 200)
    assert kinds(changes) == ["updated"]
    assert changes[0].detail == "wind now contributes most"


def test_of_two_signals_with_one_key_the_more_severe_counts() -> None:
    findings = Findings()
    both = [signal(), signal(severity="critical"), signal(severity="info")]
    changes = findings.report("watch", both, START)
    assert kinds(changes) == ["opened"]
    assert changes[0].finding.signal.severity == "critical"


def test_acknowledged_until_it_gets_worse() -> None:
    findings = Findings()
    id_ = findings.report("watch", [signal()], START)[0].finding.id
    change = findings.acknowledge(id_, "ada", "known", START + 1)
    assert change.kind == "acknowledged"
    assert change.detail == "ada: known"
    assert findings.find(id_).acknowledged
    findings.report("watch", [signal(severity="critical")], START + 2)
    assert not findings.find(id_).acknowledged
    assert [note.who for note in findings.find(id_).notes] == ["ada"]


def test_a_dismissed_finding_stays_closed_until_it_recovers() -> None:
    findings = Findings(Limits(grace=0))
    id_ = findings.report("watch", [signal()], START)[0].finding.id
    findings.close(id_, "ada", "a test", START + 1)
    for second in range(2, 2000, 10):
        assert findings.report("watch", [signal()], START + second) == []
    findings.report("watch", [], START + 2000)
    findings.report("watch", [], START + 2300)
    assert kinds(findings.report("watch", [signal()], START + 2301)) == ["opened"]
    with pytest.raises(FindingStateError, match="already closed"):
        findings.close(id_, "ada", "", START + 2302)
    with pytest.raises(FindingStateError):
        findings.acknowledge(id_, "ada", "", START + 2302)
    with pytest.raises(UnknownFindingError):
        findings.find("nothing")


def test_a_dismissed_finding_reopens_when_it_gets_worse() -> None:
    findings = Findings()
    id_ = findings.report("watch", [signal()], START)[0].finding.id
    findings.close(id_, "ada", "", START + 1)
    back = findings.report("watch", [signal(severity="critical")], START + 2)
    assert kinds(back) == ["reopened"]
    assert back[0].finding.id == id_


def test_accepting_the_new_normal_calls_back() -> None:
    accepted: list[Finding] = []
    findings = Findings(on_accepted=accepted.append)
    id_ = findings.report("watch", [signal()], START)[0].finding.id
    findings.close(id_, "ada", "the sensor was replaced", START + 1, new_normal=True)
    assert [finding.id for finding in accepted] == [id_]
    assert accepted[0].reason == "closed by ada: the sensor was replaced, as the new normal"


def test_silences_apply_and_end() -> None:
    findings = Findings()
    silence = findings.silence("drift/delays/*", START + 100, "ada", "maintenance", START)
    findings.report("watch", [signal()], START + 1)
    other = signal("quality/delays/1//", kind="quality")
    findings.report("watch", [signal(), other], START + 2)
    silent = {f.key: f.silent(START + 50) for f in findings.open()}
    assert silent == {"drift/delays/1//": True, "quality/delays/1//": False}
    assert not any(f.silent(START + 100) for f in findings.open())
    findings.end_silence(silence.id, START + 60)
    assert not any(f.silent(START + 61) for f in findings.open())
    for until in (START, math.inf, math.nan, START + 400 * 86_400):
        with pytest.raises(FindingError):
            findings.silence("*", until, "ada", "", START)
    for _ in range(200):
        findings.silence("nothing", START + 10, "ada", "", START)
    with pytest.raises(FindingStateError, match="200"):
        findings.silence("nothing", START + 10, "ada", "", START)
    findings.silence("nothing", START + 20, "ada", "", START + 11)
    with pytest.raises(UnknownFindingError):
        findings.end_silence("nothing", START)


def test_many_findings_are_summarised() -> None:
    findings = Findings(Limits(max_open=5, max_openings=1000))
    flood = [signal(f"drift/delays/1/carrier={n}/") for n in range(500)]
    changes = findings.report("watch", flood, START)
    assert kinds(changes) == ["opened"] * 6
    more = changes[-1].finding
    assert more.source == SUMMARY
    assert more.signal.title == "and 495 more findings of delays"
    for second in range(1, 50):
        assert findings.report("watch", flood, START + second) == []
    # Each model has its own limit.
    other = signal("drift/fares/1//", model="fares")
    assert kinds(findings.report("watch", [*flood, other], START + 60)) == ["opened"]
    for second in range(100, 500, 100):
        changes = findings.report("watch", flood[:5], START + second)
    assert {f.key for f in findings.open()} == {s.key for s in flood[:5]}


def test_a_severe_finding_evicts_a_milder_one() -> None:
    findings = Findings(Limits(max_open=3, max_openings=1000))
    mild = [signal(f"drift/delays/1/carrier={n}/", severity="info") for n in range(3)]
    findings.report("watch", mild, START)
    bad = signal("quality/delays/1//", kind="quality", severity="critical")
    changes = findings.report("watch", [*mild, bad], START + 1)
    assert kinds(changes) == ["closed", "opened", "opened"]
    assert changes[0].finding.reason == "summarised: replaced by a more severe finding"
    assert len([f for f in findings.open() if f.source != SUMMARY]) == 3
    # All open findings are as severe: none is evicted.
    for second in range(2, 30):
        assert findings.report("watch", [*mild, bad], START + second) == []


def test_openings_in_an_hour_are_limited_and_critical_ones_have_their_own() -> None:
    findings = Findings(Limits(max_open=1000, max_openings=10, grace=0, hold=0))
    opened = 0
    for second in range(0, 3600, 10):
        changes = findings.report("watch", [signal(f"drift/delays/1/n={second}/")], START + second)
        opened += sum(c.kind == "opened" and c.finding.source != SUMMARY for c in changes)
    assert opened == 10
    bad = signal("quality/delays/1//", kind="quality", severity="critical")
    changes = findings.report("watch", [bad], START + 3600 - 5)
    assert bad.key in {c.finding.key for c in changes if c.kind == "opened"}
    changes = findings.report("watch", [signal("drift/delays/1/later/")], START + 7300)
    assert "drift/delays/1/later/" in {c.finding.key for c in changes if c.kind == "opened"}


def test_the_history_is_bounded_and_counted() -> None:
    findings = Findings(Limits(history=10, hold=0, grace=0, max_openings=10_000))
    for number in range(50):
        findings.report("watch", [signal(f"drift/delays/1/n={number}/")], START + number)
    assert len(findings.closed()) == 10
    assert findings.forgotten == 39
    assert findings.closed()[0].key == "drift/delays/1/n=48/"
    assert findings.totals["delays", "drift"] == 50


def test_retiring_a_source_closes_its_findings() -> None:
    findings = Findings()
    findings.report("watch", [signal()], START)
    assert kinds(findings.retire("watch", START + 1)) == ["closed"]
    assert findings.retire("watch", START + 2) == []


@pytest.mark.parametrize("step", [-86_400.0, -1.0, 86_400.0, -START, 1e12])
def test_clock_jumps_neither_crash_nor_duplicate(step: float) -> None:
    findings = Findings()
    findings.report("watch", [signal()], START)
    now = START + step
    assert findings.report("watch", [signal()], now) == []
    findings.report("watch", [], now + 1)
    changes = findings.report("watch", [], now + 302)
    # The far end of time stands still.
    assert kinds(changes) == (["closed"] if step < 1e12 else [])
    assert json.loads(json.dumps(findings.dump_state()))["number"] == 1
    with pytest.raises(FindingError):
        findings.report("watch", [], math.nan)


def test_a_restored_ledger_continues() -> None:
    findings = Findings(Limits(max_open=3))
    signals = [signal(f"drift/delays/1/n={n}/") for n in range(6)]
    findings.report("watch", signals, START)
    findings.close(findings.open()[0].id, "ada", "so it is", START + 1)
    findings.silence("drift/*", START + 1000, "ada", "", START + 1)
    findings.report("watch", signals, START + 2)
    saved = json.loads(json.dumps(findings.dump_state(), allow_nan=False))
    again = Findings.from_state(saved, findings.limits)
    assert again.dump_state() == findings.dump_state()
    assert again.open() == findings.open()
    for now in (START + 100, START + 200, START + 700):
        assert again.report("watch", signals[:2], now) == findings.report("watch", signals[:2], now)


@pytest.mark.parametrize(
    "damage",
    [
        {"version": 1},
        {"findings": {"open": None, "closed": [], "forgotten": 0}},
        {"findings": {"open": [{"id": 1}], "closed": [], "forgotten": 0}},
        {"silences": {}},
        {"openings": []},
        {"totals": [[1]]},
        {"number": "x"},
    ],
)
def test_a_damaged_state_is_an_error_and_leaves_the_ledger_empty(damage: dict[str, object]) -> None:
    findings = Findings()
    findings.report("watch", [signal()], START)
    saved = {**findings.dump_state(), **damage}
    again = Findings()
    with pytest.raises(FindingError):
        again.load_state(saved)
    assert again.all() == []
    assert again.number == 0


KEYS = [f"drift/{model}/1/{n}/" for model in ("a", "b") for n in range(6)]


def some_signal(key: str, severity: str, value: float) -> Signal:
    size = Size("x", "", 0.0, value, value - 0.5, value + 0.5)
    return signal(key, model=key.split("/")[1], severity=severity, size=size)


reports = st.tuples(
    st.sampled_from(["watch", "performance"]),
    st.lists(
        st.builds(
            some_signal,
            st.sampled_from(KEYS),
            st.sampled_from(["info", "warning", "critical"]),
            st.sampled_from([0.0, 1.0, 3.0]),
        ),
        max_size=14,
    ),
    st.sampled_from([-5000.0, -10.0, 0.0, 1.0, 30.0, 100.0, 4000.0]),
)
orders = st.tuples(st.sampled_from(["close", "acknowledge", "restart", "retire"]), st.integers(0))


@settings(max_examples=150)
@given(st.lists(st.one_of(reports, orders), max_size=40))
def test_invariants_hold_for_any_sequence_of_reports(
    steps: list[tuple[str, list[Signal], float] | tuple[str, int]],
) -> None:
    limits = Limits(hold=60, grace=500, max_open=3, max_openings=5, update_interval=10, history=8)
    heard: list[Change] = []
    findings = Findings(limits, heard.extend)
    now = START
    for step in steps:
        if len(step) == 3:
            room, signals, elapsed = step
            now += elapsed
            findings.report(room, signals, now)
        elif step[0] == "restart":
            findings = Findings.from_state(json.loads(json.dumps(findings.dump_state())), limits)
            findings.on_changes = heard.extend
        elif step[0] == "retire":
            findings.retire("watch", now)
        elif findings.open():
            chosen = findings.open()[step[1] % len(findings.open())].id
            if step[0] == "close":
                findings.close(chosen, "ada", "", now)
            else:
                findings.acknowledge(chosen, "ada", "", now)
        open_ = findings.open()
        assert len({f.key for f in open_}) == len(open_)
        assert len({f.id for f in findings.all()}) == len(findings.all())
        assert len(findings.closed()) <= limits.history
        for model in ("a", "b"):
            of_model = [f for f in open_ if f.signal.model == model]
            assert len([f for f in of_model if f.source != SUMMARY]) <= limits.max_open
            assert len(of_model) <= limits.max_open + 1
    lives: dict[str, list[str]] = {}
    revisions: dict[str, int] = {}
    for change in heard:
        lives.setdefault(change.finding.id, []).append(change.kind)
        assert change.finding.revision == revisions.get(change.finding.id, 0) + 1
        revisions[change.finding.id] = change.finding.revision
        assert change.finding.open == (change.kind != "closed")
    still = {f.id for f in findings.open()}
    for id_, life in lives.items():
        turns = [kind for kind in life if kind in ("opened", "reopened", "closed")]
        expected = ["opened"]
        while len(expected) < len(turns):
            expected += ["closed"] if expected[-1] != "closed" else ["reopened"]
        assert turns == expected
        assert life[0] == "opened"
        assert (turns[-1] != "closed") == (id_ in still)
        # The only change of a closed finding is that it reopens.
        assert all(b == "reopened" for a, b in pairwise(life) if a == "closed")
