"""A secret is never in what is logged, shown, answered or written."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from tests.support.control_api import TOKEN, VARIABLE, Line, filled, routes, settings_of
from tests.support.evaluation import config_of
from tests.support.patience import patient
from tests.support.signals import signal
from tests.support.webhook_receiver import receiver
from understudy.common.http import call
from understudy.monitor.api.access import Access
from understudy.monitor.api.app import build
from understudy.monitor.api.security import refuse
from understudy.monitor.cli.main import main
from understudy.monitor.config.checks import problems_at_start
from understudy.monitor.config.kafka import Kafka
from understudy.monitor.config.load import parse
from understudy.monitor.console import page
from understudy.monitor.errors import ConfigError, DeliveryError
from understudy.monitor.findings.notify import Notifier
from understudy.monitor.findings.post import post
from understudy.monitor.records.handoff import HandOffServer
from understudy.monitor.records.slots import Slots
from understudy.monitor.service.evaluation import make_plane
from understudy.monitor.stats.shared import SharedStats
from understudy.monitor.supervisor.run_directory import RunDirectory

SECRET = "hunter2"
BASE = """
version: 1
listen: 127.0.0.1:0
models: [{name: delays}]
champion: {name: champion, url: 'http://127.0.0.1:1'}
"""


@pytest.mark.parametrize(
    "text",
    [
        # Credentials and queries of addresses.
        "notify: [{kind: slack, url: 'https://user:hunter2@hooks.example/x'}]",
        "notify: [{kind: slack, url: 'user:hunter2@hooks.example/x'}]",
        "notify: [{kind: slack, url: 'https:/user:hunter2@hooks.example/x'}]",
        "notify: [{kind: slack, url: 'https://hooks.example/x?token=hunter2'}]",
        "notify: [{kind: slack, url: 'https://hooks.example/x#hunter2'}]",
        "challengers: [{name: c, url: 'http://user:hunter2@127.0.0.1:2'}]",
        # The secret where the name of its variable should be.
        "control: {token_env: 'hunter2!'}",
        "notify: [{kind: webhook, url: 'http://h', secret_env: 'hunter2 '}]",
        "notify: [{kind: webhook, url: 'http://h', token_env: 'hunter2 '}]",
        "notify: [{kind: slack, url_env: 'https://hooks.example/hunter2'}]",
        "kafka: {bootstrap: ['b:1'], security: {protocol: SASL_SSL, password_env: 'hunter2?'}}",
        # The secret itself.
        "control: {token: hunter2}",
        "notify: [{kind: webhook, url: 'http://h', secret: hunter2}]",
        "kafka: {bootstrap: ['b:1'], security: {password: hunter2}}",
    ],
)
def test_a_refused_configuration_does_not_repeat_a_secret(tmp_path: Path, text: str) -> None:
    path = tmp_path / "understudy.yaml"
    path.write_text(BASE + text)
    for options in ([], ["--json"]):
        checked = CliRunner().invoke(main, ["config", "check", str(path), *options])
        assert checked.exit_code == 2, "it is refused"
        assert SECRET not in checked.output
        assert SECRET not in checked.stderr


def test_what_is_not_a_secret_is_named_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ftp://models"):
        parse(BASE + "challengers: [{name: c, url: 'ftp://models'}]", "f.yaml", tmp_path)


def test_no_open_route_shows_the_token_or_the_address_of_a_channel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv(VARIABLE, TOKEN)
    monkeypatch.setenv("WIRING_KEY", SECRET)
    (tmp_path / "run").mkdir()
    with receiver() as there:
        there.answers = [(404, {}, b"no such page")]
        monkeypatch.setenv("WIRING_URL", f"{there.url}/services/{SECRET}")
        channels = [
            {"kind": "slack", "url_env": "WIRING_URL"},
            {"kind": "webhook", "url_env": "WIRING_URL", "secret_env": "WIRING_KEY"},
            {"kind": "alertmanager", "url": there.url, "token_env": "WIRING_KEY"},
        ]
        control = {"listen": "0.0.0.0:9090", "token_env": VARIABLE}
        config = config_of(tmp_path / "state", notify=channels, control=control)
        plane = make_plane(settings_of(config), tmp_path / "run", "run-1")
        loop = plane.pipeline.findings_loop
        assert loop is not None
        loop.service.ledger.report("watch", [signal()], 1.0)
        asyncio.run(loop.service.notifier.flush())
        assert len(there.requests) == 3
    line: Any = Line()
    app = build(plane, line)

    async def every() -> dict[str, str]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://service:9090") as client:
            good = {"authorization": f"Bearer {TOKEN}"}
            return {
                f"{method} {path}": (await client.request(method, filled(path), headers=good)).text
                for method, path in set(routes(app))
            }

    shown = asyncio.run(every())
    assert "answered 404: no such page" in shown["GET /v1/findings"]
    saved = json.dumps(plane.pipeline.dump_state(), default=str)
    for text in (*shown.values(), saved, caplog.text):
        assert TOKEN not in text
        assert SECRET not in text


def test_a_channel_that_cannot_be_reached_names_host_and_port_only() -> None:
    async def refused(url: str) -> str:
        with pytest.raises(DeliveryError) as error:
            await post(url, b"{}", {}, 5.0)
        return str(error.value)

    for url in (
        f"http://127.0.0.1:1/services/{SECRET}?key={SECRET}",
        f"http://user:{SECRET}@127.0.0.1:1/",
        f"ftp://127.0.0.1:1/{SECRET}",
        f"http://127.0.0.1:port/{SECRET}",
    ):
        assert SECRET not in asyncio.run(refused(url))


def test_variables_of_channels_that_are_not_set_are_reported_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("WIRING_URL", raising=False)
    monkeypatch.setenv("WIRING_KEY", SECRET)
    channels = [
        {"kind": "webhook", "url": "http://127.0.0.1:1", "secret_env": "WIRING_KEY"},
        {"kind": "slack", "url_env": "WIRING_URL"},
    ]
    (tmp_path / "run").mkdir()
    config = config_of(tmp_path / "state", notify=channels)
    make_plane(settings_of(config), tmp_path / "run", "run-1")
    expected = "notify[1].url_env: the environment variable WIRING_URL is not set"
    assert [line for line in caplog.messages if "is not set" in line] == [
        f"{expected}: findings cannot be sent there"
    ]


def test_a_missing_password_of_kafka_and_a_missing_token_end_the_start(tmp_path: Path) -> None:
    security = {"protocol": "SASL_SSL", "username": "u", "password_env": "WIRING_PASSWORD"}
    kafka = {"bootstrap": ["127.0.0.1:1"], "security": security}
    control = {"listen": "0.0.0.0:9090", "token_env": VARIABLE}
    config = config_of(tmp_path, kafka=kafka, evaluation="kafka", control=control)
    found = [path for path, _ in problems_at_start(config, {})]
    assert found[:2] == ["control.token_env", "kafka.security.password_env"]
    environment = {"WIRING_PASSWORD": SECRET, VARIABLE: TOKEN}
    assert problems_at_start(config, environment) == []


def test_the_password_of_kafka_is_in_no_text_of_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("kafka", reason="kafka-python is an extra")
    from understudy.monitor.kafka.connect import connection

    monkeypatch.setenv("WIRING_PASSWORD", SECRET)
    kafka = Kafka.model_validate(
        {
            "bootstrap": ["127.0.0.1:1"],
            "security": {
                "protocol": "SASL_PLAINTEXT",
                "mechanism": "PLAIN",
                "username": "u",
                "password_env": "WIRING_PASSWORD",
            },
        }
    )
    assert connection(kafka)["sasl_plain_password"] == SECRET
    assert SECRET not in repr(kafka)
    assert SECRET not in kafka.model_dump_json()


def test_the_tokens_are_compared_in_constant_time_and_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import hmac

    compared: list[tuple[bytes, bytes]] = []
    real = hmac.compare_digest

    def compare(a: bytes, b: bytes) -> bool:
        compared.append((a, b))
        return real(a, b)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    monkeypatch.setenv(VARIABLE, TOKEN)
    settings = settings_of(
        config_of(tmp_path, control={"listen": "127.0.0.1:9090", "token_env": VARIABLE})
    )
    for given, status in (
        (TOKEN, None),
        (TOKEN[:-1], 403),
        (TOKEN + "x", 403),
        (TOKEN.upper(), 403),
    ):
        refused = refuse(settings, Access.CHANGE, {"authorization": f"Bearer {given}"})
        assert (refused[0] if refused else None) == status
    assert len(compared) == 4


def test_a_request_that_cannot_be_sent_does_not_repeat_its_headers() -> None:
    with receiver() as there, pytest.raises(OSError, match="cannot be sent") as error:
        call(
            there.url,
            headers={"authorization": f"Bearer {SECRET}\n"},
            timeout_seconds=patient(20.0),
        )
    assert SECRET not in str(error.value)
    assert there.requests == []


def test_static_files_are_those_of_their_folder_alone() -> None:
    folder = Path(page.__file__).parent
    assert page.static("console.css") is not None
    for name in ("../page.py", "../templates/status.html", str(folder / "page.py"), "..", ""):
        assert page.static(name) is None


def test_what_middleware_sends_goes_through_no_proxy_of_the_environment() -> None:
    """In a process of its own: urllib reads the environment when the module is imported."""
    code = (
        "from understudy.monitor.ingest.asgi import UnderstudyMiddleware\n"
        "made = UnderstudyMiddleware(None, url='http://hooks.example.com', model='m')\n"
        "print(made._poster._post([b'{}']))\n"
        "made.close()\n"
    )
    with receiver() as proxy:
        environment = {
            name: value for name, value in os.environ.items() if name.lower() != "no_proxy"
        }
        environment |= {"HTTP_PROXY": proxy.url, "http_proxy": proxy.url}
        command = [sys.executable, "-c", code]
        done = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=patient(60),
        )
    assert done.stdout == "False\n"
    assert proxy.requests == []


# Files --------------------------------------------------------------------------------------------


def test_plan_and_configuration_lie_in_a_folder_for_the_owner(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        directory = RunDirectory(tmp_path / "state")
        directory.open()
        directory.write({"plan": 1}, {"config": 1})
        state = directory.state_dir
        paths = {"state": state, "run": directory.path, "lock": state / "lock"}
        modes = {name: stat.S_IMODE(path.stat().st_mode) for name, path in paths.items()}
        directory.close()
    finally:
        os.umask(before)
    assert modes == {"state": 0o700, "run": 0o700, "lock": 0o600}


def test_the_hand_off_and_the_statistics_are_for_the_owner(tmp_path: Path) -> None:
    async def listening() -> int:
        server = HandOffServer(tmp_path / "records.sock", Slots(), lambda *_: None)
        await server.start()
        mode = stat.S_IMODE(server.path.stat().st_mode)
        await server.stop(1.0)
        return mode

    before = os.umask(0o022)
    try:
        SharedStats(tmp_path / "worker-0.stats", 1 << 20).close()
        assert asyncio.run(listening()) & 0o077 == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "worker-0.stats").stat().st_mode) == 0o600


def test_a_notifier_says_what_is_missing_again_when_it_is_configured_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from tests.support.channel_driving import config
    from understudy.monitor.findings.ledger import Findings

    monkeypatch.delenv("WIRING_URL", raising=False)
    notifier = Notifier([], Findings())
    assert caplog.messages == []
    notifier.configure([config(kind="slack", url_env="WIRING_URL")])
    assert "notify[0].url_env" in caplog.text
