"""A real Alertmanager receives findings and notifies its own receiver."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from click.testing import CliRunner

from tests.support.patience import eventually, patient
from tests.support.ports import free_port
from tests.support.signals import signal
from tests.support.webhook_receiver import Receiver, receiver
from tools.parts.debian import alertmanager
from understudy.monitor.cli.main import main
from understudy.monitor.config.notify import Notification
from understudy.monitor.config.runbooks import PUBLIC, runbook_url
from understudy.monitor.findings.channels.alertmanager import Alertmanager
from understudy.monitor.findings.ledger import Findings
from understudy.monitor.findings.limits import Limits
from understudy.monitor.findings.notify import Notifier

START = 1_790_000_000.0


class RealAlertmanager:
    def __init__(self, folder: Path, to: Receiver) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        config = folder / "alertmanager.yml"
        config.write_text(
            "global: {resolve_timeout: 1h}\n"
            "route: {receiver: us, group_by: ['...'], group_wait: 0s, group_interval: 1s,"
            " repeat_interval: 1h}\n"
            f"receivers: [{{name: us, webhook_configs: [{{url: '{to.url}/from'}}]}}]\n"
        )
        self.log = (folder / "alertmanager.log").open("wb")
        self.process = subprocess.Popen(
            [
                *alertmanager(),
                f"--config.file={config}",
                f"--storage.path={folder / 'alertmanager'}",
                f"--web.listen-address={self.url.removeprefix('http://')}",
                "--cluster.listen-address=",
            ],
            stdout=self.log,
            stderr=self.log,
        )

    def ready(self) -> bool:
        with urlopen(self.url + "/-/ready", timeout=patient(5)) as answer:
            return bool(answer.status == 200)

    def alerts(self) -> dict[str, dict[str, Any]]:
        """Those in force, by severity and key."""
        with urlopen(self.url + "/api/v2/alerts", timeout=patient(5)) as answer:
            found = json.loads(answer.read())
        return {f"{one['labels']['severity']} {one['labels']['key']}": one for one in found}

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self.log.close()


@pytest.fixture
def there() -> Iterator[Receiver]:
    with receiver() as made:
        yield made


@pytest.fixture
def real(tmp_path: Path, there: Receiver) -> Iterator[RealAlertmanager]:
    made = RealAlertmanager(tmp_path, there)
    try:
        eventually(made.ready)
        yield made
    finally:
        made.stop()


def channel(url: str, **more: Any) -> Notification:
    return Notification.model_validate({"kind": "alertmanager", "url": url, **more})


@pytest.mark.integration
def test_alertmanager_follows_a_finding_from_opening_to_closing(
    real: RealAlertmanager, there: Receiver
) -> None:
    findings = Findings(Limits(hold=0))
    config = channel(real.url, labels={"team": "pricing"}, link="http://127.0.0.1:9090")
    notifier = Notifier([config], findings)
    alertmanager = notifier.channels["alertmanager"]

    def report(*signals: Any) -> None:
        findings.report("watch", signals, time.time())
        asyncio.run(notifier.flush())
        assert alertmanager.error is None

    first, other = signal(), signal("quality/delays/1//", kind="quality", version="")
    report(first, other)
    alerts = real.alerts()
    assert alerts.keys() == {f"warning {first.key}", f"warning {other.key}"}
    alert = alerts[f"warning {first.key}"]
    assert alert["labels"] == {
        "alertname": "UnderstudyDrift",
        "model": "delays",
        "version": "1",
        "kind": "drift",
        "severity": "warning",
        "key": first.key,
        "team": "pricing",
    }
    id_ = next(f.id for f in findings.open() if f.key == first.key)
    assert alert["annotations"]["summary"] == first.title
    assert alert["annotations"]["features"].startswith("temp (80 %): median 12, was 54")
    assert alert["annotations"]["finding"] == id_
    assert alert["generatorURL"] == f"http://127.0.0.1:9090/?finding={id_}"
    assert alert["annotations"]["finding_url"] == alert["generatorURL"]
    assert alert["annotations"]["runbook_url"] == runbook_url(PUBLIC, "UnderstudyDrift")
    assert alert["status"]["state"] == "active"
    eventually(lambda: notified(there, "firing") == {first.key, other.key})
    # Another severity is another alert; that of the old one ends.
    report(signal(severity="critical"), other)
    assert real.alerts().keys() == {f"critical {first.key}", f"warning {other.key}"}
    # What closes is resolved.
    report(other)
    assert real.alerts().keys() == {f"warning {other.key}"}
    eventually(lambda: notified(there, "resolved") == {first.key})
    # What is silenced here ends there.
    findings.silence("quality/*", time.time() + 60, "ada", "", time.time())
    report(other)
    assert real.alerts() == {}
    assert alertmanager.pending(findings, time.time()) == 0
    assert alertmanager.outcomes["refused"] == alertmanager.outcomes["failed"] == 0


@pytest.mark.integration
def test_open_findings_are_resent_before_they_expire(real: RealAlertmanager) -> None:
    findings = Findings()
    notifier = Notifier([channel(real.url, resend="500ms")], findings)

    async def run() -> None:
        task = asyncio.create_task(notifier.run())
        findings.report("watch", [signal()], time.time())
        notifier.wake()
        ends: set[str] = set()
        until = time.monotonic() + patient(20)
        # Four times the interval is how long one message holds: still there after that.
        while len(ends) < 4 and time.monotonic() < until:
            alerts = await asyncio.to_thread(real.alerts)
            ends |= {alert["endsAt"] for alert in alerts.values()}
            await asyncio.sleep(0.05)
        assert len(ends) >= 4
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    # Nobody sends it any more: Alertmanager takes it for resolved.
    eventually(lambda: real.alerts() == {})


@pytest.mark.integration
def test_alertmanager_accepts_unusual_texts(real: RealAlertmanager) -> None:
    findings = Findings()
    notifier = Notifier([channel(real.url)], findings)
    odd = 'ä ‮ \x00 \ud800 "quoted" {{ .Template }} \n' * 20
    bad = signal(key=odd, segment=odd, title=odd, advice=odd, examples=(odd,), model="", since=-5e9)
    findings.report("watch", [bad], time.time())
    asyncio.run(notifier.flush())
    assert notifier.channels["alertmanager"].outcomes == {"delivered": 1}
    assert len(real.alerts()) == 1


def step(alertmanager: Alertmanager, findings: Findings, now: float) -> None:
    asyncio.run(alertmanager.step(findings, now))


def test_alerts_are_sent_on_changes_and_on_resend(there: Receiver) -> None:
    findings = Findings(Limits(hold=0, grace=0))
    alertmanager = Alertmanager(channel(there.url + "/prefix/"))
    step(alertmanager, findings, START)
    assert there.requests == []
    findings.report("watch", [signal()], START)
    for second in range(200):
        step(alertmanager, findings, START + second)
    assert len(there.requests) == 4  # every 60 s
    assert {request.path for request in there.requests} == {"/prefix/api/v2/alerts"}
    (alert,) = there.requests[-1].json
    assert alert["startsAt"] == "2026-09-21T14:13:20Z"
    assert alert["endsAt"] == "2026-09-21T14:20:20Z"
    # One that ended and another of the same key: the alert goes on.
    findings.report("watch", [], START + 200)
    findings.report("watch", [signal()], START + 201)
    step(alertmanager, findings, START + 201)
    (alert,) = there.requests[-1].json
    assert alert["endsAt"] > "2026-09-21T14:17"
    findings.report("watch", [], START + 202)
    there.answers = [(503, {}, b""), (200, {}, b"")]
    step(alertmanager, findings, START + 202)
    assert alertmanager.pending(findings, START + 203) == 1
    saved = json.loads(json.dumps(alertmanager.dump_state()))
    again = Alertmanager(alertmanager.config)
    again.load_state(saved)
    step(again, findings, START + 300)
    (alert,) = there.requests[-1].json
    assert alert["endsAt"] == "2026-09-21T14:18:20Z"
    assert again.notified == {}
    count = len(there.requests)
    step(again, findings, START + 1000)
    assert len(there.requests) == count


def notified(there: Receiver, status: str) -> set[str]:
    """Keys of the alerts that Alertmanager sent to its own receiver."""
    return {
        alert["labels"]["key"]
        for request in there.requests
        if request.path == "/from"
        for alert in request.json["alerts"]
        if alert["status"] == status
    }


@pytest.mark.integration
def test_doctor_checks_it_and_sends_a_test(
    real: RealAlertmanager, there: Receiver, tmp_path: Path
) -> None:
    file = tmp_path / "understudy.yaml"
    document = {
        "version": 1,
        "listen": f"127.0.0.1:{free_port()}",
        "control": {"listen": f"127.0.0.1:{free_port()}"},
        "state_dir": str(tmp_path / "state"),
        "models": [{"name": "delays", "read": False}],
        "champion": {"url": f"http://127.0.0.1:{free_port()}"},
        "notify": [{"kind": "alertmanager", "url": real.url}],
    }
    file.write_text(json.dumps(document))

    def checked(*words: str) -> str:
        done = CliRunner().invoke(main, ["doctor", str(file), "--json", *words])
        checks = json.loads(done.stdout)["checks"]
        return str(next(one["status"] for one in checks if "channel" in one["subject"]))

    assert checked() == "ok"
    assert real.alerts() == {}
    assert checked("--send-test") == "ok"
    # It has ended: it is not in force, and Alertmanager's receiver hears of nothing that stays.
    eventually(lambda: real.alerts() == {})
    document["notify"] = [{"kind": "alertmanager", "url": real.url + "/wrong"}]
    file.write_text(json.dumps(document))
    assert checked() == "fault"
