"""One finding for each cause, grouped into incidents that people are notified of."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.channel_driving import START, config, drive, events
from tests.support.signals import signal
from tests.support.webhook_receiver import Receiver
from understudy.monitor.errors import FindingStateError, UnknownFindingError
from understudy.monitor.findings.channels.webhook import Webhook
from understudy.monitor.findings.finding import Contribution, Finding, Signal
from understudy.monitor.findings.incident import MAX_FINDINGS
from understudy.monitor.findings.ledger import Findings
from understudy.monitor.findings.limits import Limits


def drift(name: str, **changes: Any) -> Signal:
    features = (Contribution(name, 0.5, "median 12, was 54"),)
    title = f"Inputs have changed: {name}, median 12, was 54"
    given: dict[str, Any] = {"title": title, "features": features, "since": None, **changes}
    return signal(f"drift/delays/1//input/{name}", **given)


def missing(name: str, **changes: Any) -> Signal:
    title = f"Data quality: {name} is missing in 40 % of the rows"
    given: dict[str, Any] = {"kind": "quality", "title": title, "since": None, **changes}
    features = (Contribution(name, 1.0, "is missing"),)
    return signal(f"quality/delays/1//missing/{name}", features=features, **given)


def test_findings_that_open_close_together_are_one_incident() -> None:
    findings = Findings()
    findings.report("watch", [drift("temp"), drift("wind")], START)
    both = [drift("temp"), drift("wind"), missing("age", severity="critical")]
    findings.report("watch", both, START + 300)
    findings.report("performance", [signal("performance/delays/1//realised", kind="performance",
                                           since=None)], START + 500)  # fmt: skip
    (incident,) = findings.incidents()
    assert len(incident.findings) == 4
    assert incident.id == f"i{min(f.id for f in incident.findings)}"
    assert incident.headline.startswith("Data quality: age is missing in 40 % of the rows; 3 more")
    assert "temp, wind" in incident.headline
    assert (incident.opened, incident.severity, incident.acknowledged) == (START, 2, False)
    # Another model, another version, and what opens much later, are other incidents.
    more = [drift("dew"), signal("drift/fares/1//", model="fares"),
            signal("drift/delays/2//", version="2", since=None)]  # fmt: skip
    findings.report("watch", [*both, *more], START + 1_200)
    assert sorted(len(one.findings) for one in findings.incidents()) == [1, 1, 1, 4]
    assert findings.incident(incident.id).id == incident.id
    with pytest.raises(UnknownFindingError):
        findings.incident("i-none")


def test_a_cause_that_is_found_late_joins_by_when_it_began() -> None:
    findings = Findings()
    findings.report("watch", [drift("temp", since=START - 60.0)], START)
    late = signal("performance/delays/1//realised", kind="performance", since=START - 200.0)
    findings.report("performance", [late], START + 7_200)
    (incident,) = findings.incidents()
    assert len(incident.findings) == 2
    assert incident.since == START - 200.0


def test_an_incident_lasts_until_its_last_finding_closes() -> None:
    findings = Findings(Limits(hold=0))
    findings.report("watch", [drift("temp"), drift("wind")], START)
    id_ = findings.incidents()[0].id
    findings.report("watch", [drift("wind")], START + 60)
    (incident,) = findings.incidents()
    assert [f.open for f in incident.findings] == [True, False]
    assert incident.headline == "Inputs have changed: wind, median 12, was 54"
    findings.report("watch", [], START + 120)
    assert findings.incidents() == []
    assert findings.incident(id_).closed == START + 120
    findings.report("watch", [drift("temp")], START + 180)  # the same finding, reopened
    assert [one.id for one in findings.incidents()] == [id_]


def test_incidents_are_bounded_and_survive_a_restart() -> None:
    findings = Findings(Limits(hold=0, grace=0, max_open=200, max_openings=200))
    findings.report("watch", [drift(f"f{n}") for n in range(MAX_FINDINGS + 10)], START)
    assert [len(one.findings) for one in findings.incidents()] == [MAX_FINDINGS, 10] or sorted(
        len(one.findings) for one in findings.incidents()
    ) == [10, MAX_FINDINGS]
    again = Findings.from_state(findings.dump_state(), findings.limits)
    assert again.incidents() == findings.incidents()
    old = findings.open()[0].dump()
    del old["incident"]
    assert Finding.from_dict(old).incident == f"i{old['id']}"


def test_an_acknowledgement_is_of_what_was_acknowledged() -> None:
    findings = Findings()
    findings.report("watch", [drift("temp")], START)
    temp = findings.open()[0]
    findings.acknowledge(temp.id, "ada", "a new sensor", START + 1)
    # Another cause, however much stronger, is another finding.
    findings.report("watch", [drift("temp"), drift("wind"), missing("temp")], START + 2)
    open_ = {finding.key: finding for finding in findings.open()}
    assert len(open_) == 3
    assert open_[temp.key].acknowledged
    assert not any(f.acknowledged for f in open_.values() if f.id != temp.id)
    assert open_[temp.key].signal.features[0].name == "temp"
    assert not findings.incidents()[0].acknowledged
    changes = findings.acknowledge_incident(findings.incidents()[0].id, "bob", "all", START + 3)
    assert len(changes) == 2
    assert findings.incidents()[0].acknowledged
    with pytest.raises(UnknownFindingError):
        findings.acknowledge_incident("i-none", "bob", "", START + 4)


def test_a_key_that_is_used_for_something_else_is_another_finding() -> None:
    findings = Findings()
    findings.report("watch", [signal("x", kind="drift")], START)
    first = findings.open()[0]
    findings.acknowledge(first.id, "ada", "", START + 1)
    changes = findings.report("watch", [signal("x", kind="quality")], START + 2)
    assert [change.kind for change in changes] == ["closed", "opened"]
    (second,) = findings.open()
    assert (second.signal.kind, second.acknowledged) == ("quality", False)
    assert second.id != first.id


def test_people_are_notified_of_the_incident(there: Receiver) -> None:
    findings = Findings(Limits(hold=0, update_interval=0))
    channel = Webhook(config(there))
    two = [drift("temp"), drift("wind")]
    findings.report("watch", two, START)
    drive(channel, findings, START)
    assert events(there) == ["opened"]
    first = there.requests[0].json
    assert first["incident"]["finding_ids"] == [f.id for f in findings.incidents()[0].findings]
    assert first["text"] == f"Warning: {two[0].title}; 1 more finding: wind"
    assert len(first["findings"]) == 2
    # More that opens within a minute is told together; what is worse is told at once.
    findings.report("watch", [*two, drift("dew")], START + 10)
    drive(channel, findings, START + 10)
    findings.report("watch", [*two, drift("dew"), drift("rain")], START + 20)
    drive(channel, findings, START + 20)
    assert len(there.requests) == 1
    drive(channel, findings, START + 61)
    assert events(there) == ["opened", "updated"]
    assert there.requests[1].json["change"].count("new: ") == 2
    four = [*two, drift("dew"), drift("rain"), missing("age", severity="critical")]
    findings.report("watch", four, START + 70)
    drive(channel, findings, START + 70)
    assert events(there) == ["opened", "updated", "updated"]
    assert there.requests[2].json["text"].startswith("Changed, critical: Data quality: age")
    # Acknowledged as a whole: one message.
    findings.acknowledge_incident(findings.incidents()[0].id, "ada", "the vendor", START + 80)
    drive(channel, findings, START + 80)
    assert events(there)[3:] == ["acknowledged"]
    # A recovery of one is news of the incident; the last one closes it.
    findings.report("watch", four[:2], START + 200)
    drive(channel, findings, START + 200)
    findings.report("watch", [], START + 300)
    drive(channel, findings, START + 300)
    assert events(there)[4:] == ["updated", "closed"]
    assert there.requests[4].json["change"].count("closed: ") == 3
    assert len({request.json["delivery"] for request in there.requests}) == 6


def test_a_new_finding_in_an_acknowledged_incident_is_told(there: Receiver) -> None:
    findings = Findings()
    channel = Webhook(config(there, repeat="1h"))
    findings.report("watch", [drift("temp")], START)
    drive(channel, findings, START)
    findings.acknowledge(findings.open()[0].id, "ada", "known", START + 1)
    drive(channel, findings, START + 1)
    findings.report("watch", [drift("temp"), drift("wind")], START + 200)
    drive(channel, findings, START + 200)
    assert events(there) == ["opened", "acknowledged", "updated"]
    assert there.requests[2].json["finding"]["features"][0]["name"] == "wind"
    drive(channel, findings, START + 4_000)
    assert events(there)[3:] == ["reminder"]


def test_a_closed_incident_cannot_be_acknowledged() -> None:
    findings = Findings(Limits(hold=0))
    findings.report("watch", [drift("temp")], START)
    id_ = findings.incidents()[0].id
    findings.report("watch", [], START + 1)
    with pytest.raises(FindingStateError):
        findings.acknowledge_incident(id_, "ada", "", START + 2)
