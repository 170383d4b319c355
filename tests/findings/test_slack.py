"""Messages to Slack: their content and rate."""

from __future__ import annotations

import json

import pytest

from tests.support.channel_driving import START, config, drive
from tests.support.signals import signal
from tests.support.webhook_receiver import Receiver
from understudy.monitor.findings.channels.slack import Slack
from understudy.monitor.findings.finding import Contribution
from understudy.monitor.findings.ledger import Findings
from understudy.monitor.findings.limits import Limits


def test_slack_blocks_are_bounded_and_escaped(
    there: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLACK_URL", there.url + "/services/T/B/secret?x=1")
    channel = Slack(config(kind="slack", url_env="SLACK_URL", link="https://u.example/base/"))
    findings = Findings()
    nasty = "<!channel> & <https://evil.example|here> " * 60
    bad = signal(
        title=nasty,
        advice=nasty,
        segment="a<b",
        features=tuple(Contribution(f"{n}<&>", 0.05, nasty) for n in range(20)),
    )
    findings.report("watch", [bad], START)
    drive(channel, findings, START)
    (request,) = there.requests
    assert request.path == "/services/T/B/secret?x=1"
    document = request.json
    text = json.dumps(document)
    # In plain texts Slack looks for no signs: all texts of findings are such.
    texts = [
        part
        for block in document["blocks"]
        for part in [*block.get("fields", []), *block.get("elements", []), block.get("text")]
        if part is not None
    ]
    assert document["mrkdwn"] is False
    plain = [part for part in texts if part["type"] == "plain_text"]
    assert all(part["emoji"] is False for part in plain)
    marked = json.dumps([document["text"], *(p for p in texts if p not in plain)])
    assert len(texts) == len(plain) + 1
    assert "<!channel" not in marked
    assert "<https://evil" not in marked
    header = document["blocks"][0]["text"]
    assert header["type"] == "plain_text"
    assert len(header["text"]) <= 150
    for block in document["blocks"][1:]:
        for part in [*block.get("fields", []), *block.get("elements", []), block.get("text")]:
            assert part is None or len(part["text"]) <= 3000
            assert part is None or not part["text"].rstrip("…").endswith(("&", "&a", "&am", "&l"))
    assert len(document["blocks"]) <= 50
    id_ = findings.open()[0].id
    assert f"<https://u.example/base/?finding={id_}|{id_}>" in text


def test_slack_follows_a_finding_from_opening_to_closing(there: Receiver) -> None:
    channel = Slack(config(there, "slack"))
    findings = Findings(Limits(hold=0))
    findings.report("watch", [signal()], START)
    drive(channel, findings, START)
    findings.report("watch", [signal(severity="critical", size=None, since=None)], START + 60)
    drive(channel, findings, START + 60)
    findings.report("watch", [], START + 3700)
    drive(channel, findings, START + 3700)
    titles = [r.json["blocks"][0]["text"]["text"] for r in there.requests]
    assert titles == [
        "⚠️ Warning: Inputs have changed: temp",
        "🔴 Changed, critical: Inputs have changed: temp",
        "✅ Closed: Inputs have changed: temp",
    ]
    texts = [json.dumps(r.json, ensure_ascii=False) for r in there.requests]
    assert "• temp (80 %): median 12, was 54" in texts[0]
    assert "temp: 2 standard deviations (1.5 to 2.5), was 0" in texts[0]
    assert "severity changed from warning to critical" in texts[1]
    assert "Open for\\n1 h 1 min" in texts[2]
    assert "recovered" in texts[2]


def test_slack_gets_one_message_a_second(there: Receiver) -> None:
    channel = Slack(config(there, "slack"))
    findings = Findings()
    findings.report("watch", [signal(f"drift/m{n}/1//", model=f"m{n}") for n in range(5)], START)
    for tenth in range(35):
        drive(channel, findings, START + tenth / 10)
    assert len(there.requests) == 4
